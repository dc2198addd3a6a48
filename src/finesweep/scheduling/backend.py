"""The seam between deciding and running: a backend owns workers and time, and asks the broker for everything else."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

from finesweep.events import AttemptResult, Decision, Report, TrialSpec
from finesweep.trainer import Reporter, Trainer, failed_by

if TYPE_CHECKING:  # workers import this module, and have no use for optuna
    from finesweep.search.broker import TrialBroker

Tick = Callable[[], None]


class Backend(Protocol):
    """Runs trials until the broker has no more.

    Each attempt handed out by `broker.suggest` comes back exactly once, by `finish` or `give_back`.
    """

    def run(self, broker: TrialBroker, tick: Tick) -> None:
        """Run to the end, calling `tick` at least once a second (and between any two reports where all is in one)."""


def run_attempt(
    trainer: Trainer, trial: TrialSpec, reporter: Reporter, *, log: AbstractContextManager[None]
) -> AttemptResult:
    """Train one attempt; whatever the trainer raises, even SystemExit, comes back as a FAILED attempt.

    So does a log that cannot be written.
    """
    try:
        with log:
            return _train(trainer, trial, StrictReporter(reporter))
    except OSError as error:
        return failed_by(error)


def _train(trainer: Trainer, trial: TrialSpec, reporter: Reporter) -> AttemptResult:
    try:
        return trainer.run(trial, reporter)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        result = failed_by(error)
        logging.getLogger("finesweep.trial").error("trial %d failed:\n%s", trial.number, result.traceback)
        return result


class Contract:
    """What a trainer owes in its reports of one attempt, and the last word that it was given."""

    def __init__(self) -> None:
        self._last_step: int | None = None
        self.decision = Decision.CONTINUE

    def check(self, report: Report) -> Report:
        """Give the report in plain numbers.

        Raises ValueError for steps below 0 or that do not rise, TypeError for metrics that are not numbers.
        """
        if report.step < 0:
            raise ValueError(f"report at step {report.step}: steps count from 0")
        if self._last_step is not None and report.step <= self._last_step:
            raise ValueError(f"report at step {report.step} after one at step {self._last_step}: steps must rise")
        metrics = {str(name): _number(name, value) for name, value in report.metrics.items()}
        self._last_step = report.step
        return Report(
            step=int(report.step),
            metrics=metrics,
            examples_seen=int(report.examples_seen),
            final=report.final,
            telemetry={str(name): _number(name, value) for name, value in report.telemetry.items()},
        )


class StrictReporter:
    """Holds a trainer to the contract. After STOP nothing more is told; after PAUSE what is left to report still is."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._contract = Contract()

    def describe(self, facts: Mapping[str, Any]) -> None:
        self._reporter.describe(facts)

    def report(self, report: Report) -> Decision:
        """Raises what `Contract.check` raises."""
        checked = self._contract.check(report)
        if self._contract.decision is not Decision.STOP:
            self._contract.decision = self._reporter.report(checked)
        return self._contract.decision

    def poll(self) -> Decision:
        if self._contract.decision is Decision.CONTINUE:
            self._contract.decision = self._reporter.poll()
        return self._contract.decision


def _number(name: str, value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf
    except (TypeError, ValueError):
        raise TypeError(f"metric {name!r} is {value!r}: metrics are numbers") from None
