"""What only workers in processes of their own can do to a sweep: die, linger, not start, share devices."""

from __future__ import annotations

import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

import pytest
import ray  # after finesweep has set it up
from optuna.samplers import RandomSampler
from ray import tune
from tests.contract.on_ray import backend_on_ray
from tests.contract.scripted import ScriptedTrainer
from tests.contract.stored_sweep import GRID, StoredSweep, assert_whole, climbing, most_at_once, no_tick, says

from finesweep.errors import ResourcesError
from finesweep.events import (
    AttemptDescribed,
    AttemptEnded,
    AttemptResult,
    AttemptStarted,
    Decision,
    Ending,
    Event,
    Report,
    Reported,
    TrialSpec,
    TrialState,
)
from finesweep.scheduling.ray_worker import ASSIGNMENT, MESSAGES, SlotWorker
from finesweep.scheduling.simulated import Dies, Stage
from finesweep.trainer import Reporter

pytestmark = pytest.mark.usefixtures("local_ray")

CLEAN_UP_S = 5.0  # longer than Tune gives a function trainable to end, which is 2 s
MakeSweep = Callable[..., StoredSweep]


def pids(sweep: StoredSweep) -> dict[tuple[int, int], int]:
    return {(event.number, event.attempt): event.facts["pid"] for event in sweep.heard(AttemptDescribed)}


def test_a_killed_worker_costs_its_trial_an_attempt_and_no_more(tmp_path: Path, make_sweep: MakeSweep) -> None:
    def deadly(trial: TrialSpec) -> Sequence[Stage]:
        first, *others = climbing(trial)
        return [first, Dies(0.1), *others] if trial.number == 1 else climbing(trial)

    sweep = make_sweep(trials=4, pruner={"type": "none"})
    broker = sweep.broker()
    backend_on_ray(ScriptedTrainer(deadly), log_dir=tmp_path, n_slots=1).run(broker, no_tick)
    assert_whole(sweep, broker)
    assert [record.state for record in sweep.history().trials] == [TrialState.COMPLETE] * 4
    record = sweep.history().trials[1]
    assert (record.attempts, record.n_retries) == (2, 1)
    endings = [event.result.ending for event in sweep.heard(AttemptEnded) if event.number == 1]
    assert endings == [Ending.LOST, Ending.DONE]
    assert pids(sweep)[1, 1] != pids(sweep)[1, 2]
    assert len(set(pids(sweep).values())) == 2  # the one that died, and the one that came after it


def test_a_trial_that_loses_every_worker_fails_after_its_retries(tmp_path: Path, make_sweep: MakeSweep) -> None:
    def fatal(trial: TrialSpec) -> Sequence[Stage]:
        return [says(100, 0.5), Dies(0.1, attempt=trial.attempt)] if trial.number == 0 else climbing(trial)

    sweep = make_sweep(trials=2, retries=1, pruner={"type": "none"})
    broker = sweep.broker()
    backend_on_ray(ScriptedTrainer(fatal), log_dir=tmp_path, n_slots=1).run(broker, no_tick)
    assert_whole(sweep, broker)
    first, second = sweep.history().trials
    assert (first.state, first.attempts, first.n_retries) == (TrialState.FAILED, 2, 2)
    assert "budget.retries is 1" in (first.reason or "")
    assert second.state is TrialState.COMPLETE


@dataclass(frozen=True)
class Hanging(ScriptedTrainer):
    """Trial 1 hangs in its first attempt, after its first report, as a call into C that never returns would."""

    def run(self, trial: TrialSpec, reporter: Reporter) -> AttemptResult:
        if (trial.number, trial.attempt) != (1, 1):
            return super().run(trial, reporter)
        assert reporter.report(says(100, 0.5).report) is Decision.CONTINUE
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        time.sleep(600)
        raise AssertionError("woke up")


@pytest.mark.parametrize("is_retried", [True, False])
def test_a_trial_that_hangs_is_killed_and_ends_as_the_sweep_says(
    tmp_path: Path, make_sweep: MakeSweep, *, is_retried: bool
) -> None:
    sweep = make_sweep(trials=3, pruner={"type": "none"})
    broker = sweep.broker(retry_on=[Ending.STALLED] if is_retried else [])
    backend = backend_on_ray(Hanging(climbing), log_dir=tmp_path, n_slots=2, stall_minutes=2 / 60)
    backend.run(broker, no_tick)
    assert_whole(sweep, broker)
    hung = sweep.history().trials[1]
    endings = [event.result.ending for event in sweep.heard(AttemptEnded) if event.number == 1]
    if is_retried:
        assert (hung.state, endings) == (TrialState.COMPLETE, [Ending.STALLED, Ending.DONE])
    else:
        assert (hung.state, endings) == (TrialState.FAILED, [Ending.STALLED])
        assert (hung.reason or "").startswith("stalled: not a word for 0.033")
    others = [record.state for record in sweep.history().trials if record.number != 1]
    assert others == [TrialState.COMPLETE] * 2


def test_a_long_clean_up_harms_no_later_trial_and_workers_are_reused(tmp_path: Path, make_sweep: MakeSweep) -> None:
    def falling(trial: TrialSpec) -> Sequence[Stage]:
        return [says(step, 0.9 - 0.1 * trial.number) for step in (100, 200, 300)]

    sweep = make_sweep(trials=3)
    broker = sweep.broker()
    trainer = ScriptedTrainer(falling, clean_up_s=CLEAN_UP_S)
    began_s = time.monotonic()
    backend_on_ray(trainer, log_dir=tmp_path, n_slots=1).run(broker, no_tick)
    assert time.monotonic() - began_s > 2 * CLEAN_UP_S
    assert_whole(sweep, broker)
    states = [record.state for record in sweep.history().trials]
    assert states == [TrialState.COMPLETE, TrialState.PRUNED, TrialState.PRUNED]
    assert [event.result.ending for event in sweep.heard(AttemptEnded)] == [
        Ending.DONE,
        Ending.STOPPED,
        Ending.STOPPED,
    ]
    assert len(set(pids(sweep).values())) == 1


def test_a_worker_that_cannot_start_ends_the_sweep_with_the_reason(tmp_path: Path, make_sweep: MakeSweep) -> None:
    sweep = make_sweep(trials=4)
    broker = sweep.broker()
    with pytest.raises(ResourcesError, match=r"3 workers in a row died before they began.*no_such_module_in_workers"):
        backend_on_ray(Unpicklable(), log_dir=tmp_path, n_slots=1).run(broker, no_tick)
    assert sweep.heard(AttemptStarted) == []
    assert {record.state for record in sweep.history().trials} <= {TrialState.WAITING}
    assert all(record.attempts == 0 for record in sweep.history().trials)


class Unpicklable:
    """Arrives in a worker that has not what it needs."""

    def __call__(self) -> NoReturn:
        raise AssertionError("never unpickled")

    def __reduce__(self) -> tuple[Any, ...]:
        return __import__, ("no_such_module_in_workers",)


def test_a_worker_begins_no_trial_before_tune_asks_it_for_one(tmp_path: Path) -> None:
    """While a worker starts Tune may give its trial to another one: then it would be trained twice."""
    trainable = tune.with_parameters(SlotWorker, trainer_factory=Timed(tmp_path / "began"), log_dir=tmp_path)
    worker = ray.remote(num_cpus=1)(trainable).remote(config={ASSIGNMENT: (TrialSpec(0, 1, {}),)})
    ray.get(worker.tell.remote({}))  # it has started
    asked_s = time.monotonic()
    said: list[Any] = []
    while not any(isinstance(message, AttemptResult) for _, message in said):
        said += ray.get(worker.step.remote())[MESSAGES]
    assert float((tmp_path / "began").read_text()) > asked_s


@dataclass(frozen=True)
class Timed:
    """A trainer that notes when it began."""

    path: Path

    def __call__(self) -> Timed:
        return self

    def run(self, trial: TrialSpec, reporter: Reporter) -> AttemptResult:
        self.path.write_text(str(time.monotonic()))
        return AttemptResult(Ending.DONE)


def test_a_larger_ray_than_the_slots_is_not_filled(tmp_path: Path, make_sweep: MakeSweep) -> None:
    sweep = make_sweep(trials=5, pruner={"type": "none"})
    broker = sweep.broker()
    trainer = Gathering(tmp_path / "gathered", together=2, linger_s=1.5)
    backend_on_ray(trainer, log_dir=tmp_path, n_slots=2).run(broker, no_tick)
    assert_whole(sweep, broker)
    assert most_at_once(sweep.events) == 2


def test_eight_trials_share_four_gpus_two_to_each(tmp_path: Path, make_sweep: MakeSweep) -> None:
    sweep = make_sweep(trials=9, pruner={"type": "none"})
    on_device: Counter[str] = Counter()
    device_of: dict[int, str] = {}
    fullest: defaultdict[str, int] = defaultdict(int)

    def watch(events: Sequence[Event]) -> None:
        for event in events:
            match event:
                case AttemptDescribed(number=number, facts={"gpu_ids": [device], "cuda_visible_devices": visible}):
                    assert visible == device
                    device_of[number] = device
                    on_device[device] += 1
                    fullest[device] = max(fullest[device], on_device[device])
                case AttemptEnded(number=number):
                    on_device[device_of[number]] -= 1

    broker = sweep.broker(also=watch)
    trainer = Gathering(tmp_path / "gathered", together=8, linger_s=1.0)
    backend_on_ray(trainer, log_dir=tmp_path, n_slots=8, gpus_per_trial=0.5).run(broker, no_tick)
    assert_whole(sweep, broker)
    assert len(device_of) == 9
    assert most_at_once(sweep.events) == 8
    assert dict(fullest) == {"0": 2, "1": 2, "2": 2, "3": 2}


class Gathering:
    """A trainer whose trials wait until so many have begun, and a while longer for one too many to show up."""

    def __init__(self, folder: Path, *, together: int, linger_s: float) -> None:
        self._folder, self._together, self._linger_s = folder, together, linger_s

    def __call__(self) -> Gathering:
        return self

    def run(self, trial: TrialSpec, reporter: Reporter) -> AttemptResult:
        self._folder.mkdir(exist_ok=True)
        (self._folder / str(trial.number)).touch()
        deadline_s = time.monotonic() + 60
        while len(list(self._folder.iterdir())) < self._together and time.monotonic() < deadline_s:
            time.sleep(0.05)
        time.sleep(self._linger_s)
        reporter.report(Report(GRID.longest, {"accuracy": 0.5}, GRID.longest, final=True))
        return AttemptResult(Ending.DONE)


def test_a_stop_reaches_a_trial_between_its_reports(tmp_path: Path, make_sweep: MakeSweep) -> None:
    sweep = make_sweep(trials=1, pruner={"type": "none"})
    broker = sweep.broker()

    def tick() -> None:
        if sweep.heard(AttemptDescribed):
            broker.halt("enough", pause=True)

    backend_on_ray(Endless(), log_dir=tmp_path, n_slots=1).run(broker, tick)
    [record] = sweep.history().trials
    assert (record.state, record.reports) == (TrialState.INTERRUPTED, ())


class Endless:
    """A trainer that never reports and ends only when it is told to."""

    def __call__(self) -> Endless:
        return self

    def run(self, trial: TrialSpec, reporter: Reporter) -> AttemptResult:
        while reporter.poll() is Decision.CONTINUE:
            time.sleep(0.05)
        return AttemptResult(Ending.PAUSED)


ASK_S, REPORT_EVERY_S = 3.0, 0.05


def test_a_slow_sampler_holds_up_no_trial_that_reports(tmp_path: Path, make_sweep: MakeSweep) -> None:
    """A sampler that takes seconds, as gp does with many trials, and trials that report twenty times a second."""
    reported_s: dict[int, list[float]] = defaultdict(list)
    sampler = SlowSampler(seed=0)

    def note(events: Sequence[Event]) -> None:
        for event in events:
            if isinstance(event, Reported):
                reported_s[event.number].append(time.monotonic())

    sweep = make_sweep(trials=5, pruner={"type": "none"})
    broker = sweep.broker(also=note, sampler=sampler)
    backend_on_ray(Chatty(), log_dir=tmp_path, n_slots=2).run(broker, no_tick)
    assert_whole(sweep, broker)
    overlaps_s = [
        min(asked_s + ASK_S, times_s[-1]) - max(asked_s, times_s[0])
        for times_s in reported_s.values()
        for asked_s in sampler.asked_s
    ]
    assert max(overlaps_s) > ASK_S / 2, "the sampler was at work while a trial reported"
    longest_s = max(after - before for times_s in reported_s.values() for before, after in pairwise(times_s))
    assert longest_s < ASK_S / 2


class SlowSampler(RandomSampler):
    def sample_independent(self, *args: Any) -> Any:
        self.asked_s = [*getattr(self, "asked_s", []), time.monotonic()]
        time.sleep(ASK_S)
        return super().sample_independent(*args)


class Chatty:
    def __call__(self) -> Chatty:
        return self

    def run(self, trial: TrialSpec, reporter: Reporter) -> AttemptResult:
        for step in range(1, int(2 * ASK_S / REPORT_EVERY_S)):
            time.sleep(REPORT_EVERY_S)
            reporter.report(Report(step, {"accuracy": 0.5}, step))
        return AttemptResult(Ending.DONE)


def test_what_a_trainer_prints_is_in_its_log_and_nowhere_else(
    tmp_path: Path, make_sweep: MakeSweep, capfd: pytest.CaptureFixture[str]
) -> None:
    sweep = make_sweep(trials=3, pruner={"type": "none"})
    broker = sweep.broker(also=lambda _: sweep.heard(AttemptEnded) and broker.halt("enough", pause=True))
    backend_on_ray(Talking(), log_dir=tmp_path, n_slots=1).run(broker, no_tick)
    assert "loss is low" in (tmp_path / "trial-0000" / "log.txt").read_text(encoding="utf-8")
    assert capfd.readouterr().out == ""


class Talking:
    def __call__(self) -> Talking:
        return self

    def run(self, trial: TrialSpec, reporter: Reporter) -> AttemptResult:
        sys.stdout.write("loss is low\n")
        reporter.report(Report(GRID.longest, {"accuracy": 0.5}, GRID.longest, final=True))
        return AttemptResult(Ending.DONE)
