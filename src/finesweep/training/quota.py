"""What the weights and checkpoints of a sweep may take on disk: room is reserved before anything is written.

In: a folder about to be filled, the bytes it will take at most. Out: a reservation that counts from then on, or
NoRoomError. Safe between workers that write at once. It must not know what is in the folders.

Counted are the parts of all trials (see `layout`), at the length of their files; a trial's log and samples are not:
they are small, and outlive its weights.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from finesweep.layout import RESERVED, parts_of, size_of, trial_dirs

SLACK_BYTES = 2**16  # for what is written beside tensors: configurations, random states, manifests
_TENSOR_BYTES = 2**10  # for what a file says of each tensor in it
_GIB = 2**30


class NoRoomError(Exception):
    """The quota does not hold what was to be written."""


def reserve(artifact_dir: Path, folder: Path, n_bytes: int, *, quota_bytes: int, removable: Sequence[Path]) -> None:
    """Reserve room for a half-written folder, removing what may go, in that order, as far as it must.

    Raises NoRoomError, and removes nothing, where even that is not enough.
    """
    with FileLock(artifact_dir / ".room.lock"):
        trials = trial_dirs(artifact_dir).values()
        sizes = {part.path: size_of(part.path) for trial in trials for part in parts_of(trial)}
        sizes.pop(folder, None)  # its reservation replaces what it has taken so far
        used = sum(sizes.values())
        if used - sum(sizes.get(path, 0) for path in removable) + n_bytes > quota_bytes:
            raise NoRoomError(
                f"{_gib(n_bytes)} GiB do not fit artifacts.quota_gib ({_gib(quota_bytes)}, {_gib(used)} of it used)"
            )
        for path in removable:
            if used + n_bytes <= quota_bytes:
                break
            shutil.rmtree(path, ignore_errors=True)
            used -= sizes.get(path, 0)
        with (folder / RESERVED).open("wb") as file:
            file.truncate(n_bytes)  # of this length, and empty: the disk gives nothing for it


def settle(artifact_dir: Path, folder: Path, n_bytes: int, *, quota_bytes: int, removable: Sequence[Path]) -> None:
    """Give back what was reserved for a folder that is filled now; one that became larger has to find more room."""
    (folder / RESERVED).unlink()
    took = size_of(folder)
    if took > n_bytes:
        reserve(artifact_dir, folder, took, quota_bytes=quota_bytes, removable=removable)
        (folder / RESERVED).unlink()


def bytes_to_write(*states: Any) -> int:  # Any: state dicts, as deep as their owners like
    """Tell how many bytes it takes at most to write tensors and what little is said beside them."""
    tensors = {(t.data_ptr(), t.numel(), t.dtype): t for state in states for t in _tensors(state)}
    n_bytes: int = sum(t.numel() * t.element_size() + _TENSOR_BYTES for t in tensors.values())
    return n_bytes + SLACK_BYTES


def _tensors(state: Any) -> Iterator[torch.Tensor]:
    if isinstance(state, torch.Tensor):
        yield state
    elif isinstance(state, Mapping):
        for value in state.values():
            yield from _tensors(value)
    elif isinstance(state, list | tuple):
        for value in state:
            yield from _tensors(value)


def _gib(n_bytes: int) -> str:
    return f"{n_bytes / _GIB:.3g}"
