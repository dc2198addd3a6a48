"""The seam between scheduling and training: a trainer knows neither Optuna nor Ray, a backend knows no torch."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from finesweep.errors import DiskFullError, FinesweepError
from finesweep.events import AttemptResult, Decision, Ending, Report, TrialSpec
from finesweep.secrets import hide

# How a full disk is told: by the system, by libraries that pass its words on (safetensors, SQLite), and by torch, whose
# words fit other faults of a file as well.
_FULL = (errno.ENOSPC, errno.EDQUOT)
_SAID_FULL = ("No space left on device", "Disk quota exceeded", "disk is full")
_TORCH_SAID = ("PytorchStreamWriter failed", "file write failed", "unexpected pos")
_PROBED_BYTES = 2**20


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
    """Describe the attempt that ended with the exception that is being handled: FAILED, or BLOCKED by a full disk."""
    if not is_disk_full(error):
        return AttemptResult(Ending.FAILED, reason=_one_line(error), traceback=traceback.format_exc())
    reason = str(error) if isinstance(error, DiskFullError) else f"no space left on a disk: {_one_line(error)}"
    return AttemptResult(Ending.BLOCKED, reason=f"{reason}. Free some, then resume", traceback=traceback.format_exc())


def is_disk_full(error: BaseException) -> bool:
    """Tell whether an exception, or one that it was made of, says that a disk or a quota on it is used up."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, DiskFullError) or (isinstance(seen, OSError) and seen.errno in _FULL):
            return True
        if any(words in str(seen) for words in _SAID_FULL):
            return True
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    return False


@contextmanager
def naming_disk(folder: Path, *, writes_elsewhere: bool = False) -> Iterator[None]:
    """Raise DiskFullError, which names the disk of `folder`, in place of an error by which that disk is full.

    Where what is done inside also writes elsewhere, it is tried whether it is this one. So it is where torch cannot
    write, whose own words fit other faults as well.
    """
    try:
        yield
    except DiskFullError:
        raise
    except Exception as error:
        is_told = is_disk_full(error)
        may_be = is_told or (isinstance(error, RuntimeError) and any(words in str(error) for words in _TORCH_SAID))
        if not may_be or ((writes_elsewhere or not is_told) and _has_room(folder)):
            raise
        raise DiskFullError(f"no space left on the disk of {folder}{_free_text(folder)}") from error


def _has_room(folder: Path) -> bool:
    """Try it: free space says nothing of a user's quota."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(_PROBED_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error.errno not in _FULL
    return True


def _free_text(folder: Path) -> str:
    try:
        free = shutil.disk_usage(folder).free
    except OSError:
        return ""
    return f" ({free / 2**20:.1f} MiB free)"


def _one_line(error: BaseException) -> str:
    text = " ".join(hide(str(error)).split()) or "no message"  # hidden first: half a secret is not known as one
    return text[:500] if isinstance(error, FinesweepError) else f"{type(error).__name__}: {text}"[:500]
