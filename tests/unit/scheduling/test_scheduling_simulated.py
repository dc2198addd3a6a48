from __future__ import annotations

from collections.abc import Sequence

from finesweep.events import AttemptStarted, Event, Grid, Report, TrialFinished, TrialSpec
from finesweep.scheduling.simulated import Dies, Says, SimulatedBackend, Stage, VirtualClock
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
