"""Read the rows of all splits of a sweep: checked, shares set aside, limits kept.

In: what has data and a task. Out: rows by split, and notes. It must not know models or tokens.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from finesweep.spec.sweep import DataSpec, Task, columns_of
from finesweep.training.rows import Rows, read_rows
from finesweep.training.sources import Source
from finesweep.training.splits import limit, set_aside

SPLITS = ("train", "validation", "test")


class HasRows(Protocol):
    """A sweep whose rows are read here."""

    @property
    def data(self) -> DataSpec: ...

    @property
    def task(self) -> Task: ...


def read_splits(spec: HasRows, source: Source, *, scratch_dir: Path) -> tuple[dict[str, Rows], list[str]]:
    """Read and check the rows of all splits, set aside those that are shares, and keep to the limits."""
    data, task = spec.data, spec.task
    splits, notes = {}, []
    shares = {split: value for split, value in given_splits(spec).items() if isinstance(value, float)}
    for split in (split for split in given_splits(spec) if split not in shares):
        splits[split], said = read_rows(source.table(split, scratch_dir=scratch_dir), data, task)
        notes += [f"{split}: {note}" for note in said]
    if shares:
        parts, said = set_aside(splits["train"], shares, seed=data.seed, task=task)
        splits |= parts
        notes += said
    if not is_packed(spec):  # which is limited in blocks
        for split, most in (("train", data.max_train_rows), ("validation", data.max_validation_rows)):
            splits[split] = limit(splits[split], most, seed=data.seed, task=task)
    return {split: splits[split] for split in SPLITS if split in splits}, notes


def fingerprint_rows(spec: HasRows, source: Source) -> tuple[str, str | float | None]:
    """Give what the rows that trials see are recognised by, whoever trains on them; and the same of test rows."""
    data, task = spec.data, spec.task
    chosen = [task, *columns_of(data, task).values(), data.max_train_rows, data.max_validation_rows, data.seed]
    contents = [
        value if isinstance(value, float) else source.digest(split) for split, value in given_splits(spec).items()
    ]
    test = contents.pop() if "test" in given_splits(spec) else None
    others = [
        data.format if task == "causal-lm" and data.format != "prompt-completion" else None,
        data.incomplete if data.incomplete != "refuse" else None,
        test if isinstance(test, float) else None,  # a split of its own changes nothing for the others
    ]
    return digest_of([*chosen, *contents, *([others] if any(others) else [])]), test


def digest_of(parts: Sequence[Any]) -> str:
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=12).hexdigest()


def given_splits(spec: HasRows) -> dict[str, str | float]:
    """Return what the sweep says of each split: what it is called, or its share of the training rows."""
    values = {split: getattr(spec.data, split) for split in SPLITS}
    return {split: value for split, value in values.items() if value is not None}


def is_packed(spec: HasRows) -> bool:
    return spec.task == "causal-lm" and spec.data.format == "text"
