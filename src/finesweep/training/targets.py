"""What the rows of labelled tasks are to be answered with: class names become numbers, and are held to each other.

In: rows of all splits. Out: the classes in order, and a target for each row.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from finesweep.errors import DataError
from finesweep.spec.sweep import Task
from finesweep.training.files import show
from finesweep.training.rows import Rows

Label = str | int


def classes(splits: Mapping[str, Rows], *, column: str, task: Task) -> list[Label]:
    """Return the classes of the training rows in order; none for other tasks.

    Raises DataError where they cannot be learnt or scored.
    """
    if task == "regression":
        _check_numbers_differ(splits["train"], column)
    if task not in ("classification", "multi-label-classification"):
        return []
    counts = Counter(label for _, label in _labels(splits["train"]))
    kinds = {type(label) for rows in splits.values() for _, label in _labels(rows)}
    if len(kinds) > 1:
        listed = ", ".join(rows.where.partition(": ")[2] for rows in splits.values())
        raise DataError(
            f'column "{column}" holds text in some rows and whole numbers in others ({listed}). Write all labels in '
            "one way."
        )
    _check_they_differ(splits["train"], counts, column=column, task=task)
    for rows in splits.values():
        for number, label in _labels(rows):
            if label not in counts:
                raise DataError(
                    f'{rows.where}, row {number}, column "{column}": the class {show(label)} is in no training row '
                    f"({splits['train'].where}), so it cannot be learnt. Move rows of it there or remove them here."
                )
    names = splits["train"].class_names
    return [name for name in names if name in counts] if names else sorted(counts)


def targets(rows: Rows, classes: Sequence[Label], *, task: Task) -> Sequence[Any]:
    """Return the number of each row's class; of several, one mark for every class; in regression the number itself."""
    if task == "regression":
        return rows.columns["label"]
    numbers = {label: number for number, label in enumerate(classes)}
    if task == "classification":
        return [numbers[label] for label in rows.columns["label"]]
    return [[float(label in given) for label in classes] for given in map(set, rows.columns["label"])]


def _labels(rows: Rows) -> Iterator[tuple[int, Label]]:
    """Yield every label with the number of its row."""
    for number, value in zip(rows.numbers, rows.columns["label"], strict=True):
        yield from ((number, label) for label in (value if isinstance(value, tuple) else (value,)))


def _check_they_differ(train: Rows, counts: Mapping[Label, int], *, column: str, task: Task) -> None:
    way_out = "give more rows or another column as data.label."
    if task == "classification" and len(counts) == 1:
        raise DataError(
            f'{train.where}, column "{column}" has one class only ({next(iter(counts))!r}). A classifier needs at '
            f"least two: {way_out}"
        )
    if task == "multi-label-classification" and len(set(map(frozenset, train.columns["label"]))) == 1:
        raise DataError(
            f'{train.where}, column "{column}": every row has the same labels ({show(train.columns["label"][0])}). '
            f"There is nothing to tell apart: {way_out}"
        )


def _check_numbers_differ(train: Rows, column: str) -> None:
    if len(set(train.columns["label"])) == 1:
        raise DataError(
            f'{train.where}, column "{column}": every row has the number {train.columns["label"][0]:g}. There is '
            "nothing to learn: give more rows or another column as data.label."
        )
