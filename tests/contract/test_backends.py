"""What every backend owes the broker, over inline, simulated and Ray."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, MutableMapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.contract.scripted import ScriptedTrainer
from tests.contract.stored_sweep import StoredSweep, assert_whole, climbing, most_at_once, no_tick, says

from finesweep.errors import SweepHeldError
from finesweep.events import (
    AttemptEnded,
    Ending,
    Event,
    Reported,
    TrialInterrupted,
    TrialSpec,
    TrialState,
)
from finesweep.scheduling.backend import Backend
from finesweep.scheduling.inline import InlineBackend
from finesweep.scheduling.simulated import Raises, SimulatedBackend, Stage
from finesweep.search.broker import TrialBroker
from finesweep.search.judge import DIVERGED, RUNG

Script = Callable[[TrialSpec], Sequence[Stage]]
MakeBackend = Callable[..., Backend]
MakeSweep = Callable[..., StoredSweep]


@pytest.fixture(params=["inline", "simulated", "ray"])
def make_backend(request: pytest.FixtureRequest, tmp_path: Path) -> MakeBackend:
    """Make a backend that plays a script, real time shortened."""

    def make(
        script: Script, *, checkpoints: MutableMapping[int, int] | None = None, n_slots: int = 1, **options: Any
    ) -> Backend:
        if request.param == "simulated":
            return SimulatedBackend(script, n_slots=n_slots, checkpoints=checkpoints)
        return real_backend(request.param, ScriptedTrainer(script, **options), tmp_path, request, n_slots=n_slots)

    return make


def test_every_trial_ends_once_and_is_pruned_only_if_told_to_stop(
    make_backend: MakeBackend, make_sweep: MakeSweep
) -> None:
    sweep = make_sweep(trials=8)
    broker = sweep.broker()
    make_backend(climbing).run(broker, no_tick)
    assert_whole(sweep, broker)
    states = Counter(record.state for record in sweep.history().trials)
    assert states[TrialState.COMPLETE] >= 1
    assert states[TrialState.PRUNED] >= 1
    assert sum(states.values()) == 8
    assert {record.reason for record in sweep.history().trials} == {RUNG, None}


def test_a_report_that_is_not_finite_ends_its_trial_as_diverged(
    make_backend: MakeBackend, make_sweep: MakeSweep
) -> None:
    def diverging(trial: TrialSpec) -> Sequence[Stage]:
        return [says(100, 0.5), says(200, float("nan"))] if trial.number == 1 else climbing(trial)

    sweep = make_sweep(trials=3, pruner={"type": "none"})
    broker = sweep.broker()
    make_backend(diverging).run(broker, no_tick)
    assert_whole(sweep, broker)
    record = sweep.history().trials[1]
    assert (record.state, record.reason, record.value) == (TrialState.PRUNED, f"{DIVERGED} at step 200", None)
    assert [report.step for report in record.reports] == [100, 200]


def test_a_raising_trainer_fails_its_trial_and_the_sweep_goes_on(
    make_backend: MakeBackend, make_sweep: MakeSweep
) -> None:
    def fragile(trial: TrialSpec) -> Sequence[Stage]:
        return [says(100, 0.5), Raises(1.0, "out of luck")] if trial.number == 1 else climbing(trial)

    sweep = make_sweep(trials=4, pruner={"type": "none"})
    broker = sweep.broker()
    make_backend(fragile).run(broker, no_tick)
    assert_whole(sweep, broker)
    states = [record.state for record in sweep.history().trials]
    assert states.count(TrialState.COMPLETE) == 3
    assert states[1] is TrialState.FAILED
    [ended] = [event for event in sweep.heard(AttemptEnded) if event.number == 1]
    assert ended.result.ending is Ending.FAILED
    assert "out of luck" in ended.result.reason
    assert "out of luck" in ended.result.traceback


def test_no_more_trials_run_at_once_than_there_are_slots(
    make_backend: MakeBackend, make_sweep: MakeSweep, request: pytest.FixtureRequest
) -> None:
    sweep = make_sweep(trials=8, pruner={"type": "none"})
    broker = sweep.broker()
    make_backend(climbing, n_slots=2, speed=0.05).run(broker, no_tick)
    limit = 1 if "inline" in request.node.name else 2
    assert most_at_once(sweep.events) <= limit


def test_a_repeated_report_changes_nothing(make_backend: MakeBackend, make_sweep: MakeSweep) -> None:
    def resumed_from_the_start(trial: TrialSpec) -> Sequence[Stage]:
        return [says(100, 0.1 * trial.attempt), says(200, 0.2), says(300, 0.3)]

    sweep = make_sweep(trials=2, pruner={"type": "none"})
    broker = sweep.broker(also=lambda _: pause_after(3, sweep, broker))
    make_backend(resumed_from_the_start).run(broker, no_tick)
    again = sweep.broker()
    make_backend(resumed_from_the_start).run(again, no_tick)
    assert_whole(sweep, again)
    for record in sweep.history().trials:
        assert [report.metrics["accuracy"] for report in record.reports] == [0.1, 0.2, 0.3]


def pause_after(n_reports: int, sweep: StoredSweep, broker: TrialBroker) -> None:
    if len(sweep.heard(Reported)) >= n_reports:
        broker.halt("enough for today", pause=True)


def test_a_paused_sweep_loses_nothing_and_a_second_broker_finishes_it(
    make_backend: MakeBackend, make_sweep: MakeSweep
) -> None:
    checkpoints: dict[int, int] = {}
    sweep = make_sweep(trials=6, pruner={"type": "none"})
    broker = sweep.broker(also=lambda _: pause_after(5, sweep, broker))
    make_backend(climbing, checkpoints=checkpoints, speed=0.05).run(broker, no_tick)
    paused = sweep.history().trials
    assert {record.state for record in paused} <= {TrialState.COMPLETE, TrialState.INTERRUPTED, TrialState.WAITING}
    assert any(record.state is TrialState.INTERRUPTED for record in paused)
    assert len(paused) < 6
    assert {event.number for event in sweep.heard(TrialInterrupted)} == {
        record.number for record in paused if record.state is TrialState.INTERRUPTED
    }

    again = sweep.broker()
    make_backend(climbing, checkpoints=checkpoints).run(again, no_tick)
    assert_whole(sweep, again)
    finished = sweep.history().trials
    assert [record.state for record in finished] == [TrialState.COMPLETE] * 6
    for before, after in zip(paused, finished, strict=False):
        if before.state is TrialState.COMPLETE:
            assert after == before
        else:
            assert after.reports[: len(before.reports)] == before.reports


def test_an_error_of_the_driver_ends_the_run_as_itself(make_backend: MakeBackend, make_sweep: MakeSweep) -> None:
    sweep = make_sweep(trials=4)

    def replaced(events: Sequence[Event]) -> None:
        if len(sweep.heard(Reported)) >= 2:
            raise SweepHeldError("another process drives this sweep")

    with pytest.raises(SweepHeldError, match="another process"):
        make_backend(climbing).run(sweep.broker(also=replaced), no_tick)
    assert not any(record.state is TrialState.FAILED for record in sweep.history().trials)


def test_what_is_raised_in_a_tick_ends_the_run(make_backend: MakeBackend, make_sweep: MakeSweep) -> None:
    n_ticks = 0

    def tick() -> None:
        nonlocal n_ticks
        n_ticks += 1
        if n_ticks > 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_backend(climbing, speed=0.1).run(make_sweep(trials=4).broker(), tick)


@pytest.mark.parametrize("kind", ["inline", "ray"])
def test_a_trainer_that_exits_fails_its_trial_only(
    kind: str, tmp_path: Path, make_sweep: MakeSweep, request: pytest.FixtureRequest
) -> None:
    sweep = make_sweep(trials=3, pruner={"type": "none"})
    broker = sweep.broker()
    real_backend(kind, ScriptedTrainer(exiting), tmp_path, request).run(broker, no_tick)
    assert_whole(sweep, broker)
    first, *others = sweep.history().trials
    assert (first.state, first.reason) == (TrialState.FAILED, "SystemExit: 3")
    assert {record.state for record in others} == {TrialState.COMPLETE}


def exiting(trial: TrialSpec) -> Sequence[Stage]:
    if trial.number == 0:
        raise SystemExit(3)
    return climbing(trial)


@pytest.mark.parametrize("kind", ["inline", "ray"])
def test_a_log_that_cannot_be_written_fails_the_trials_and_says_why(
    kind: str, tmp_path: Path, make_sweep: MakeSweep, request: pytest.FixtureRequest
) -> None:
    (tmp_path / "artifacts").write_text("a file where the folder should be")
    sweep = make_sweep(trials=2)
    broker = sweep.broker()
    real_backend(kind, ScriptedTrainer(climbing), tmp_path, request).run(broker, no_tick)
    assert_whole(sweep, broker)
    assert [record.state for record in sweep.history().trials] == [TrialState.FAILED] * 2
    assert all("artifacts" in (record.reason or "") for record in sweep.history().trials)


def real_backend(
    kind: str, trainer: ScriptedTrainer, tmp_path: Path, request: pytest.FixtureRequest, *, n_slots: int = 1
) -> Backend:
    if kind == "inline":
        return InlineBackend(trainer, log_dir=tmp_path / "artifacts")
    request.getfixturevalue("local_ray")
    from tests.contract.on_ray import backend_on_ray

    return backend_on_ray(trainer, log_dir=tmp_path / "artifacts", n_slots=n_slots)
