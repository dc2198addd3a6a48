"""The inline backend: one assignment after another in this process, for debugging and for machines without Ray."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from finesweep.events import AttemptResult, Decision, Report, TrialSpec
from finesweep.scheduling.assignments import Assignments
from finesweep.scheduling.attempt_log import capture_logs
from finesweep.scheduling.backend import Tick
from finesweep.scheduling.lanes import run_assignment
from finesweep.scheduling.stacking import ALONE, Stacking
from finesweep.search.broker import NoTrial, TrialBroker
from finesweep.trainer import TrainerFactory

T = TypeVar("T")


class InlineBackend:
    """Runs attempts here. What a trainer prints is seen; its log records also go to the trial's log."""

    def __init__(self, trainer_factory: TrainerFactory, *, log_dir: Path, stacking: Stacking = ALONE) -> None:
        self._trainer_factory = trainer_factory
        self._log_dir = log_dir
        self._stacking = stacking

    def run(self, broker: TrialBroker, tick: Tick) -> None:
        trainer = self._trainer_factory()
        assignments = Assignments(broker, self._stacking, n_slots=1)
        tick()
        while not isinstance(assignment := assignments.next(), NoTrial):
            reporter = _InlineReporter(broker, tick)
            run_assignment(trainer, assignment, reporter, logs=partial(self._begun, reporter))
            if reporter.fault is not None:
                raise reporter.fault
            tick()

    @contextmanager
    def _begun(self, reporter: _InlineReporter, trials: Sequence[TrialSpec]) -> Iterator[None]:
        for trial in trials:
            reporter.begin(trial.number)
        with capture_logs(self._log_dir, trials, redirect=False):
            yield


class _InlineReporter:
    """Keeps what goes wrong in the driver, as a database that is gone, apart from what goes wrong in the trainer."""

    fault: Exception | None = None

    def __init__(self, broker: TrialBroker, tick: Tick) -> None:
        self._broker = broker
        self._tick = tick

    def begin(self, number: int) -> None:
        self._ask(lambda: self._broker.begin(number))

    def describe(self, number: int, facts: Mapping[str, Any]) -> None:
        self._ask(lambda: self._broker.describe(number, facts))

    def report(self, reports: Mapping[int, Report]) -> Mapping[int, Decision]:
        return self._ask(lambda: self._judge(reports))

    def poll(self, number: int) -> Decision:
        return self._ask(lambda: self._broker.poll(number))

    def end(self, number: int, result: AttemptResult) -> None:
        if self.fault is None:
            self._ask(lambda: self._broker.finish(number, result))

    def _judge(self, reports: Mapping[int, Report]) -> Mapping[int, Decision]:
        with self._broker.together():
            return {number: self._broker.report(number, report) for number, report in reports.items()}

    def _ask(self, question: Callable[[], T]) -> T:
        if self.fault is not None:
            raise self.fault
        try:
            self._tick()
            return question()
        except Exception as error:
            self.fault = error
            raise
