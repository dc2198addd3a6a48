"""A trainer of the user's own: a function called with (trial, reporter), once for each attempt at a trial.

In: a trial and what it says by its reporter. Out: reports on the sweep's grid, an AttemptResult. It must not know what
the function trains, nor with what.
"""

from __future__ import annotations

import gc
import hashlib
import inspect
import logging
import math
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finesweep import events, trainer
from finesweep.errors import DataError, FunctionError
from finesweep.events import AttemptResult, Configuration, Decision, Ending, Grid, TrialSpec
from finesweep.layout import own_dir, size_of
from finesweep.spec.inputs import package_path
from finesweep.spec.settings import laid_over
from finesweep.spec.study import has_diverged
from finesweep.spec.sweep import DataSpec, FunctionSweep, ModelSpec, SweepSpec, Task
from finesweep.training.functions import load_function

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Trial:
    """What a trainer of your own is told: the first of its two arguments."""

    number: int
    attempt: int  # counts from 1; a later one finds in `folder` what the earlier ones left there
    configuration: Configuration  # the parameters that the study searches, with this trial's values
    settings: Mapping[str, Any]  # what stands under `training` in the sweep, and the seed; a verification's own
    folder: Path  # for checkpoints and results; kept after the trial as `artifacts.keep` says
    spec: FunctionSweep  # the whole sweep, resolved: its paths are absolute

    @property
    def seed(self) -> int:
        """Give what chance is to begin from: the sweep's own, in a verification another one for each repetition."""
        return int(self.settings["seed"])

    @property
    def model(self) -> ModelSpec | None:
        return self.spec.model

    @property
    def model_path(self) -> str | None:
        """Return what `from_pretrained` takes: a folder, also of a model in an installed package, or a hub id."""
        if self.spec.model is None:
            return None
        name = self.spec.model.name
        return str(package_path(name)) if name.startswith("package:") else name

    @property
    def task(self) -> Task | None:
        return self.spec.task

    @property
    def data(self) -> DataSpec | None:
        return self.spec.data


class Reporter:
    """How a trainer of your own tells how its trial does, and hears whether to go on: its second argument.

    When told to return, write to `trial.folder` what it takes to go on from here, and return. A trainer that reports
    again instead is ended there and then.
    """

    def __init__(self, reporter: trainer.Reporter, grid: Grid, spec: SweepSpec, *, total: int | None) -> None:
        self._reporter, self._grid, self._objectives = reporter, grid, spec.study.objectives
        self._total: int | None = None
        self._examples_seen: int | None = None  # at the last report
        self._step: int | None = None  # of the grid, at the last report that was passed on
        self._held: Mapping[str, float] | None = None  # the last report, if it was not
        self.decision = Decision.CONTINUE  # the last that the function was told
        if total is not None:
            self.total_examples = total

    @property
    def total_examples(self) -> int | None:
        """How many examples the trial will have seen at its end: of `training.total_examples`, or set by you."""
        return self._total

    @total_examples.setter
    def total_examples(self, total: int) -> None:
        self._total = int(total)
        if self._total < 1:
            raise ValueError(f"reporter.total_examples is {total}: give the number of examples of the whole trial")
        self._reporter.describe({"last_step": 100 if self._grid.unit == "progress" else self._total})

    def report(self, examples_seen: int, metrics: Mapping[str, float], *, final: bool = False) -> Decision:
        """Tell the metrics after so many examples, the study's objective among them, and hear whether to go on.

            if reporter.report(examples_seen, {"accuracy": accuracy}).must_return:
                return

        Trials are compared on the sweep's grid, every `eval_every` examples: the first report at or after a step of it
        counts for that step. Others are logged; the last one counts as the trial's end. Report as often as you like.

        Args:
            final: the trial is trained to its end. Such a report never prunes it. The same as `total_examples` reached.
        """
        if self.decision.must_return:
            raise _TrialEndedError
        seen, metrics = self._counted(examples_seen), _numbers(metrics)
        is_final = final or (self._total is not None and seen >= self._total)
        step = self._step_of(seen, metrics, is_final=is_final)
        if step is None:
            self._held = metrics
            self.decision = self._reporter.poll()
        else:
            self._pass_on(step, metrics, is_final=is_final)
        self._say(step, metrics)
        return self.decision

    def should_stop(self) -> bool:
        """Tell at once, between reports, whether to return. Cheap enough for every step."""
        if not self.decision.must_return:
            self.decision = self._reporter.poll()
        return self.decision.must_return

    def close(self) -> None:
        """Pass on, as the trial's end, a last report that fell between the steps of the grid."""
        if self._held is not None and not self.decision.must_return and self._examples_seen is not None:
            self._pass_on(self._end_of(self._examples_seen), self._held, is_final=True)

    def _counted(self, examples_seen: int) -> int:
        seen = int(examples_seen)
        if seen < 0 or (self._examples_seen is not None and seen <= self._examples_seen):
            before = "" if self._examples_seen is None else f", and the report before was at {self._examples_seen}"
            raise ValueError(
                f"reporter.report: examples_seen is {examples_seen}{before}. Count the training examples that the "
                "trial has seen since its very beginning; each report needs more than the one before."
            )
        self._examples_seen = seen
        return seen

    def _step_of(self, seen: int, metrics: Mapping[str, float], *, is_final: bool) -> int | None:
        """Find the step of the grid that a report counts for; None where the last one has been reported."""
        reached = math.floor(self._position(seen) / self._grid.every) * self._grid.every
        if is_final or has_diverged(metrics, self._objectives):
            return self._end_of(seen)
        if seen == 0 or reached > (self._step or 0):
            return reached
        return None

    def _end_of(self, seen: int) -> int:
        """Give the step of a report that cannot wait for the grid: after every step before it."""
        return max(math.ceil(self._position(seen)), 0 if self._step is None else self._step + 1)

    def _position(self, seen: int) -> float:
        if self._grid.unit != "progress":
            return seen
        if self._total is None:
            raise ValueError(
                "study.pruner.compare_at is progress: reporter.total_examples must be set before the first report, or "
                "training.total_examples in the sweep, to know what share of the trial is done"
            )
        return min(100.0, 100 * seen / self._total)

    def _pass_on(self, step: int, metrics: Mapping[str, float], *, is_final: bool) -> None:
        assert self._examples_seen is not None, "noted before"
        self._step, self._held = step, None
        self.decision = self._reporter.report(events.Report(step, metrics, self._examples_seen, final=is_final))

    def _say(self, step: int | None, metrics: Mapping[str, float]) -> None:
        at = "between the steps of the grid" if step is None else f"step {step}"
        said = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
        _log.info("%s, %d examples seen, %s: %s", at, self._examples_seen, said, self.decision)


def _numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Make plain numbers of whatever can be one, such as a tensor of one element. Raises TypeError."""
    if not isinstance(metrics, Mapping):
        raise TypeError(f'reporter.report: metrics is {metrics!r}: give them by name, as in {{"accuracy": 0.9}}')
    numbers = {}
    for name, value in metrics.items():
        try:
            numbers[str(name)] = float(value)
        except (TypeError, ValueError, RuntimeError):
            raise TypeError(f"reporter.report: metric {name!r} is {value!r}: metrics are numbers") from None
    return numbers


class _TrialEndedError(BaseException):
    """Unwinds a function that reports again after it was told to return. No user's `except Exception` holds it."""


Function = Callable[[Trial, Reporter], object]


@dataclass(frozen=True)
class FunctionTrainerFactory:
    """Picklable: called once in each worker, where the user's module is imported."""

    spec: FunctionSweep
    grid: Grid
    artifact_dir: Path

    def __call__(self) -> FunctionTrainer:
        """Import the function. Raises FunctionError."""
        function = load_trainer(self.spec)
        gc.collect()
        gc.freeze()  # what is here now stays: to look through all of it after each trial costs 50 ms
        return FunctionTrainer(function, self.spec, self.grid, self.artifact_dir)


class FunctionTrainer:
    def __init__(self, function: Function, spec: FunctionSweep, grid: Grid, artifact_dir: Path) -> None:
        self._function, self._spec, self._grid, self._artifact_dir = function, spec, grid, artifact_dir

    def run(self, trial: TrialSpec, reporter: trainer.Reporter) -> AttemptResult:
        folder = own_dir(self._artifact_dir, trial.number)
        folder.mkdir(parents=True, exist_ok=True)
        left = self._relative(folder) if any(folder.iterdir()) else None
        reporter.describe({"pid": os.getpid(), "resumed_from": left})
        settings = laid_over(self._spec.training, trial.configuration)
        mine = Reporter(reporter, self._grid, self._spec, total=settings.total_examples)
        told = Trial(
            number=trial.number,
            attempt=trial.attempt,
            configuration=trial.configuration,
            settings={**self._spec.training.model_dump(), "seed": settings.seed},
            folder=folder,
            spec=self._spec,
        )
        try:
            returned = self._call(told, mine)
        except _TrialEndedError:
            returned = None
        except SystemExit as error:
            reason = f"the trainer called sys.exit({error.code!r}): raise an exception to fail, return to end the trial"
            return AttemptResult(Ending.FAILED, reason=reason, traceback=traceback.format_exc())
        if returned is not None:
            _log.warning("the trainer returned %.80r, which nobody reads: give it to reporter.report", returned)
        mine.close()
        is_kept = mine.decision is Decision.CONTINUE and any(folder.iterdir())
        kept = {"folder": folder} if is_kept else {}
        return AttemptResult(
            _ENDINGS[mine.decision],
            artifacts={kind: self._relative(path) for kind, path in kept.items()},
            artifact_bytes={kind: size_of(path) for kind, path in kept.items()},
        )

    def _call(self, trial: Trial, reporter: Reporter) -> object:
        """Call the function, and give back the device's memory that it held: the next trial may be another size."""
        try:
            with trainer.naming_disk(trial.folder, writes_elsewhere=True):
                return self._function(trial, reporter)
        finally:
            gc.collect()
            if (torch := sys.modules.get("torch")) is not None and torch.cuda.is_initialized():
                torch.cuda.empty_cache()

    def _relative(self, folder: Path) -> str:
        return folder.relative_to(self._artifact_dir).as_posix()


_ENDINGS = {Decision.CONTINUE: Ending.DONE, Decision.STOP: Ending.STOPPED, Decision.PAUSE: Ending.PAUSED}


def load_trainer(spec: FunctionSweep) -> Function:
    """Import the trainer that a sweep names. Raises FunctionError, also if it takes other arguments."""
    function = load_function(spec.trainer, code_dir=spec.code_dir, key="trainer")
    try:
        inspect.signature(function).bind(None, None)
    except TypeError as error:
        raise FunctionError(
            f"trainer: {spec.trainer} cannot be called with (trial, reporter): {error}. Begin it as in "
            f"`def {spec.trainer.partition(':')[2]}(trial, reporter):`."
        ) from None
    except ValueError:  # written in C: only a call can tell
        pass
    return function


def function_facts(spec: FunctionSweep) -> dict[str, str | None]:
    """Import the trainer and tell by what its code and the sweep's data files are known again.

    Raises FunctionError or DataError.
    """
    load_trainer(spec)
    module = getattr(sys.modules[spec.trainer.partition(":")[0]], "__file__", None)
    data = spec.data
    splits = () if data is None or data.dataset is not None else (data.train, data.validation, data.test)
    files = [Path(split) for split in splits if isinstance(split, str)]
    return {
        "code_fingerprint": _digest([Path(module)]) if module is not None else None,
        "data_fingerprint": _digest(files) if files else None,
    }


def _digest(paths: list[Path]) -> str:
    digest = hashlib.blake2b(digest_size=12)
    for path in paths:
        try:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "blake2b").digest())
        except OSError as error:
            raise DataError(f"{path} cannot be read ({error.strerror}).") from error
    return digest.hexdigest()
