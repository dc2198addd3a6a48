"""Divide rows among training, validation and test, and take fewer of them: by chance, and as the seed says.

In: rows, shares, limits. Out: rows. Rows keep their order, and in classification classes keep their shares.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from finesweep.errors import DataError
from finesweep.spec.sweep import Task
from finesweep.training.files import show
from finesweep.training.rows import Rows


def limit(rows: Rows, most: int | None, *, seed: int, task: Task) -> Rows:
    """Take at most so many rows."""
    if most is None or most >= len(rows):
        return rows
    order = _shuffled(rows, seed=seed, task=task)
    return rows.take(sorted(order[k * len(rows) // most] for k in range(most)))


def set_aside(rows: Rows, shares: Mapping[str, float], *, seed: int, task: Task) -> tuple[dict[str, Rows], list[str]]:
    """Divide rows into train and the splits that get a share; note where a share could not be kept.

    In classification every class gives a row at least to each split. Raises DataError where it has too few for that,
    or where a split would be empty.
    """
    if rows.is_document:
        return _cut_document(rows, shares), []
    wanted = {split: round(share * len(rows)) for split, share in shares.items()}
    for split, n in wanted.items():
        if n == 0:
            raise DataError(
                f"data.{split}: a share of {shares[split]:g} of the {len(rows)} rows of {_place(rows)} rounds to no "
                "row. Raise it, or give a file of its own."
            )
    if sum(wanted.values()) >= len(rows):
        raise DataError(f"{rows.where}: nothing is left to train on of {len(rows)} rows. Lower {_keys(shares)}.")
    taken = _draw(rows, shares, _shuffled(rows, seed=seed, task=task), task)
    held_out = {index for indices in taken.values() for index in indices}
    parts = {"train": rows.take([index for index in range(len(rows)) if index not in held_out])}
    notes = []
    for split, indices in taken.items():
        parts[split] = replace(rows.take(sorted(indices)), where=_where(rows, split, shares))
        if len(indices) != wanted[split]:
            given = f"{len(indices)} rows are {len(indices) / len(rows):.1%} instead of {shares[split]:.1%}"
            notes.append(f"{split}: {given}, because every class gives one at least")
    return parts, notes


def strata(rows: Rows, task: Task) -> Sequence[Any] | None:
    """Return for each row what is to keep its share: its class, of several its rarest; None where all are alike."""
    if task == "classification":
        return rows.columns["label"]
    if task == "multi-label-classification":
        counts = Counter(label for labels in rows.columns["label"] for label in labels)
        return [
            min(labels, key=lambda label: (counts[label], str(label)), default="") for labels in rows.columns["label"]
        ]
    return None


def _shuffled(rows: Rows, *, seed: int, task: Task) -> list[int]:
    """Return the rows in an order of chance, stratum by stratum."""
    order = list(range(len(rows)))
    random.Random(seed).shuffle(order)
    groups = strata(rows, task)
    return order if groups is None else sorted(order, key=lambda i: str(groups[i]))


def _draw(rows: Rows, shares: Mapping[str, float], order: Sequence[int], task: Task) -> dict[str, list[int]]:
    """Let each stratum give what its rows come to: over all strata the roundings cancel out."""
    groups = strata(rows, task)
    taken: dict[str, list[int]] = {split: [] for split in shares}
    start = 0
    while start < len(order):
        end = start + 1
        while end < len(order) and (groups is None or groups[order[end]] == groups[order[start]]):
            end += 1
        members = list(order[start:end])
        numbers = {split: round(share * end) - round(share * start) for split, share in shares.items()}
        if groups is not None:
            numbers = _at_least_one(numbers, members, rows, shares, task)
        for split, number in numbers.items():
            taken[split] += members[:number]
            members = members[number:]
        start = end
    return taken


def _at_least_one(
    numbers: Mapping[str, int], members: Sequence[int], rows: Rows, shares: Mapping[str, float], task: Task
) -> dict[str, int]:
    """Let a class give each split a row, and keep one to train on."""
    if len(members) <= len(numbers):
        if task != "classification":  # of several labels: it is the rarest of these rows, and may be in others
            return dict.fromkeys(numbers, 0)
        places = ", ".join(str(rows.numbers[index]) for index in sorted(members))
        raise DataError(
            f"{rows.where}: the class {show(rows.columns['label'][members[0]])} has too few rows (row {places}) to be "
            f"in training and in what {_keys(shares)} sets aside. Give it more rows, remove it, or give files for the "
            "splits."
        )
    given = {split: max(1, number) for split, number in numbers.items()}
    while sum(given.values()) >= len(members):
        given[max(given, key=lambda split: given[split])] -= 1
    return given


def _cut_document(rows: Rows, shares: Mapping[str, float]) -> dict[str, Rows]:
    """Cut a text at line breaks: the last parts of it are set aside, so that none runs on in another's middle."""
    text = rows.columns["text"][0]
    lines = text.splitlines(keepends=True)
    if len(lines) <= len(shares):
        raise DataError(
            f"{rows.where} has {len(lines)} lines, too few for training and {_keys(shares)}. Give files for the splits."
        )
    ends, length = [], 0
    for line in lines:
        length += len(line)
        ends.append(length)
    parts, end = {}, len(lines)
    for place, (split, share) in enumerate(reversed(list(shares.items()))):
        n_before = len(shares) - place  # splits before this one, each of a line at least
        first = min(end - 1, max(n_before, next(i for i, at in enumerate(ends) if at > ends[end - 1] - share * length)))
        parts[split] = replace(rows, columns={"text": ["".join(lines[first:end])]}, where=_where(rows, split, shares))
        end = first
    return {"train": replace(rows, columns={"text": ["".join(lines[:end])]}), **parts}


def _where(rows: Rows, split: str, shares: Mapping[str, float]) -> str:
    return f"data.{split}: {shares[split]:g} of {_place(rows)}"


def _place(rows: Rows) -> str:
    return rows.where.removeprefix("data.train: ")


def _keys(shares: Mapping[str, float]) -> str:
    return " and ".join(f"data.{split} ({share:g})" for split, share in shares.items())
