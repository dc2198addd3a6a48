"""A broker with all that it told its listener, in the batches in which it told it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from optuna.samplers import BaseSampler

from finesweep.events import AttemptResult, Decision, Ending, Event, Grid, Report
from finesweep.search.broker import TrialBroker
from finesweep.spec.study import StudySpec


class Sweep:
    """A broker of a study of `x` in 0 to 1 without pruner, and what it told."""

    def __init__(self, *, n_trials: int, sampler: BaseSampler | None = None, retries: int = 1) -> None:
        self.batches: list[tuple[Event, ...]] = []
        content = {
            "objective": {"metric": "accuracy", "direction": "maximize"},
            "sampler": {"type": "tpe", "startup_trials": 3},
            "parameters": {"x": {"type": "float", "low": 0, "high": 1}},
        }
        self.broker = TrialBroker(
            StudySpec.model_validate(content),
            name="s",
            grid=Grid("examples", 100, 900),
            n_trials=n_trials,
            retries=retries,
            listener=self._hear,
            sampler=sampler,
        )

    def _hear(self, events: Sequence[Event]) -> None:
        self.batches.append(tuple(events))

    def heard(self, kind: type) -> list[Any]:
        return [event for batch in self.batches for event in batch if isinstance(event, kind)]

    def report(self, number: int, step: int, value: float = 0.5) -> Decision:
        return self.broker.report(number, Report(step, {"accuracy": value}, step, final=step == 900))

    def train(self, number: int, value: float = 0.5) -> None:
        self.report(number, 900, value)
        self.broker.finish(number, AttemptResult(Ending.DONE))
