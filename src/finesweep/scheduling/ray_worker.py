"""A slot's worker: a Ray Tune class trainable that runs assignments, one after another, in a thread of its own.

Every attempt ends by the worker's own word. The driver's answers arrive by `answer` and `tell`, which Ray runs before
the next `step` because a caller's calls on an actor keep their order; so a stop can reach a trial at a report and
between two, and a trainer may take its time to clean up.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray import tune

from finesweep.events import AttemptResult, Decision, Report, TrialSpec
from finesweep.scheduling.attempt_log import capture_logs
from finesweep.scheduling.lanes import WorkersTrainer, run_assignment
from finesweep.trainer import TrainerFactory

ASSIGNMENT = "assignment"  # the key of the TrialSpecs in a Tune trial's config
MESSAGES = "messages"  # the key of what a worker says in a Tune result

Facts = dict[str, Any]
Message = tuple[int, Facts | Report | AttemptResult]  # of which trial, and what
Trials = tuple[TrialSpec, ...]

# The longest a worker stays silent: how soon a pause or stop reaches a trial between two reports.
HEARTBEAT_S = 0.5


class SlotWorker(tune.Trainable):  # type: ignore[misc]  # ray is untyped
    """Tune's view of a slot: `setup` or `reset_config` bring an assignment, `step` returns what was said of it."""

    def setup(self, config: dict[str, Any], *, trainer_factory: TrainerFactory, log_dir: Path) -> None:
        """Take an assignment, not to be begun before the first `step`.

        While this worker starts Tune may have given its assignment to another one that has become free.
        """
        self._thread = _TrainerThread(trainer_factory, log_dir)
        self._first: Trials | None = config[ASSIGNMENT]

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._first = None
        self._thread.begin(new_config[ASSIGNMENT])
        return True

    def step(self) -> dict[str, Any]:
        if self._first is not None:
            first, self._first = self._first, None
            self._thread.begin(first)
        return {MESSAGES: self._thread.mailbox.take(timeout_s=HEARTBEAT_S)}

    def answer(self, decisions: Mapping[int, Decision]) -> None:
        """Take the driver's answers to the reports that wait for them."""
        self._thread.mailbox.answer(decisions)

    def tell(self, words: Mapping[int, Decision]) -> None:
        """Take the driver's words between reports."""
        self._thread.mailbox.tell(words)

    def cleanup(self) -> None:
        self._thread.end()


class _TrainerThread:
    """Runs assignments off the actor's main thread, so that the actor can answer while a trainer works.

    One thread for the life of the worker: torch keeps pools of threads for each thread that computes.
    """

    def __init__(self, trainer_factory: TrainerFactory, log_dir: Path) -> None:
        self._trainer_factory = trainer_factory
        self._log_dir = log_dir
        self._assignments: queue.Queue[tuple[Trials, _Mailbox] | None] = queue.Queue()
        self.mailbox = _Mailbox()
        self._idle = threading.Event()
        self._idle.set()
        self._thread = threading.Thread(target=self._work, name="finesweep-trainer", daemon=True)
        self._thread.start()

    def begin(self, trials: Trials) -> None:
        """Start an assignment; one that was not taken to its end (Tune withdrew it) is stopped and waited for."""
        self.mailbox.close()
        self._idle.wait()
        self._idle.clear()
        self.mailbox = _Mailbox()
        self._assignments.put((trials, self.mailbox))

    def end(self) -> None:
        self.mailbox.close()
        self._assignments.put(None)

    def _work(self) -> None:
        trainer = WorkersTrainer(self._trainer_factory)
        while (assignment := self._assignments.get()) is not None:
            trials, mailbox = assignment
            mailbox.begin(trials[:1])  # what the worker does from now on, it does for this one at least
            try:
                run_assignment(trainer.get(), trials, mailbox, logs=partial(self._begun, mailbox))
            except BaseException:  # nobody would hear of it, and the slot would wait for ever
                os._exit(1)  # a lost worker is somebody's affair
            self._idle.set()

    @contextmanager
    def _begun(self, mailbox: _Mailbox, trials: Sequence[TrialSpec]) -> Iterator[None]:
        mailbox.begin(trials)
        with capture_logs(self._log_dir, trials, redirect=True):
            yield


class UnheardError(BaseException):
    """Unwinds a trainer whose report nobody has stored: a checkpoint written after it would be ahead of the database,
    and the report missing for ever. What is caught as an Exception is a trainer's own affair; this is not.
    """


class _Mailbox:
    """What is said of one assignment and told to it. The StackReporter of its trainer."""

    def __init__(self) -> None:
        self._said: queue.Queue[Sequence[Message]] = queue.Queue()
        self._answers: queue.Queue[Mapping[int, Decision]] = queue.Queue()
        self._standing: dict[int, Decision] = {}  # the driver's last words between reports
        self._begun: set[int] = set()
        self._is_closed = False

    # the trainer's side

    def begin(self, trials: Sequence[TrialSpec]) -> None:
        """Say of trials that they begin, and where; of those that began already, nothing."""
        new = [trial.number for trial in trials if trial.number not in self._begun]
        self._begun.update(new)
        if new:
            facts = _worker_facts()
            self._said.put([(number, facts) for number in new])

    def describe(self, number: int, facts: Mapping[str, Any]) -> None:
        self._said.put([(number, dict(facts))])

    def report(self, reports: Mapping[int, Report]) -> Mapping[int, Decision]:
        if not self._is_closed:
            self._said.put(list(reports.items()))
            answers = self._answers.get()
            if answers:
                return answers
        raise UnheardError("nobody listens any more: its driver has gone on without this worker, or is gone")

    def poll(self, number: int) -> Decision:
        return Decision.PAUSE if self._is_closed else self._standing.get(number, Decision.CONTINUE)

    def end(self, number: int, result: AttemptResult) -> None:
        self._said.put([(number, result)])

    # the actor's side

    def take(self, *, timeout_s: float) -> tuple[Message, ...]:
        """Take all that was said; wait for the first of it up to the timeout."""
        try:
            taken = [*self._said.get(timeout=timeout_s)]
        except queue.Empty:
            return ()
        while not self._said.empty():
            taken += self._said.get_nowait()
        return tuple(taken)

    def answer(self, decisions: Mapping[int, Decision]) -> None:
        self._answers.put(decisions)

    def tell(self, words: Mapping[int, Decision]) -> None:
        self._standing.update(words)

    def close(self) -> None:
        """Have the trainer return: nobody listens any more.

        Between reports it is told to PAUSE, and may write a checkpoint of what is stored already. Never STOP, which
        removes a trial's files: this worker may be one whose driver has died.
        """
        self._is_closed = True
        self._answers.put({})


def _worker_facts() -> Facts:
    return {
        "node": ray.util.get_node_ip_address(),
        "node_id": ray.get_runtime_context().get_node_id(),
        "pid": os.getpid(),
        "gpu_ids": [str(index) for index in ray.get_gpu_ids()],
        "cuda_visible_devices": os.environ.get("CUDA_VISIBLE_DEVICES", ""),
    }
