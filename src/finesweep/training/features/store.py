"""Stored features on disk: `<root>/<key>/`, with a raw file of numbers for each split, mapped into memory.

In: what is to be stored, and a function that computes it. Out: tensors. Folders appear whole or not at all; two
processes that want the same one build it once. It must not know models.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from filelock import FileLock

from finesweep.training.features.room import USED, NoRoomError, make_room
from finesweep.training.whole_folder import write_whole

_META = "meta.json"


@dataclass(frozen=True, slots=True)
class Plan:
    """What a store holds, known before any of it is computed."""

    dtype: torch.dtype
    width: int
    n_vectors: Mapping[str, int]  # of each split: its rows, or all their tokens

    @property
    def n_bytes(self) -> int:
        return sum(self.bytes_of(split) for split in self.n_vectors)

    def bytes_of(self, split: str) -> int:
        n_bytes: int = self.n_vectors[split] * self.width * self.dtype.itemsize
        return n_bytes

    @property
    def meta(self) -> dict[str, object]:
        return {"dtype": str(self.dtype), "width": self.width, "n_vectors": dict(self.n_vectors)}


@dataclass(frozen=True, slots=True)
class Writer:
    """Writes vectors to their places in the files of a store that is being built."""

    folder: Path
    plan: Plan

    def put(self, split: str, first: int, vectors: torch.Tensor) -> None:
        """Write vectors: (n, width) to places `first` and on."""
        assert vectors.dtype == self.plan.dtype, "as planned"
        data = vectors.contiguous().cpu().view(torch.uint8).numpy()
        with (self.folder / f"{split}.bin").open("r+b") as file:
            file.seek(first * self.plan.width * self.plan.dtype.itemsize)
            file.write(data)


@dataclass(frozen=True, slots=True)
class Opened:
    vectors: Mapping[str, torch.Tensor]  # split -> (n, width), read from disk as they are looked at
    seconds: float  # that building, or waiting for another process to build, took; 0 where it was there


@dataclass(frozen=True, slots=True)
class FeatureStore:
    """All stored features of a user, as much as the quota allows."""

    root: Path
    quota_bytes: int

    def open_or_build(self, key: str, plan: Plan, compute: Callable[[Writer], None]) -> Opened:
        """Map a store, building it first if need be. Raises NoRoomError where quota or disk do not hold it."""
        if (vectors := self._open(key, plan)) is not None:
            return Opened(vectors, 0.0)
        began_s = time.perf_counter()
        self.root.mkdir(parents=True, exist_ok=True)
        with FileLock(self.root / f"{key}.lock"):
            vectors = self._open(key, plan)
            if vectors is None:
                self._build(key, plan, compute)
                vectors = self._open(key, plan)
        if vectors is None:
            raise NoRoomError(
                "others took its place at once: resources.feature_cache_gib is too small for all that is used"
            )
        return Opened(vectors, time.perf_counter() - began_s)

    def touch(self, key: str) -> None:
        """Note that a store is in use. One that is gone meanwhile stays readable to those who have mapped it."""
        with contextlib.suppress(OSError):  # gone, or another user's
            now = time.time_ns()  # the system's own stamps are some milliseconds coarse
            os.utime(self.root / key / USED, ns=(now, now))

    def _build(self, key: str, plan: Plan, compute: Callable[[Writer], None]) -> None:
        def fill(folder: Path) -> None:
            shutil.rmtree(self.root / key, ignore_errors=True)  # a damaged one
            with FileLock(self.root / ".room.lock"):
                make_room(self.root, plan.n_bytes, quota_bytes=self.quota_bytes, building=folder)
                for split in plan.n_vectors:  # at full length at once: it counts from now on
                    with (folder / f"{split}.bin").open("wb") as file:
                        file.truncate(plan.bytes_of(split))
            (folder / USED).touch()
            compute(Writer(folder, plan))
            (folder / _META).write_text(json.dumps(plan.meta), encoding="utf-8")

        write_whole(self.root / key, fill)

    def _open(self, key: str, plan: Plan) -> dict[str, torch.Tensor] | None:
        """Map a store; None where there is none, or it is not what was planned: damaged, cut short."""
        folder = self.root / key
        try:
            meta = json.loads((folder / _META).read_text(encoding="utf-8"))
            sizes = {split: (folder / f"{split}.bin").stat().st_size for split in plan.n_vectors}
            if meta != plan.meta or sizes != {split: plan.bytes_of(split) for split in plan.n_vectors}:
                return None
            vectors = {split: self._map(folder / f"{split}.bin", plan, n) for split, n in plan.n_vectors.items()}
        except (OSError, ValueError, RuntimeError):  # the last: torch's, of a file that went away
            return None
        self.touch(key)
        return vectors

    def _map(self, path: Path, plan: Plan, n: int) -> torch.Tensor:
        shape = (n, plan.width)
        return torch.from_file(str(path), shared=False, size=math.prod(shape), dtype=plan.dtype).view(shape)
