"""The inline backend: one trial after another in this process, for debugging and for machines without Ray."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from finesweep.events import Decision, Report, TrialSpec
from finesweep.scheduling.attempt_log import capture_log
from finesweep.scheduling.backend import Tick, run_attempt
from finesweep.search.broker import TrialBroker
from finesweep.trainer import TrainerFactory

T = TypeVar("T")


class InlineBackend:
    """Runs attempts here. What a trainer prints is seen; its log records also go to the trial's log."""

    def __init__(self, trainer_factory: TrainerFactory, *, log_dir: Path) -> None:
        self._trainer_factory = trainer_factory
        self._log_dir = log_dir

    def run(self, broker: TrialBroker, tick: Tick) -> None:
        trainer = self._trainer_factory()
        tick()
        while isinstance(trial := broker.suggest(), TrialSpec):
            broker.begin(trial.number)
            reporter = _InlineReporter(trial.number, broker, tick)
            log = capture_log(self._log_dir, trial, redirect=False)
            result = run_attempt(trainer, trial, reporter, log=log)
            if reporter.fault is not None:
                raise reporter.fault
            broker.finish(trial.number, result)
            tick()


class _InlineReporter:
    """Keeps what goes wrong in the driver, as a database that is gone, apart from what goes wrong in the trainer."""

    fault: Exception | None = None

    def __init__(self, number: int, broker: TrialBroker, tick: Tick) -> None:
        self._number = number
        self._broker = broker
        self._tick = tick

    def describe(self, facts: Mapping[str, Any]) -> None:
        self._ask(lambda: self._broker.describe(self._number, facts))

    def report(self, report: Report) -> Decision:
        return self._ask(lambda: self._broker.report(self._number, report))

    def poll(self) -> Decision:
        return self._ask(lambda: self._broker.poll(self._number))

    def _ask(self, question: Callable[[], T]) -> T:
        try:
            self._tick()
            return question()
        except Exception as error:
            self.fault = error
            raise
