"""The errors a user can meet. No traceback is shown for a FinesweepError.

FinesweepError
├── SpecError        a study or sweep file is wrong; carries every fault of it
├── SweepNameError   the database already holds a sweep of that name, or holds none
├── SweepHeldError   another live process drives the sweep
├── DriveError       a sweep that was begun cannot go on now; mended, it is resumed
├── ResultsError     the results database cannot be opened, read or written
├── DataError        the data set cannot be read or does not fit the task
├── ModelError       the model cannot be found or loaded
├── EvaluationError  a trial cannot be judged as asked: a metric of the user's own fails, a library is missing
├── FunctionError    a function of the user's own cannot be imported
├── TrackerError     an experiment tracker that trials are to be shown in is not installed
├── ResourcesError   the devices or the cluster asked for are not there
├── DiskFullError    a trial cannot be written, because its disk is full: the sweep pauses
├── RemoteError      a fine-tuning server says no
├── ServerAwayError  a fine-tuning server does not answer: the sweep pauses
└── ExportError      the configuration cannot be exported as asked
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from finesweep.spec.faults import Fault


class FinesweepError(Exception):
    """Say what is wrong, where, and the way out."""


class SpecError(FinesweepError):
    """Carry all faults of a study and sweep file together."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(str(fault) for fault in self.faults))


class SweepNameError(FinesweepError):
    pass


class SweepHeldError(FinesweepError):
    pass


class DriveError(FinesweepError):
    """Its cause is the error that ended the drive."""

    def __init__(self, sweep: str, error: FinesweepError) -> None:
        self.sweep = sweep
        super().__init__(str(error))


class ResultsError(FinesweepError):
    pass


class DataError(FinesweepError):
    pass


class ModelError(FinesweepError):
    pass


class EvaluationError(FinesweepError):
    pass


class FunctionError(FinesweepError):
    pass


class TrackerError(FinesweepError):
    pass


class ResourcesError(FinesweepError):
    pass


class DiskFullError(FinesweepError):
    pass


class ExportError(FinesweepError):
    pass


def first_line(error: Exception) -> str:
    """Return what a library said, without the pages that may follow."""
    return str(error).strip().split("\n")[0]


class RemoteError(FinesweepError):
    """Its `code` is the server's own word for what is wrong, `status` that of its answer, if it has them."""

    def __init__(self, message: str, code: str | None = None, status: int | None = None) -> None:
        self.code, self.status = code, status
        super().__init__(message)


class ServerAwayError(FinesweepError):
    pass
