"""Stored features on disk: built once, whole or not at all, no more of them than may be."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from finesweep.training.features.room import NoRoomError
from finesweep.training.features.store import FeatureStore, Plan, Writer

PLAN = Plan(torch.float32, width=4, n_vectors={"train": 6, "validation": 2})  # 128 bytes
DEADLINE_S = 60.0

_processes = multiprocessing.get_context("spawn")


def numbers(first: float) -> Callable[[Writer], None]:
    """Return a function that writes numbers from `first` on, row by row."""

    def compute(writer: Writer) -> None:
        for split, n in PLAN.n_vectors.items():
            for row in reversed(range(n)):
                writer.put(split, row, torch.full((1, 4), float(first + row)))

    return compute


def never(writer: Writer) -> None:
    raise AssertionError("it was there")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "features"


def keys(root: Path) -> set[str]:
    return {path.name for path in root.iterdir() if path.is_dir()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_numbers_come_back_as_they_were(root: Path, dtype: torch.dtype) -> None:
    plan = Plan(dtype, width=3, n_vectors={"train": 5})
    expected = torch.randn(5, 3, dtype=torch.float32).to(dtype)

    def compute(writer: Writer) -> None:
        writer.put("train", 2, expected[2:])
        writer.put("train", 0, expected[:2])

    store = FeatureStore(root, quota_bytes=1000)
    built = store.open_or_build("a", plan, compute)
    assert built.seconds > 0
    opened = store.open_or_build("a", plan, never)
    assert opened.seconds == 0
    for vectors in (built.vectors["train"], opened.vectors["train"]):
        assert torch.equal(vectors, expected)
    assert (root / "a" / "train.bin").stat().st_size == plan.n_bytes


def test_what_was_not_used_for_longest_goes_first(root: Path) -> None:
    store = FeatureStore(root, quota_bytes=_size_of_three(root.with_name("measured")))
    for key in "abc":
        store.open_or_build(key, PLAN, numbers(0))
    old = store.open_or_build("b", PLAN, never)
    store.open_or_build("a", PLAN, never)
    assert keys(root) == {"a", "b", "c"}
    store.open_or_build("d", PLAN, numbers(7))
    assert keys(root) == {"a", "b", "d"}
    store.touch("b")
    store.open_or_build("e", PLAN, numbers(7))
    assert keys(root) == {"b", "d", "e"}
    store.open_or_build("f", PLAN, numbers(7))
    store.open_or_build("g", PLAN, numbers(7))
    assert "b" not in keys(root)
    assert old.vectors["train"][5].tolist() == [5.0] * 4  # who has it mapped keeps it


def _size_of_three(root: Path) -> int:
    store = FeatureStore(root, quota_bytes=10**6)
    store.open_or_build("a", PLAN, numbers(0))
    return 3 * sum(path.stat().st_size for path in (root / "a").iterdir())


def test_what_never_fits_removes_nothing(root: Path) -> None:
    FeatureStore(root, quota_bytes=10**6).open_or_build("a", PLAN, numbers(0))
    with pytest.raises(NoRoomError, match=r"more than resources\.feature_cache_gib"):
        FeatureStore(root, quota_bytes=PLAN.n_bytes - 1).open_or_build("b", PLAN, never)
    huge = Plan(torch.float32, width=2**20, n_vectors={"train": 2**28})  # a pebibyte
    with pytest.raises(NoRoomError, match="the disk has"):
        FeatureStore(root, quota_bytes=2**60).open_or_build("c", huge, never)
    assert keys(root) == {"a"}


def test_a_builder_that_fails_leaves_nothing(root: Path) -> None:
    store = FeatureStore(root, quota_bytes=10**6)

    def fail(writer: Writer) -> None:
        numbers(0)(writer)
        raise RuntimeError("on its way")

    with pytest.raises(RuntimeError, match="on its way"):
        store.open_or_build("a", PLAN, fail)
    assert keys(root) == set()
    assert store.open_or_build("a", PLAN, numbers(1)).vectors["train"][0, 0] == 1


def build_slowly(root: Path, first: float, log: Path, barrier: Any) -> None:
    """Run in a process of its own."""

    def compute(writer: Writer) -> None:
        with log.open("a") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(0.5)  # the other one is waiting by then
        numbers(first)(writer)

    barrier.wait(DEADLINE_S)
    opened = FeatureStore(root, quota_bytes=10**6).open_or_build("a", PLAN, compute)
    with log.with_suffix(".sums").open("a") as file:
        file.write(f"{float(opened.vectors['train'].sum())} {opened.seconds > 0}\n")


def test_two_processes_build_once(root: Path, tmp_path: Path) -> None:
    log, barrier = tmp_path / "log", _processes.Barrier(2)
    both = [_processes.Process(target=build_slowly, args=(root, 3.0, log, barrier)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(DEADLINE_S)
    assert [process.exitcode for process in both] == [0, 0]
    assert len(log.read_text().split()) == 1
    assert log.with_suffix(".sums").read_text().splitlines() == [f"{4 * (6 * 3.0 + 15)} True"] * 2


def die_half_way(root: Path, started: Any) -> None:
    """Run in a process of its own, which is killed."""

    def compute(writer: Writer) -> None:
        writer.put("train", 0, torch.full((3, 4), 99.0))
        started.set()
        time.sleep(DEADLINE_S)

    FeatureStore(root, quota_bytes=10**6).open_or_build("a", PLAN, compute)


@pytest.mark.parametrize("next_key", ["a", "b"])
def test_a_killed_builder_leaves_nothing_that_counts(root: Path, next_key: str) -> None:
    started = _processes.Event()
    builder = _processes.Process(target=die_half_way, args=(root, started))
    builder.start()
    assert started.wait(DEADLINE_S)
    unfinished = {path.name for path in root.iterdir() if path.is_dir()}
    assert unfinished == {f".a.{builder.pid}"}
    # as long as it lives, its room is taken, though what it builds is not whole
    with pytest.raises(NoRoomError, match="being built"):
        FeatureStore(root, quota_bytes=int(1.5 * PLAN.n_bytes)).open_or_build("b", PLAN, never)
    assert builder.pid is not None
    os.kill(builder.pid, signal.SIGKILL)
    builder.join(DEADLINE_S)
    opened = FeatureStore(root, quota_bytes=int(1.5 * PLAN.n_bytes)).open_or_build(next_key, PLAN, numbers(1))
    assert opened.vectors["train"][:, 0].tolist() == [1, 2, 3, 4, 5, 6]
    assert keys(root) == {next_key}
