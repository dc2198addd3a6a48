"""A broker of any study, with all that it told its listener."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from finesweep.events import (
    AttemptResult,
    Configuration,
    Decision,
    Ending,
    Event,
    Grid,
    Report,
    Source,
    SweepHistory,
    TrialFinished,
    TrialSpec,
    TrialState,
)
from finesweep.search.broker import TrialBroker
from finesweep.spec.study import StudySpec

GRID = Grid("examples", every=100, longest=900)
RATE = {"learning_rate": {"type": "float", "low": 1e-5, "high": 1e-2, "log": True}}


class Desk:
    """A broker, and what it told."""

    def __init__(self, study: StudySpec, grid: Grid, **options: Any) -> None:
        self.events: list[Event] = []
        self.refused: type | None = None  # the kind of event that cannot be stored
        settings = {"name": "desk", "n_trials": 10, "retries": 1} | options
        self.broker = TrialBroker(study, grid=grid, listener=self._hear, **settings)

    def _hear(self, events: Sequence[Event]) -> None:
        if self.refused is not None and any(isinstance(event, self.refused) for event in events):
            raise OSError("disk full")
        self.events.extend(events)

    def heard(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    def next(self) -> TrialSpec:
        """Take the next trial, which is expected to be there, and begin it."""
        trial = self.broker.suggest()
        assert isinstance(trial, TrialSpec), trial
        self.broker.begin(trial.number)
        return trial

    def report(self, number: int, step: int, value: float, *, final: bool = False, **others: float) -> Decision:
        return self.broker.report(number, Report(step, {"accuracy": value, **others}, step + 3, final))

    def finish(self, number: int, ending: Ending = Ending.DONE, reason: str | None = None) -> None:
        self.broker.finish(number, AttemptResult(ending, reason))

    def train(self, value: float = 0.5, *, step: int = 900) -> TrialSpec:
        """Run the next trial to its end."""
        trial = self.next()
        self.report(trial.number, step, value, final=True)
        self.finish(trial.number)
        return trial

    def outcome(self, number: int) -> TrialFinished:
        [event] = [event for event in self.heard(TrialFinished) if event.number == number]
        assert isinstance(event, TrialFinished)
        return event

    def state(self, number: int) -> TrialState:
        return self.outcome(number).state


MakeDesk = Callable[..., Desk]


@pytest.fixture
def make_desk() -> MakeDesk:
    """Make a broker's desk; sections of the study by name, the rest for the broker.

    `others` are the objectives beside accuracy and their directions.
    """

    def make(
        parameters: Mapping[str, Any] = RATE,
        *,
        sampler: str | Mapping[str, Any] = "random",
        pruner: str | Mapping[str, Any] = "none",
        direction: str = "maximize",
        value: str = "best",
        others: Mapping[str, str] | None = None,
        starting: Sequence[tuple[Source, Configuration]] = (),
        history: SweepHistory | None = None,
        grid: Grid = GRID,
        **options: Any,
    ) -> Desk:
        directions = {"accuracy": direction, **(others or {})}
        content = {
            "objective": [{"metric": name, "direction": way, "value": value} for name, way in directions.items()],
            "sampler": {"type": sampler} if isinstance(sampler, str) else sampler,
            "pruner": {"type": pruner} if isinstance(pruner, str) else pruner,
            "parameters": parameters,
        }
        return Desk(StudySpec.model_validate(content), grid, starting=starting, history=history, **options)

    return make
