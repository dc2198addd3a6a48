"""What the columns of a table hold. In: names and values. Out: a profile of each. Knows nothing of tasks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Kind(StrEnum):
    TEXT = "text"
    WHOLE = "whole numbers"
    NUMBER = "numbers"
    LABELS = "lists of labels"
    CHAT = "chats"
    OTHER = "neither text, numbers nor lists of them"


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    kind: Kind
    n_rows: int
    n_distinct: int  # of the values that are there
    n_missing: int  # nothing, or nothing but blanks
    mean_words: float = 0.0  # of text
    n_barred: int = 0  # of text: values that hold a |, as several labels in a CSV cell do
    largest_share: float = 0.0  # of the rows that have the most frequent value
    smallest_share: float = 0.0

    @property
    def is_numbered(self) -> bool:
        """Tell whether the values look like the numbers of rows: all different and whole."""
        return self.kind is Kind.WHOLE and self.n_distinct == self.n_rows > 2

    def __str__(self) -> str:
        words = f", {self.mean_words:.0f} words on average" if self.mean_words >= 1.5 else ""
        different = f", {self.n_distinct} different" if self.kind in (Kind.TEXT, Kind.WHOLE, Kind.NUMBER) else ""
        missing = f", {self.n_missing} missing" if self.n_missing else ""
        return f"{self.name} ({self.kind}{words}{different}{missing})"


def profile(name: str, values: Sequence[Any], *, is_text: bool) -> Column:
    """Look through the values of a column. With `is_text` numbers come as text, as in CSV."""
    there = [value for value in values if not _is_missing(value)]
    kind = _kind(there, is_text=is_text)
    counts = _counts(there)
    return Column(
        name=name,
        kind=kind,
        n_rows=len(values),
        n_distinct=len(counts),
        n_missing=len(values) - len(there),
        mean_words=sum(len(value.split()) for value in there) / len(there) if kind is Kind.TEXT else 0.0,
        n_barred=sum("|" in value for value in there) if kind is Kind.TEXT else 0,
        largest_share=max(counts.values(), default=0) / len(values) if values else 0.0,
        smallest_share=min(counts.values(), default=0) / len(values) if values else 0.0,
    )


def _is_missing(value: Any) -> bool:
    return value is None or value != value or (isinstance(value, str) and not value.strip())  # nan is not itself


def _counts(values: Sequence[Any]) -> Counter[Any]:
    return Counter(value if isinstance(value, str | int | float) else repr(value) for value in values)


def _kind(values: Sequence[Any], *, is_text: bool) -> Kind:
    """Name what all values are."""
    if is_text:
        numbers = [_number(value) for value in values]
        values = values if None in numbers else numbers
    kinds = {_kind_of(value) for value in values}
    if kinds == {Kind.WHOLE, Kind.NUMBER}:
        return Kind.NUMBER
    return kinds.pop() if len(kinds) == 1 else Kind.OTHER


def _kind_of(value: Any) -> Kind:
    match value:
        case bool():
            return Kind.OTHER
        case int():
            return Kind.WHOLE
        case float():
            return Kind.NUMBER
        case str():
            return Kind.TEXT
        case list() if value and all(
            isinstance(turn, Mapping) and {"role", "content"} <= turn.keys() for turn in value
        ):
            return Kind.CHAT
        case list() if all(isinstance(label, str | int) and not isinstance(label, bool) for label in value):
            return Kind.LABELS
    return Kind.OTHER


def _number(text: str) -> int | float | None:
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    return None
