"""What every backend owes the trials of a stack: trained as one computation, each is still a trial of its own."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.contract.scripted import ScriptedStackTrainer, ScriptedTrainer
from tests.contract.stored_sweep import StoredSweep, assert_whole, climbing, most_at_once, no_tick, says

from finesweep.errors import SweepHeldError
from finesweep.events import (
    AttemptDescribed,
    AttemptEnded,
    AttemptStarted,
    Configuration,
    Ending,
    Event,
    Reported,
    TrialFinished,
    TrialSpec,
    TrialState,
)
from finesweep.scheduling.backend import Backend
from finesweep.scheduling.inline import InlineBackend
from finesweep.scheduling.simulated import Dies, Raises, SimulatedBackend, Stage
from finesweep.scheduling.stacking import Stacking
from finesweep.search.judge import RUNG

Script = Callable[[TrialSpec], Sequence[Stage]]
MakeBackend = Callable[..., Backend]
MakeSweep = Callable[..., StoredSweep]
NO_PRUNER = {"type": "none"}


def alike(configuration: Configuration) -> str:
    return "alike"


def by_rate(configuration: Configuration) -> bool | None:
    """Tell two kinds apart, and one that goes alone."""
    rate = configuration["learning_rate"]
    assert isinstance(rate, float)
    return None if rate > 5e-4 else rate > 1e-4


@pytest.fixture
def make_real_backend(request: pytest.FixtureRequest, tmp_path: Path) -> MakeBackend:
    """Make a backend that runs a trainer, four lanes to a stack, real time shortened."""

    def make(
        kind: str,
        script: Script,
        *,
        key: Callable[[Configuration], str | bool | None] = alike,
        n_lanes: int = 4,
        n_slots: int = 1,
        speed: float = 0.0,
        trainer: type[ScriptedTrainer] = ScriptedStackTrainer,
    ) -> Backend:
        stacking = Stacking(n_lanes=n_lanes, key=key)
        if kind == "inline":
            return InlineBackend(trainer(script, speed=speed), log_dir=tmp_path / "artifacts", stacking=stacking)
        request.getfixturevalue("local_ray")
        from tests.contract.on_ray import backend_on_ray

        return backend_on_ray(
            trainer(script, speed=speed), log_dir=tmp_path / "artifacts", n_slots=n_slots, stacking=stacking
        )

    return make


@pytest.fixture(params=["inline", "simulated", "ray"])
def make_backend(request: pytest.FixtureRequest, make_real_backend: MakeBackend) -> MakeBackend:
    def make(
        script: Script, *, checkpoints: MutableMapping[int, int] | None = None, n_slots: int = 1, speed: float = 0.0
    ) -> Backend:
        if request.param == "simulated":
            stacking = Stacking(n_lanes=4, key=alike)
            return SimulatedBackend(script, n_slots=n_slots, checkpoints=checkpoints, stacking=stacking)
        return make_real_backend(request.param, script, n_slots=n_slots, speed=speed)

    return make


real = pytest.mark.parametrize("kind", ["inline", "ray"])


def states(sweep: StoredSweep) -> list[TrialState]:
    return [record.state for record in sweep.history().trials]


def stacks(sweep: StoredSweep) -> list[list[int]]:
    """Give the stacks that a real trainer was given, by their first trial, and the trials that it was given alone."""
    started = {event.number: [event.number] for event in sweep.heard(AttemptStarted)}
    for event in sweep.heard(AttemptDescribed):
        if "stack" in event.facts:
            started[event.number] = event.facts["stack"]
    return [numbers for number, numbers in sorted(started.items()) if numbers[0] == number]


def test_every_lane_ends_once_with_decisions_and_an_outcome_of_its_own(
    make_backend: MakeBackend, make_sweep: MakeSweep
) -> None:
    sweep = make_sweep(trials=8)
    broker = sweep.broker()
    make_backend(climbing).run(broker, no_tick)
    assert_whole(sweep, broker)
    assert set(states(sweep)) == {TrialState.COMPLETE, TrialState.PRUNED}
    assert {record.reason for record in sweep.history().trials} == {RUNG, None}
    assert most_at_once(sweep.events) == 4


def test_reports_of_one_moment_are_judged_in_ascending_number_and_stored_together(
    make_backend: MakeBackend, make_sweep: MakeSweep
) -> None:
    batches: list[list[int]] = []

    def note(events: Sequence[Event]) -> None:
        numbers = [event.number for event in events if isinstance(event, Reported)]
        batches.extend([numbers] if numbers else [])

    sweep = make_sweep(trials=4, pruner=NO_PRUNER)
    broker = sweep.broker(also=note)
    make_backend(climbing).run(broker, no_tick)
    assert_whole(sweep, broker)
    assert batches == [[0, 1, 2, 3]] * 3


def test_a_stack_that_is_paused_goes_on_later_and_loses_nothing(
    make_backend: MakeBackend, make_sweep: MakeSweep
) -> None:
    checkpoints: dict[int, int] = {}

    def pause(events: Sequence[Event]) -> None:
        if len(sweep.heard(Reported)) >= 6:
            broker.halt("enough for today", pause=True)

    sweep = make_sweep(trials=10, pruner=NO_PRUNER)
    broker = sweep.broker(also=pause)
    make_backend(climbing, checkpoints=checkpoints, speed=0.1).run(broker, no_tick)
    paused = sweep.history().trials
    assert [record.state for record in paused[:4]] == [TrialState.INTERRUPTED] * 4
    assert {record.state for record in paused[4:]} <= {TrialState.WAITING}, "what was asked for ahead is given back"

    again = sweep.broker()
    make_backend(climbing, checkpoints=checkpoints).run(again, no_tick)
    assert_whole(sweep, again)
    assert states(sweep) == [TrialState.COMPLETE] * 10
    for before, after in zip(paused, sweep.history().trials, strict=False):
        assert after.reports[: len(before.reports)] == before.reports
        assert after.configuration == before.configuration


def test_an_error_of_the_driver_ends_the_run_as_itself(make_backend: MakeBackend, make_sweep: MakeSweep) -> None:
    def replaced(events: Sequence[Event]) -> None:
        if sweep.heard(Reported):
            raise SweepHeldError("another process drives this sweep")

    sweep = make_sweep(trials=4, pruner=NO_PRUNER)
    with pytest.raises(SweepHeldError, match="another process"):
        make_backend(climbing).run(sweep.broker(also=replaced), no_tick)
    assert not any(record.state.is_final for record in sweep.history().trials)


@real
def test_a_lane_that_breaks_the_contract_fails_alone(
    kind: str, make_real_backend: MakeBackend, make_sweep: MakeSweep
) -> None:
    def falling(trial: TrialSpec) -> Sequence[Stage]:
        return [says(200, 0.5), says(100, 0.6), says(300, 0.7)] if trial.number == 2 else climbing(trial)

    sweep = make_sweep(trials=4, pruner=NO_PRUNER)
    broker = sweep.broker()
    make_real_backend(kind, falling).run(broker, no_tick)
    assert_whole(sweep, broker)
    records = sweep.history().trials
    assert states(sweep) == [TrialState.COMPLETE, TrialState.COMPLETE, TrialState.FAILED, TrialState.COMPLETE]
    assert records[2].reason == "ValueError: report at step 100 after one at step 200: steps must rise"
    [ended] = [event for event in sweep.heard(AttemptEnded) if event.number == 2]
    assert "steps must rise" in (ended.result.traceback or "")


@real
def test_what_a_stack_raises_fails_the_lanes_that_had_not_ended(
    kind: str, make_real_backend: MakeBackend, make_sweep: MakeSweep
) -> None:
    def fragile(trial: TrialSpec) -> Sequence[Stage]:
        return {1: [says(100, 0.5)], 3: [says(100, 0.5), says(200, 0.6), Raises(1.0, "out of luck")]}.get(
            trial.number, climbing(trial)
        )

    sweep = make_sweep(trials=5, pruner=NO_PRUNER)
    broker = sweep.broker()
    make_real_backend(kind, fragile).run(broker, no_tick)
    assert_whole(sweep, broker)
    failed, done = TrialState.FAILED, TrialState.COMPLETE
    assert states(sweep) == [failed, done, failed, failed, done]
    for event in sweep.heard(AttemptEnded):
        if event.number in (0, 2, 3):
            assert event.result.reason == "RuntimeError: out of luck"
            assert "raise RuntimeError(reason)" in event.result.traceback


@real
def test_trials_of_unlike_keys_are_not_trained_together(
    kind: str, make_real_backend: MakeBackend, make_sweep: MakeSweep
) -> None:
    sweep = make_sweep(trials=16, pruner=NO_PRUNER)
    broker = sweep.broker()
    make_real_backend(kind, climbing, key=by_rate).run(broker, no_tick)
    assert_whole(sweep, broker)
    assert states(sweep) == [TrialState.COMPLETE] * 16
    keys = [by_rate(record.configuration) for record in sweep.history().trials]
    assert {None, True, False} <= set(keys)
    assert max(len(numbers) for numbers in stacks(sweep)) > 1
    for numbers in stacks(sweep):
        assert len(numbers) == 1 or {keys[number] for number in numbers} in ({True}, {False})
    assert sorted(number for numbers in stacks(sweep) for number in numbers) == list(range(16))


@real
def test_a_trainer_that_knows_no_stacks_trains_one_after_another(
    kind: str, make_real_backend: MakeBackend, make_sweep: MakeSweep
) -> None:
    sweep = make_sweep(trials=4, pruner=NO_PRUNER)
    broker = sweep.broker()
    make_real_backend(kind, climbing, trainer=ScriptedTrainer).run(broker, no_tick)
    assert_whole(sweep, broker)
    assert states(sweep) == [TrialState.COMPLETE] * 4
    assert most_at_once(sweep.events) == 1


@dataclass(frozen=True)
class Unwilling(ScriptedStackTrainer):
    """Finds out that these trials cannot be one computation."""

    def __call__(self) -> Unwilling:
        return self

    def can_stack(self, trials: Sequence[TrialSpec]) -> bool:
        return False


@dataclass(frozen=True)
class Puzzled(Unwilling):
    def __call__(self) -> Puzzled:
        return self

    def can_stack(self, trials: Sequence[TrialSpec]) -> bool:
        raise RuntimeError("no idea")


@real
@pytest.mark.parametrize("trainer", [Unwilling, Puzzled])
def test_trials_that_turn_out_to_be_no_lanes_are_trained_one_after_another(
    kind: str, make_real_backend: MakeBackend, make_sweep: MakeSweep, trainer: type[Unwilling]
) -> None:
    sweep = make_sweep(trials=4, pruner=NO_PRUNER)
    broker = sweep.broker()
    make_real_backend(kind, climbing, trainer=trainer).run(broker, no_tick)
    assert_whole(sweep, broker)
    assert states(sweep) == [TrialState.COMPLETE] * 4
    assert most_at_once(sweep.events) == 1
    assert stacks(sweep) == [[0], [1], [2], [3]]


def test_two_slots_share_what_is_left(make_real_backend: MakeBackend, make_sweep: MakeSweep) -> None:
    sweep = make_sweep(trials=10, pruner=NO_PRUNER)
    broker = sweep.broker()
    make_real_backend("ray", climbing, n_slots=2, n_lanes=8).run(broker, no_tick)
    assert_whole(sweep, broker)
    assert sorted(map(len, stacks(sweep))) == [5, 5]


def test_a_worker_that_dies_costs_the_lanes_that_had_not_ended_an_attempt_each(
    make_real_backend: MakeBackend, make_sweep: MakeSweep
) -> None:
    def deadly(trial: TrialSpec) -> Sequence[Stage]:
        lives = {1: [says(100, 0.5)], 3: [says(100, 0.5), says(200, 0.6), Dies(1.0), says(300, 0.7)]}
        return lives.get(trial.number, climbing(trial))

    at_death: list[int] = []

    def note(events: Sequence[Event]) -> None:
        if any(isinstance(event, AttemptEnded) and event.result.ending is Ending.LOST for event in events):
            at_death.extend(event.number for event in events if isinstance(event, AttemptEnded))

    sweep = make_sweep(trials=6, pruner=NO_PRUNER)
    broker = sweep.broker(also=note)
    make_real_backend("ray", deadly, speed=0.05).run(broker, no_tick)
    assert_whole(sweep, broker)
    assert states(sweep) == [TrialState.COMPLETE] * 6
    assert sorted(at_death) == [0, 2, 3], "told at once"
    records = sweep.history().trials
    assert [record.n_retries for record in records] == [1, 0, 1, 1, 0, 0]
    assert [record.attempts for record in records] == [2, 1, 2, 2, 1, 1]
    assert {tuple(r.step for r in record.reports) for record in records} == {(100,), (100, 200, 300)}
    finished = [event.number for event in sweep.heard(TrialFinished)]
    assert finished[0] == 1


def test_a_lane_that_kills_every_worker_takes_the_others_with_it_once(
    make_real_backend: MakeBackend, make_sweep: MakeSweep
) -> None:
    def one_kills(trial: TrialSpec) -> Sequence[Stage]:
        return [says(100, 0.5), Dies(0.0, attempt=trial.attempt)] if trial.number == 1 else climbing(trial)

    sweep = make_sweep(trials=4, pruner=NO_PRUNER)
    broker = sweep.broker()
    make_real_backend("ray", one_kills).run(broker, no_tick)
    assert states(sweep) == [TrialState.COMPLETE, TrialState.FAILED, TrialState.COMPLETE, TrialState.COMPLETE]
    lost = [record.n_retries for record in sweep.history().trials]
    assert lost[1] > 1
    assert max(lost[0], lost[2], lost[3]) == 1


def test_a_stop_by_hand_reaches_one_lane_of_a_stack(make_real_backend: MakeBackend, make_sweep: MakeSweep) -> None:
    sweep = make_sweep(trials=4, pruner=NO_PRUNER)

    def stop_one(events: Sequence[Event]) -> None:
        if len(sweep.heard(Reported)) == 4:
            broker.stop(2)

    broker = sweep.broker(also=stop_one)
    make_real_backend("ray", climbing, speed=0.3).run(broker, no_tick)
    assert states(sweep) == [TrialState.COMPLETE, TrialState.COMPLETE, TrialState.PRUNED, TrialState.COMPLETE]
    assert [len(record.reports) for record in sweep.history().trials] == [3, 3, 1, 3]
    [ended] = [event for event in sweep.heard(AttemptEnded) if event.number == 2]
    assert ended.result.ending is Ending.STOPPED
