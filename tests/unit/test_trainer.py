"""How an exception of a trainer becomes the ending of its attempt."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from finesweep.errors import DiskFullError
from finesweep.events import AttemptResult, Ending
from finesweep.trainer import failed_by, naming_disk

FULL = OSError(errno.ENOSPC, "No space left on device", "/data/x")


def ending_of(error: BaseException, *, cause: BaseException | None = None) -> AttemptResult:
    try:
        raise error from cause
    except BaseException as raised:
        return failed_by(raised)


@pytest.mark.parametrize(
    "error",
    [
        FULL,
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        Exception("Error while serializing: I/O error: No space left on device (os error 28)"),  # safetensors
        RuntimeError("database or disk is full"),
        DiskFullError("no space left on the disk of /data"),
    ],
)
def test_a_full_disk_blocks_and_fails_nothing(error: Exception) -> None:
    result = ending_of(error)
    assert result.ending is Ending.BLOCKED
    assert result.reason is not None and result.reason.endswith("Free some, then resume")
    assert result.traceback is not None


def test_a_full_disk_is_found_behind_what_was_made_of_it() -> None:
    result = ending_of(RuntimeError("the model could not be saved"), cause=FULL)
    assert result.ending is Ending.BLOCKED


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EACCES, "Permission denied"),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"),
        ValueError("no"),
    ],
)
def test_other_faults_are_failures(tmp_path: Path, error: Exception) -> None:
    """torch's words among them, where there is room on the disk."""
    assert ending_of(error).ending is Ending.FAILED
    with pytest.raises(type(error)), naming_disk(tmp_path):
        raise error


def test_the_disk_is_named_where_it_is_known(tmp_path: Path) -> None:
    said = rf"no space left on the disk of {tmp_path} \([\d.]+ MiB free\)"
    with pytest.raises(DiskFullError, match=said), naming_disk(tmp_path):
        raise FULL


def test_another_disk_is_not_mistaken_for_it(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="/data/x"), naming_disk(tmp_path, writes_elsewhere=True):
        raise FULL
