"""Rules within the data section.

In: the section, paths made absolute. Out: findings by key path. What is in the files is looked at when they are loaded.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from finesweep.spec.faults import Finding
from finesweep.spec.sweep import DataSpec, Task


def data_faults(data: DataSpec, task: Task | None) -> Iterator[Finding]:
    yield from _source_faults(data)
    yield from _share_faults(data)
    if task is not None and (task != "causal-lm" or data.format != "text"):
        yield from _text_file_faults(data)


def _source_faults(data: DataSpec) -> Iterator[Finding]:
    for key in ("config", "revision"):
        if getattr(data, key) is None:
            continue
        if data.dataset is None:
            message = f"{key} is one of a data set of the hub. Name that as data.dataset, or remove this."
            yield Finding(("data", key), message)
        elif Path(data.dataset).is_absolute():
            message = f"{data.dataset} is a folder: only a data set of the hub has a {key}. Remove this."
            yield Finding(("data", key), message)


def _share_faults(data: DataSpec) -> Iterator[Finding]:
    if isinstance(data.validation, float) and isinstance(data.test, float) and data.validation + data.test >= 1:
        message = f"validation ({data.validation:g}) and test ({data.test:g}) leave no rows to train on. Lower them."
        yield Finding(("data", "test"), message)


def _text_file_faults(data: DataSpec) -> Iterator[Finding]:
    for split in ("train", "validation", "test"):
        value = getattr(data, split)
        if data.dataset is None and isinstance(value, str) and value.endswith(".txt"):
            message = "plain text has no columns. Use task causal-lm with data.format text, or a file with columns."
            yield Finding(("data", split), message)
