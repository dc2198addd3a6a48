"""The seam between scheduling and training: a trainer knows neither Optuna nor Ray, a backend knows no torch."""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from finesweep.errors import FinesweepError
from finesweep.events import AttemptResult, Decision, Ending, Report, TrialSpec
from finesweep.secrets import hide


class Reporter(Protocol):
    """How a trainer speaks to the sweep. Given by the backend, one per attempt."""

    def describe(self, facts: Mapping[str, Any]) -> None:
        """Tell facts worth keeping: counts, effective settings, device. JSON values; later calls add to earlier."""

    def report(self, report: Report) -> Decision:
        """Tell the metrics at a step and wait for the decision.

        After STOP, clean up and return. After PAUSE, tell what else this optimizer step has reached, write a checkpoint
        and return.
        """

    def poll(self) -> Decision:
        """Answer at once, between reports; cheap enough to be called at every optimizer step."""


class Trainer(Protocol):
    """Runs attempts, one after another, in one worker process. Whatever it keeps between them is its own affair."""

    def run(self, trial: TrialSpec, reporter: Reporter) -> AttemptResult:
        """Train one attempt. Exceptions are caught by the backend and make the attempt FAILED."""


class StackReporter(Protocol):
    """How trials that are trained as one computation, the lanes of a stack, speak to the sweep: each by its number."""

    def describe(self, number: int, facts: Mapping[str, Any]) -> None:
        """Tell facts worth keeping of a lane, as Reporter.describe does of a trial."""

    def report(self, reports: Mapping[int, Report]) -> Mapping[int, Decision]:
        """Tell one report each of some lanes and wait; they are judged in ascending number, each by itself."""

    def poll(self, number: int) -> Decision:
        """Answer at once, between reports."""

    def end(self, number: int, result: AttemptResult) -> None:
        """Say how a lane's attempt ended, once; its outcome does not wait for the other lanes."""


@runtime_checkable
class StackTrainer(Trainer, Protocol):
    """A trainer that can also train several trials as one computation."""

    def can_stack(self, trials: Sequence[TrialSpec]) -> bool:
        """Tell whether these, which the sweep takes to be alike, can be. May take as long as it needs."""

    def run_stack(self, trials: Sequence[TrialSpec], reporter: StackReporter) -> None:
        """Train one attempt of each. Lanes that have not ended when this raises are FAILED by the backend."""


class TrainerFactory(Protocol):
    """A picklable recipe for a trainer: called once in each worker, where heavy imports may happen."""

    def __call__(self) -> Trainer: ...


def failed_by(error: BaseException) -> AttemptResult:
    """Describe the attempt that ended with the exception that is being handled."""
    return AttemptResult(Ending.FAILED, reason=_one_line(error), traceback=traceback.format_exc())


def _one_line(error: BaseException) -> str:
    text = " ".join(hide(str(error)).split()) or "no message"  # hidden first: half a secret is not known as one
    return text[:500] if isinstance(error, FinesweepError) else f"{type(error).__name__}: {text}"[:500]
