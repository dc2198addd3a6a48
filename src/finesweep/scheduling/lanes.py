"""Runs a slot's assignment in the worker: whatever the trainer does, each of its trials ends exactly once.

In: a trainer, trials, a StackReporter. Out: the reporter has heard one ending of each. It must not know who listens.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

from finesweep.events import AttemptResult, Decision, Ending, Report, TrialSpec
from finesweep.layout import is_below
from finesweep.scheduling.backend import Contract, run_attempt
from finesweep.secrets import hide_in
from finesweep.trainer import StackReporter, StackTrainer, Trainer, TrainerFactory, failed_by

# Opens the logs of trials that are about to run.
Logs = Callable[[Sequence[TrialSpec]], AbstractContextManager[None]]

ENDINGS = {Decision.STOP: Ending.STOPPED, Decision.PAUSE: Ending.PAUSED}

_log = logging.getLogger("finesweep.trial")


def run_assignment(trainer: Trainer, trials: Sequence[TrialSpec], reporter: StackReporter, *, logs: Logs) -> None:
    """Train trials as one computation where the trainer can, else one after another."""
    reporter = Border(reporter)
    if len(trials) > 1 and isinstance(trainer, StackTrainer) and _can_stack(trainer, trials):
        _run_stack(trainer, trials, reporter, logs)
        return
    for trial in trials:
        word = Decision.CONTINUE if trial is trials[0] else reporter.poll(trial.number)
        if word.must_return:  # while those before it were trained
            result = AttemptResult(ENDINGS[word])
        else:
            result = run_attempt(trainer, trial, Lane(trial.number, reporter), log=logs([trial]))
        reporter.end(trial.number, result)


class Border:
    """Lets out of a worker only what may be stored: no secrets, no artifacts outside of the sweep's folder."""

    def __init__(self, reporter: StackReporter) -> None:
        self._reporter = reporter

    def describe(self, number: int, facts: Mapping[str, Any]) -> None:
        self._reporter.describe(number, hide_in(facts))

    def report(self, reports: Mapping[int, Report]) -> Mapping[int, Decision]:
        return self._reporter.report(reports)

    def poll(self, number: int) -> Decision:
        return self._reporter.poll(number)

    def end(self, number: int, result: AttemptResult) -> None:
        outside = next((path for path in result.artifacts.values() if not is_below(path)), None)
        if outside is not None:
            reason = f"the trainer names an artifact outside of the sweep's folder: {str(outside)!r}"
            result = replace(result, ending=Ending.FAILED, reason=reason, artifacts={})
        told = {"reason": result.reason, "traceback": result.traceback}
        self._reporter.end(number, replace(result, **hide_in(told)))


class WorkersTrainer:
    """A worker's trainer, made when it is first asked for; a factory that fails is asked again."""

    def __init__(self, factory: TrainerFactory) -> None:
        self._factory = factory
        self._trainer: Trainer | None = None

    def get(self) -> Trainer:
        if self._trainer is None:
            try:
                self._trainer = self._factory()
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                return _Broken(error)
        return self._trainer


class _Broken:
    """Stands in for a trainer that could not be made, where exceptions become outcomes."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def run(self, trial: TrialSpec, reporter: object) -> AttemptResult:
        raise self._error


class Lane:
    """The Reporter of one trial of an assignment."""

    def __init__(self, number: int, reporter: StackReporter) -> None:
        self._number = number
        self._reporter = reporter

    def describe(self, facts: Mapping[str, Any]) -> None:
        self._reporter.describe(self._number, facts)

    def report(self, report: Report) -> Decision:
        return self._reporter.report({self._number: report})[self._number]

    def poll(self) -> Decision:
        return self._reporter.poll(self._number)


class StrictStack:
    """Holds the trainer of a stack to the contract, lane by lane: one that breaks it is FAILED, the others go on."""

    def __init__(self, reporter: StackReporter, numbers: Sequence[int]) -> None:
        self._reporter = reporter
        self._contracts = {number: Contract() for number in numbers}
        self.not_ended = set(numbers)

    def describe(self, number: int, facts: Mapping[str, Any]) -> None:
        if number in self.not_ended:
            self._reporter.describe(number, facts)

    def report(self, reports: Mapping[int, Report]) -> Mapping[int, Decision]:
        checked: dict[int, Report] = {}
        for number, report in sorted(reports.items()):
            contract = self._contracts[number]
            if number not in self.not_ended:
                continue
            try:
                plain = contract.check(report)
            except (ValueError, TypeError) as error:
                self._fail(number, failed_by(error))
                continue
            if contract.decision is not Decision.STOP:
                checked[number] = plain
        if checked:
            for number, decision in self._reporter.report(checked).items():
                self._contracts[number].decision = decision
        return {number: self._word(number) for number in sorted(reports)}

    def poll(self, number: int) -> Decision:
        contract = self._contracts[number]
        if contract.decision is Decision.CONTINUE and number in self.not_ended:
            contract.decision = self._reporter.poll(number)
        return self._word(number)

    def end(self, number: int, result: AttemptResult) -> None:
        """End a lane. One that has ended, perhaps because it broke the contract, has no second ending."""
        self._contracts[number]  # raises KeyError for a trial of somebody else's
        if number in self.not_ended:
            self.not_ended.remove(number)
            self._reporter.end(number, result)

    def fail_rest(self, result: Callable[[int], AttemptResult]) -> None:
        """End every lane that has not ended."""
        for number in sorted(self.not_ended):
            self._fail(number, result(number))

    def _fail(self, number: int, result: AttemptResult) -> None:
        _log.error("trial %d failed:\n%s", number, result.traceback or result.reason, extra={"trial": number})
        self.end(number, result)

    def _word(self, number: int) -> Decision:
        return self._contracts[number].decision if number in self.not_ended else Decision.STOP


def _can_stack(trainer: StackTrainer, trials: Sequence[TrialSpec]) -> bool:
    """Ask the trainer. One that raises is not believed: by itself each trial will say what is wrong."""
    try:
        return trainer.can_stack(trials)
    except KeyboardInterrupt:
        raise
    except BaseException:
        _log.exception("trials cannot be trained together")
        return False


def _run_stack(trainer: StackTrainer, trials: Sequence[TrialSpec], reporter: StackReporter, logs: Logs) -> None:
    stack = StrictStack(reporter, [trial.number for trial in trials])
    try:
        with logs(trials):
            try:
                trainer.run_stack(trials, stack)
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                result = failed_by(error)
                stack.fail_rest(lambda number: result)
            stack.fail_rest(_unended)
    except OSError as error:
        result = failed_by(error)
        stack.fail_rest(lambda number: result)


def _unended(number: int) -> AttemptResult:
    return AttemptResult(Ending.FAILED, reason=f"the trainer returned without ending trial {number}")
