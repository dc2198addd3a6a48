"""A slot's worker: a Ray Tune class trainable that runs attempts, one after another, in a thread of its own.

Every attempt ends by the worker's own word. The driver's answers arrive by `answer` and `tell`, which Ray runs before
the next `step` because a caller's calls on an actor keep their order; so a stop can reach a trial at a report and
between two, and a trainer may take its time to clean up.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
from ray import tune

from finesweep.events import AttemptResult, Decision, Report, TrialSpec
from finesweep.scheduling.attempt_log import capture_log
from finesweep.scheduling.backend import run_attempt
from finesweep.trainer import Reporter, Trainer, TrainerFactory

ASSIGNMENT = "assignment"  # the key of the TrialSpec in a Tune trial's config
MESSAGES = "messages"  # the key of what a worker says in a Tune result

Facts = dict[str, Any]
Message = Facts | Report | AttemptResult

# The longest a worker stays silent: how soon a pause or stop reaches a trial between two reports.
HEARTBEAT_S = 0.5


class SlotWorker(tune.Trainable):  # type: ignore[misc]  # ray is untyped
    """Tune's view of a slot: `setup` or `reset_config` bring an attempt, `step` returns what it has said."""

    def setup(self, config: dict[str, Any], *, trainer_factory: TrainerFactory, log_dir: Path) -> None:
        self._thread = _TrainerThread(trainer_factory, log_dir)
        self._thread.begin(config[ASSIGNMENT])

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._thread.begin(new_config[ASSIGNMENT])
        return True

    def step(self) -> dict[str, Any]:
        return {MESSAGES: self._thread.mailbox.take(timeout_s=HEARTBEAT_S)}

    def answer(self, decision: Decision) -> None:
        """Take the driver's answer to the report that waits for it."""
        self._thread.mailbox.answer(decision)

    def tell(self, decision: Decision) -> None:
        """Take the driver's word between reports."""
        self._thread.mailbox.tell(decision)

    def cleanup(self) -> None:
        self._thread.end()


class _TrainerThread:
    """Runs attempts off the actor's main thread, so that the actor can answer while a trainer works.

    One thread for the life of the worker: torch keeps pools of threads for each thread that computes.
    """

    def __init__(self, trainer_factory: TrainerFactory, log_dir: Path) -> None:
        self._trainer_factory = trainer_factory
        self._log_dir = log_dir
        self._assignments: queue.Queue[tuple[TrialSpec, _Mailbox] | None] = queue.Queue()
        self.mailbox = _Mailbox()
        self._idle = threading.Event()
        self._idle.set()
        self._thread = threading.Thread(target=self._work, name="finesweep-trainer", daemon=True)
        self._thread.start()

    def begin(self, trial: TrialSpec) -> None:
        """Start an attempt; one that was not taken to its end (Tune withdrew it) is stopped and waited for."""
        self.mailbox.close()
        self._idle.wait()
        self._idle.clear()
        self.mailbox = _Mailbox()
        self._assignments.put((trial, self.mailbox))

    def end(self) -> None:
        self.mailbox.close()
        self._assignments.put(None)

    def _work(self) -> None:
        trainer = _LazyTrainer(self._trainer_factory)
        while (assignment := self._assignments.get()) is not None:
            trial, mailbox = assignment
            mailbox.say(_worker_facts())
            log = capture_log(self._log_dir, trial, redirect=True)
            mailbox.say(run_attempt(trainer, trial, mailbox, log=log))
            self._idle.set()


class _LazyTrainer:
    """Makes its trainer at the first attempt, inside the guard that turns exceptions into outcomes."""

    def __init__(self, factory: TrainerFactory) -> None:
        self._factory = factory
        self._trainer: Trainer | None = None

    def run(self, trial: TrialSpec, reporter: Reporter) -> AttemptResult:
        if self._trainer is None:
            self._trainer = self._factory()
        return self._trainer.run(trial, reporter)


class _Mailbox:
    """What one attempt says and is told. The Reporter of its trainer."""

    def __init__(self) -> None:
        self._said: queue.Queue[Message] = queue.Queue()
        self._answers: queue.Queue[Decision] = queue.Queue()
        self._standing = Decision.CONTINUE  # the driver's last word between reports
        self._is_closed = False

    # the trainer's side

    def describe(self, facts: Mapping[str, Any]) -> None:
        self.say(dict(facts))

    def report(self, report: Report) -> Decision:
        if self._is_closed:
            return Decision.PAUSE
        self.say(report)
        return self._answers.get()

    def poll(self) -> Decision:
        return self._standing

    # the actor's side

    def say(self, message: Message) -> None:
        self._said.put(message)

    def take(self, *, timeout_s: float) -> tuple[Message, ...]:
        """Take all that was said; wait for the first of it up to the timeout."""
        try:
            taken = [self._said.get(timeout=timeout_s)]
        except queue.Empty:
            return ()
        while not self._said.empty():
            taken.append(self._said.get_nowait())
        return tuple(taken)

    def answer(self, decision: Decision) -> None:
        self._answers.put(decision)

    def tell(self, decision: Decision) -> None:
        self._standing = decision

    def close(self) -> None:
        """Have the trainer return with its checkpoint written: nobody listens any more.

        Never STOP, which removes a trial's files: this worker may be one whose driver has died.
        """
        self._is_closed = True
        self._standing = Decision.PAUSE
        self._answers.put(Decision.PAUSE)


def _worker_facts() -> Facts:
    return {
        "node": ray.util.get_node_ip_address(),
        "node_id": ray.get_runtime_context().get_node_id(),
        "pid": os.getpid(),
        "gpu_ids": [str(index) for index in ray.get_gpu_ids()],
        "cuda_visible_devices": os.environ.get("CUDA_VISIBLE_DEVICES", ""),
    }
