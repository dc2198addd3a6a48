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
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finesweep.errors import ResourcesError
from finesweep.scheduling.ahead import AskedAhead
from finesweep.scheduling.backend import Tick
from finesweep.scheduling.in_flight import InFlight, Silence
from finesweep.scheduling.ray_start import (
    CONNECTION_ERRORS,
    QUIET,
    LocalRay,
    environment,
    hush,
    reclaim_sigterm,
    refused,
)
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

from finesweep.scheduling.ray_deaths import every_death_told
from finesweep.scheduling.ray_worker import ASSIGNMENT, MESSAGES, SlotWorker


@dataclass(frozen=True)
class RayBackend:
    """Runs trials on Ray Tune.

    With `slots`, Ray is started here on their devices and stopped at the end; without, trials run on the cluster at
    `resources.address`, divided as `resources` says. A Ray that this process is connected to already is used as is, and
    one that is being started, `local`, is waited for and left to whoever started it. A worker whose trials have not
    reported for `stall_minutes` is killed.
    """

    trainer_factory: TrainerFactory
    resources: Resources
    slots: Slots | None
    log_dir: Path
    stacking: Stacking = ALONE
    local: LocalRay | None = None
    stall_minutes: float | None = None

    def run(self, broker: TrialBroker, tick: Tick) -> None:
        with self._connected() as ours, _staging() as staging, _plain_workers() if ours else nullcontext():
            reclaim_sigterm()
            self._tune(broker, _watching(ours, tick) if ours else tick, staging, counts_slots=ours is not None)

    @contextmanager
    def _connected(self) -> Iterator[LocalRay | None]:
        """Give a Ray of our own on this box; None if it is somebody else's."""
        if self.local is not None:
            self.local.wait()
            yield self.local
        elif ray.is_initialized():
            yield None
        elif self.slots is not None:
            with LocalRay(self.slots) as local:
                local.wait()
                yield local
        else:
            self._join_cluster()
            try:
                yield None
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
        silence = Silence(None if self.stall_minutes is None else self.stall_minutes * 60)
        attempts = InFlight(broker, tick, ahead, silence, n_slots=n_slots)
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
        # All workers may start at once; that no more are asked for than there are slots is seen to by InFlight.
        with environment({"TUNE_MAX_PENDING_TRIALS_PG": str(n_slots)}):
            try:
                try:
                    with every_death_told():
                        tuner.fit()
                finally:
                    attempts.raise_fault()
                ahead.give_back()
            finally:
                ahead.close()


def _watching(local: LocalRay, tick: Tick) -> Tick:
    def watch() -> None:
        local.refuse_dead()
        tick()

    return watch


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


class _BrokerSearcher(Searcher):  # type: ignore[misc]  # ray is untyped
    """Tune asks for configurations; the broker has attempts."""

    def __init__(self, attempts: InFlight) -> None:
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

    def on_trial_error(self, **_: Any) -> None:
        """Nothing: it would ask a dead worker for its last result."""


class _BrokerScheduler(FIFOScheduler):  # type: ignore[misc]  # ray is untyped
    """Tune brings results; the broker decides, and the decision goes back to the worker.

    Tune's own STOP is used only when a worker has said how its last attempt ended, so the actor is idle by then.
    """

    def __init__(self, attempts: InFlight) -> None:
        super().__init__()
        self._attempts = attempts
        self._known: dict[str, Any] = {}  # Tune's trials by their id, until they are over
        self._added: deque[Any] = deque()  # those that were not chosen yet
        self._over: deque[Any] = deque()  # and those that it is to forget
        self._keeps_workers = False

    def on_trial_add(self, controller: Any, trial: Any) -> None:
        self._known[trial.trial_id] = trial
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
        with self._attempts.keeping_faults():
            self._attempts.tick()
        for tune_id in self._attempts.silence.too_long():
            ray.kill(self._known[tune_id].temporary_state.ray_actor)  # Tune then tells of an error
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
            self._known.pop(trial.trial_id, None)
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
