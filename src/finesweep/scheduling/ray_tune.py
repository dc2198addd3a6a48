"""The Ray backend: Tune schedules attempts over the slots of this box or of a cluster; the broker decides.

A Searcher and a TrialScheduler defer to the broker. A Tune trial is one assignment, an attempt or several that are
trained together: what becomes of trials when their worker dies is the broker's affair, so Tune itself retries nothing
and stops nothing.
"""

from __future__ import annotations

import shutil
import socket
import tempfile
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finesweep.errors import ResourcesError
from finesweep.events import AttemptResult, Decision, Ending, Report
from finesweep.scheduling.ahead import AskedAhead
from finesweep.scheduling.assignments import Assignment
from finesweep.scheduling.backend import Tick
from finesweep.scheduling.ray_start import CONNECTION_ERRORS, QUIET, LocalRay, environment, hush, refused
from finesweep.scheduling.slots import Slots, cluster_slots
from finesweep.scheduling.stacking import ALONE, Stacking
from finesweep.search.broker import NoTrial, TrialBroker
from finesweep.spec.sweep import Resources
from finesweep.trainer import TrainerFactory

# isort: split
import ray  # after ray_start has set it up
from ray import tune
from ray.tune.execution import class_cache
from ray.tune.progress_reporter import TrialProgressCallback
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from finesweep.scheduling.ray_worker import ASSIGNMENT, MESSAGES, Message, SlotWorker

# Workers that die before they say a word: after so many in a row something is wrong with the machine, not the trial.
MOST_FAILED_STARTS = 3


@dataclass(frozen=True)
class RayBackend:
    """Runs trials on Ray Tune.

    With `slots`, Ray is started here on their devices and stopped at the end; without, trials run on the cluster at
    `resources.address`, divided as `resources` says. A Ray that this process is connected to already is used as is, and
    one that is being started, `local`, is waited for and left to whoever started it.
    """

    trainer_factory: TrainerFactory
    resources: Resources
    slots: Slots | None
    log_dir: Path
    stacking: Stacking = ALONE
    local: LocalRay | None = None

    def run(self, broker: TrialBroker, tick: Tick) -> None:
        with self._connected() as is_ours, _staging() as staging, _plain_workers() if is_ours else nullcontext():
            self._tune(broker, tick, staging, counts_slots=is_ours)

    @contextmanager
    def _connected(self) -> Iterator[bool]:
        """Tell whether it is a Ray of our own on this box."""
        if self.local is not None:
            self.local.wait()
            yield True
        elif ray.is_initialized():
            yield False
        elif self.slots is not None:
            with LocalRay(self.slots) as local:
                local.wait()
                yield True
        else:
            self._join_cluster()
            try:
                yield False
            finally:
                ray.shutdown()

    def _join_cluster(self) -> None:
        hush()
        try:
            _refuse_unreachable(self.resources.address or "auto")
            ray.init(address=self.resources.address, **QUIET)
        except CONNECTION_ERRORS as error:
            raise refused(f"the cluster at {self.resources.address}", error) from error

    def _tune(self, broker: TrialBroker, tick: Tick, staging: Path, *, counts_slots: bool) -> None:
        slots = self.slots or cluster_slots(self.resources, ray.cluster_resources())
        per_trial = {"cpu": 1 if counts_slots else slots.cpus_per_trial, "gpu": slots.gpus_per_trial}
        n_fitting = _n_fitting(per_trial)
        trainable = tune.with_parameters(SlotWorker, trainer_factory=self.trainer_factory, log_dir=self.log_dir)
        n_slots = min(slots.n_slots, n_fitting)
        ahead = AskedAhead(broker, self.stacking, n_slots=n_slots)
        attempts = _Attempts(broker, tick, ahead, n_slots=n_slots)
        tuner = tune.Tuner(
            tune.with_resources(trainable, per_trial),
            tune_config=tune.TuneConfig(
                search_alg=_BrokerSearcher(attempts),
                scheduler=_BrokerScheduler(attempts),
                num_samples=-1,
                reuse_actors=True,
                trial_name_creator=lambda trial: str(trial.trial_id),
                trial_dirname_creator=lambda trial: str(trial.trial_id),
            ),
            run_config=tune.RunConfig(
                name="sweep",
                storage_path=str(staging),
                verbose=0,
                callbacks=[_Silence()],
                checkpoint_config=tune.CheckpointConfig(checkpoint_frequency=0, checkpoint_at_end=False),
                failure_config=tune.FailureConfig(max_failures=0),
            ),
        )
        # All workers may start at once; that no more are asked for than there are slots is seen to by _Attempts.
        with environment({"TUNE_MAX_PENDING_TRIALS_PG": str(n_slots)}):
            try:
                try:
                    tuner.fit()
                finally:
                    attempts.raise_fault()
                ahead.give_back()
            finally:
                ahead.close()


def _refuse_unreachable(address: str) -> None:
    """Raise OSError for host:port where nobody listens: Ray itself tries for five minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


@contextmanager
def _staging() -> Iterator[Path]:
    staging = Path(tempfile.mkdtemp(prefix="finesweep-tune-"))
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def _plain_workers() -> Iterator[None]:
    """Have Tune take the workers that Ray has started ahead.

    It asks for an environment of their own, which only new processes have; ours have it from the start of Ray.
    """
    before = class_cache.DEFAULT_ENV_VARS, class_cache.ENV_VARS_TO_PROPAGATE
    class_cache.DEFAULT_ENV_VARS, class_cache.ENV_VARS_TO_PROPAGATE = {}, set()
    try:
        yield
    finally:
        class_cache.DEFAULT_ENV_VARS, class_cache.ENV_VARS_TO_PROPAGATE = before


def _n_fitting(per_trial: Mapping[str, float]) -> int:
    """Count the trials that Ray would run at once. Raises ResourcesError for none, which would wait for ever."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    n_fitting = sum(
        min(int(node.get(kind.upper(), 0) / amount + 1e-9) for kind, amount in per_trial.items() if amount)
        for node in nodes
    )
    if n_fitting:
        return n_fitting
    have = "; ".join(f"{node.get('CPU', 0):g} CPU and {node.get('GPU', 0):g} GPU" for node in nodes)
    raise ResourcesError(
        f"a trial takes {per_trial['cpu']:g} CPU and {per_trial['gpu']:g} GPU, more than any node of this Ray has "
        f"({have}). Lower resources.cpus_per_trial or gpus_per_trial."
    )


class _Attempts:
    """Which Tune trial is which assignment, and how its trials are doing: what searcher and scheduler need to know."""

    def __init__(self, broker: TrialBroker, tick: Tick, ahead: AskedAhead, *, n_slots: int) -> None:
        self.broker = broker
        self._tick = tick
        self._ahead = ahead
        self.n_slots = n_slots
        self._numbers: dict[str, set[int]] = {}  # Tune's id -> trials that have not ended yet
        self._begun: set[int] = set()
        self._failed_starts = 0
        self._fault: Exception | None = None

    def __getstate__(self) -> None:
        """Nothing: Tune pickles its searcher and scheduler for a restore that we never ask for."""
        return

    def next(self, tune_id: str) -> Assignment | NoTrial:
        """Give a slot that is free what it is to do."""
        if len(self._numbers) >= self.n_slots:
            return NoTrial.WAIT
        found = self._ahead.next()
        while found is NoTrial.DRAWING and not self._numbers:  # Tune would sleep for a second
            self._tick()
            found = self._ahead.next()
        if isinstance(found, tuple):
            self._numbers[tune_id] = {trial.number for trial in found}
        return found

    def tick(self) -> None:
        self._tick()
        self._ahead.prepare()

    def hear(self, tune_id: str, messages: Sequence[Message]) -> tuple[dict[int, Decision], dict[int, Decision]]:
        """Take what a worker has said; give the answers to its reports, and what its trials must know beside them."""
        answers: dict[int, Decision] = {}
        with self.broker.together():
            for number, said in messages:
                self._begin(number)
                match said:
                    case Report():
                        answers[number] = self.broker.report(number, said)
                    case AttemptResult():
                        self._end(tune_id, number, said)
                    case facts:
                        self.broker.describe(number, facts)
        words = {number: self.broker.poll(number) for number in self._numbers[tune_id]}
        return answers, {number: word for number, word in words.items() if word is not Decision.CONTINUE}

    def is_over(self, tune_id: str) -> bool:
        """Tell whether every trial of the assignment has ended, and forget the assignment if so."""
        if self._numbers[tune_id]:
            return False
        del self._numbers[tune_id]
        return True

    def withdraw(self, tune_id: str) -> None:
        """Give back an assignment that has not ended: it is not charged for a worker that never got to it."""
        for number in sorted(self._numbers.pop(tune_id, ()), reverse=True):  # each is put before those that wait
            self._begun.discard(number)
            self.broker.give_back(number)

    def lose(self, tune_id: str, reason: str) -> None:
        """Have the trials of a dead worker begun again; those that it had not begun are not charged for it."""
        numbers = self._numbers.pop(tune_id, set())
        has_begun = bool(numbers & self._begun)
        with self.broker.together():
            for number in sorted(numbers, reverse=True):
                if number in self._begun:
                    self._begun.remove(number)
                    self.broker.finish(number, AttemptResult(Ending.LOST, reason=reason))
                else:
                    self.broker.give_back(number)
        if not numbers or has_begun:
            return
        self._failed_starts += 1
        if self._failed_starts >= MOST_FAILED_STARTS:
            self._fault = ResourcesError(
                f"{self._failed_starts} workers in a row died before they began a trial. The last one: {reason}"
            )
            self.broker.halt("workers cannot start", pause=True)

    def _begin(self, number: int) -> None:
        self._begun.add(number)
        self._failed_starts = 0
        self.broker.begin(number)

    def _end(self, tune_id: str, number: int, result: AttemptResult) -> None:
        self._numbers[tune_id].remove(number)
        self._begun.discard(number)
        self.broker.finish(number, result)

    @contextmanager
    def keeping_faults(self) -> Iterator[None]:
        """Keep what goes wrong in the driver, as a database that is gone: Tune turns it into text."""
        try:
            yield
        except Exception as error:
            self._fault = self._fault or error
            raise

    def raise_fault(self) -> None:
        if self._fault is not None:
            raise self._fault


class _BrokerSearcher(Searcher):  # type: ignore[misc]  # ray is untyped
    """Tune asks for configurations; the broker has attempts."""

    def __init__(self, attempts: _Attempts) -> None:
        super().__init__()
        self._attempts = attempts

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        with self._attempts.keeping_faults():
            found = self._attempts.next(trial_id)
        match found:
            case NoTrial.EXHAUSTED:
                return str(Searcher.FINISHED)
            case NoTrial():
                return None
            case assignment:
                return {ASSIGNMENT: assignment}

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        """Nothing: the scheduler hears of every ending first, with more to go by."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the results database is what a sweep is resumed from."""

    def restore(self, checkpoint_path: str) -> None:
        raise NotImplementedError("a sweep is resumed from the results database, not from Tune's files")


class _Silence(TrialProgressCallback):  # type: ignore[misc]  # ray is untyped
    """Tune tells of trials that it stops whatever `verbose` says."""

    def _print(self, msg: str) -> None:
        """Nothing: standard output is for data."""


class _BrokerScheduler(FIFOScheduler):  # type: ignore[misc]  # ray is untyped
    """Tune brings results; the broker decides, and the decision goes back to the worker.

    Tune's own STOP is used only when a worker has said how its last attempt ended, so the actor is idle by then.
    """

    def __init__(self, attempts: _Attempts) -> None:
        super().__init__()
        self._attempts = attempts
        self._added: deque[Any] = deque()  # Tune's trials that were not chosen yet
        self._over: deque[Any] = deque()  # and those that it is to forget
        self._keeps_workers = False

    def on_trial_add(self, controller: Any, trial: Any) -> None:
        self._added.append(trial)
        if not self._keeps_workers:  # of slots that wait for the sampler; Tune would keep but one
            self._keeps_workers = True
            kept = controller._tune_controller._actor_cache
            kept.increase_max(trial.placement_group_factory, by=self._attempts.n_slots)

    def choose_trial_to_run(self, controller: Any) -> Any:
        """Choose each once, as they come. Tune calls this at every turn of its loop, ten times a second and more.

        Not one that waits for a worker to start, which Tune would give the next worker that is free, and end the one
        that is starting: with short trials the second slot would never come to be.
        """
        self._attempts.tick()
        self._forget_all_but_one(controller._tune_controller)
        if self._attempts.broker.halted:
            for trial in list(controller.get_live_trials()):  # a trial that is stopped leaves the set
                if trial.status == trial.PENDING:
                    controller.stop_trial(trial)
        while self._added:
            trial = self._added.popleft()
            if trial.status == trial.PENDING:
                return trial
        return None

    def on_trial_result(self, controller: Any, trial: Any, result: Mapping[str, Any]) -> str:
        with self._attempts.keeping_faults():
            answers, words = self._attempts.hear(trial.trial_id, result[MESSAGES])
            is_over = self._attempts.is_over(trial.trial_id)
        worker = trial.temporary_state.ray_actor
        if words:
            worker.tell.remote(words)
        if answers:
            worker.answer.remote(answers)
        return str(TrialScheduler.STOP if is_over else TrialScheduler.CONTINUE)

    def on_trial_complete(self, controller: Any, trial: Any, result: Mapping[str, Any]) -> None:
        self._over.append(trial)

    def on_trial_error(self, controller: Any, trial: Any) -> None:
        self._over.append(trial)
        with self._attempts.keeping_faults():
            self._attempts.lose(trial.trial_id, _loss(trial))

    def on_trial_remove(self, controller: Any, trial: Any) -> None:
        self._over.append(trial)
        self._attempts.withdraw(trial.trial_id)

    def _forget_all_but_one(self, controller: Any) -> None:
        """Take from Tune what is over: it walks over all it has, and writes all of it to a file in the end."""
        while len(self._over) > 1:  # with none, Tune would think that it never had any
            trial = self._over.popleft()
            controller._trials.remove(trial)
            for trials in (controller._live_trials, controller._stopped_trials, controller._failed_trials):
                trials.discard(trial)
            controller._trials_to_cache.discard(trial)


def _loss(trial: Any) -> str:
    """Say in a line how a worker was lost: of an exception's traceback the last line, of a death the first."""
    path = trial.error_file
    text = Path(path).read_text(encoding="utf-8") if path and Path(path).exists() else ""
    lines = [line.strip() for line in text.rpartition("Failure #")[2].splitlines()[1:] if line.strip()]
    if not lines:
        return "worker lost"
    return f"worker lost: {lines[-1] if lines[-1].partition(':')[0].endswith('Error') else lines[0]}"[:500]
