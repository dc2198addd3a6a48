from __future__ import annotations

from collections.abc import Sequence

import pytest

from finesweep.events import AttemptEnded, AttemptStarted, Ending, Event, Grid, Report, TrialFinished, TrialSpec
from finesweep.scheduling.simulated import (
    Blocks,
    Dies,
    Hangs,
    Raises,
    Says,
    SimulatedBackend,
    Stage,
    VirtualClock,
)
from finesweep.search.broker import TrialBroker
from finesweep.spec.study import StudySpec

STUDY = StudySpec.model_validate(
    {
        "objective": {"metric": "accuracy", "direction": "maximize"},
        "sampler": {"type": "random"},
        "parameters": {"x": {"type": "float", "low": 0, "high": 1}},
    }
)


def test_time_is_virtual_and_slots_are_filled_as_they_come_free() -> None:
    """Trial k takes (k + 1) * 10 s on two slots: 0 at 0..10, 1 at 0..20, 2 at 10..40, 3 at 20..60."""
    clock = VirtualClock()
    times: list[tuple[str, int, float]] = []

    def hear(events: Sequence[Event]) -> None:
        times.extend(
            (type(e).__name__, e.number, clock()) for e in events if isinstance(e, AttemptStarted | TrialFinished)
        )

    def script(trial: TrialSpec) -> Sequence[Stage]:
        seconds = (trial.number + 1) * 10.0
        return [Says(seconds, Report(900, {"accuracy": 0.5}, 900, final=True))]

    broker = TrialBroker(STUDY, name="s", grid=Grid("examples", 100, 900), n_trials=4, retries=0, listener=hear)
    SimulatedBackend(script, n_slots=2, clock=clock).run(broker, lambda: None)
    ended = {number: at_s for kind, number, at_s in times if kind == "TrialFinished"}
    assert ended == {0: 10.0, 1: 20.0, 2: 40.0, 3: 60.0}
    assert [number for kind, number, _ in times if kind == "AttemptStarted"] == [0, 1, 2, 3]


def test_a_trial_goes_on_from_its_checkpoint() -> None:
    said: list[int] = []

    def script(trial: TrialSpec) -> Sequence[Stage]:
        first = Says(1.0, Report(100, {"accuracy": 0.5}, 100))
        return [first, Dies(5.0), Says(1.0, Report(900, {"accuracy": 0.6}, 900, final=True))]

    def hear(events: Sequence[Event]) -> None:
        said.extend(event.report.step for event in events if hasattr(event, "report"))

    clock = VirtualClock()
    checkpoints: dict[int, int] = {}
    broker = TrialBroker(STUDY, name="s", grid=Grid("examples", 100, 900), n_trials=1, retries=1, listener=hear)
    SimulatedBackend(script, n_slots=1, clock=clock, checkpoints=checkpoints).run(broker, lambda: None)
    assert said == [100, 900]
    assert clock() == 1.0 + 5.0 + 1.0
    assert checkpoints == {0: 2}


def broker_of(events: list[Event], *, n_trials: int, retries: int) -> TrialBroker:
    grid = Grid("examples", 100, 900)
    return TrialBroker(STUDY, name="s", grid=grid, n_trials=n_trials, retries=retries, listener=events.extend)


def well(trial: TrialSpec) -> Sequence[Stage]:
    return [Says(10.0, Report(step, {"accuracy": 0.5}, step, final=step == 900)) for step in (100, 900)]


def endings(events: Sequence[Event]) -> list[tuple[int, Ending]]:
    return [(event.number, event.result.ending) for event in events if isinstance(event, AttemptEnded)]


def test_a_trial_that_hangs_is_killed_when_nothing_was_heard_of_it_for_the_limit() -> None:
    events: list[Event] = []
    clock = VirtualClock()

    def hangs_first(trial: TrialSpec) -> Sequence[Stage]:
        first, last = well(trial)
        return [first, Hangs(0.0)] if trial.attempt == 1 else [first, last]

    broker = broker_of(events, n_trials=1, retries=0)
    SimulatedBackend(hangs_first, n_slots=1, clock=clock, stall_s=600.0).run(broker, lambda: None)
    assert endings(events) == [(0, Ending.STALLED)]
    assert clock() == 10.0 + 600.0


def test_a_trial_that_hangs_and_has_no_limit_would_never_end() -> None:
    backend = SimulatedBackend(lambda trial: [Hangs(1.0)], n_slots=1)
    with pytest.raises(ValueError, match="Give a stall_s"):
        backend.run(broker_of([], n_trials=1, retries=0), lambda: None)


def test_a_trial_that_is_blocked_pauses_the_others() -> None:
    events: list[Event] = []

    def blocked(trial: TrialSpec) -> Sequence[Stage]:
        return [Blocks(5.0, "no space left")] if trial.number == 0 else well(trial)

    broker = broker_of(events, n_trials=4, retries=0)
    SimulatedBackend(blocked, n_slots=2).run(broker, lambda: None)
    assert endings(events) == [(0, Ending.BLOCKED), (1, Ending.PAUSED)]
    assert broker.halted == "no space left"


def test_workers_of_one_node_are_lost_at_one_moment_and_each_trial_goes_on() -> None:
    events: list[Event] = []
    clock = VirtualClock()
    lost: list[float] = []

    def hear(told: Sequence[Event]) -> None:
        events.extend(told)
        lost.extend(clock() for event in told if isinstance(event, AttemptEnded) and event.result.ending is Ending.LOST)

    def on_node(trial: TrialSpec) -> Sequence[Stage]:
        return [Dies(5.0, n_workers=2)] * (trial.number == 0 and trial.attempt == 1) + list(well(trial))

    grid = Grid("examples", 100, 900)
    broker = TrialBroker(STUDY, name="s", grid=grid, n_trials=3, retries=1, listener=hear)
    SimulatedBackend(on_node, n_slots=3, clock=clock).run(broker, lambda: None)
    assert [ending for ending in endings(events) if ending[1] is Ending.LOST] == [(0, Ending.LOST), (1, Ending.LOST)]
    assert lost == [5.0, 5.0]
    assert endings(events)[2:] == [(number, Ending.DONE) for number in (2, 1, 0)]


def test_chance_may_have_a_trial_do_something_worse() -> None:
    events: list[Event] = []
    befalls = iter([None, Raises(0.0, "struck")])
    backend = SimulatedBackend(well, n_slots=1, chance=lambda number: next(befalls, None))
    backend.run(broker_of(events, n_trials=2, retries=0), lambda: None)
    assert endings(events) == [(0, Ending.FAILED), (1, Ending.DONE)]
