"""The inline backend: one trial after another in this process, for debugging and for machines without Ray."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from finesweep.events import Decision, Report, TrialSpec
from finesweep.scheduling.backend import Tick, run_attempt
from finesweep.search.broker import TrialBroker
from finesweep.trainer import TrainerFactory


class InlineBackend:
    def __init__(self, trainer_factory: TrainerFactory) -> None:
        self._trainer_factory = trainer_factory

    def run(self, broker: TrialBroker, tick: Tick) -> None:
        trainer = self._trainer_factory()
        tick()
        while isinstance(trial := broker.suggest(), TrialSpec):
            broker.begin(trial.number)
            broker.finish(trial.number, run_attempt(trainer, trial, _InlineReporter(trial.number, broker, tick)))
            tick()


class _InlineReporter:
    def __init__(self, number: int, broker: TrialBroker, tick: Tick) -> None:
        self._number = number
        self._broker = broker
        self._tick = tick

    def describe(self, facts: Mapping[str, Any]) -> None:
        self._broker.describe(self._number, facts)

    def report(self, report: Report) -> Decision:
        self._tick()
        return self._broker.report(self._number, report)

    def poll(self) -> Decision:
        self._tick()
        return self._broker.poll(self._number)
