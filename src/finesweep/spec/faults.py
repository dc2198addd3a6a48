"""What is wrong in a file, and what is merely worth knowing: places, messages and the nearest known word."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from finesweep.secrets import hide

KeyPath = tuple[str | int, ...]

_LONGEST_VALUE = 60  # characters of a value that a message repeats
_LONGEST_LOOKED_AT = 5000  # characters of it that are searched for secrets: more than any password has
_CLOSE_ENOUGH = 0.6  # difflib's own cutoff for words that resemble each other
_MOST_KNOWN = 20  # names a message lists; the pass-through settings alone are eighty


@dataclass(frozen=True, slots=True)
class Fault:
    """A rule that a file breaks. The message says the value, the rule and the way out."""

    file: str
    line: int | None  # counts from 1
    key: str  # dotted, from the top of the sweep: "study.parameters.learning_rate.low"; "" is the whole file
    message: str

    def __str__(self) -> str:
        return _located(self.file, self.line, self.key, self.message)


@dataclass(frozen=True, slots=True)
class Note:
    """Something allowed that may not be what was meant."""

    file: str
    line: int | None
    key: str
    message: str

    def __str__(self) -> str:
        return _located(self.file, self.line, self.key, self.message)


@dataclass(frozen=True, slots=True)
class Finding:
    """A fault or note before it is known where in which file its key stands."""

    path: KeyPath
    message: str


def _located(file: str, line: int | None, key: str, message: str) -> str:
    place = file if line is None else f"{file}:{line}"
    return f"{place}: {key}: {message}" if key else f"{place}: {message}"


_Located = TypeVar("_Located", Fault, Note)


def in_order(remarks: Iterable[_Located]) -> tuple[_Located, ...]:
    """Sort by file and line, each remark once."""
    return tuple(sorted(dict.fromkeys(remarks), key=lambda remark: (remark.file, remark.line or 0)))


def dotted(path: KeyPath) -> str:
    """Write a key path as users do: `start_with.0.learning_rate`."""
    return ".".join(str(part) for part in path)


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Find the known word that `word` was probably meant to be."""
    by_lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower()[:100], by_lower, n=1, cutoff=_CLOSE_ENOUGH)
    return by_lower[close[0]] if close else None


def unknown(what: str, word: str, known: Iterable[str], *, verb: str = "is unknown") -> str:
    """Say that a name is not known, which one was probably meant and, while they are few, which there are."""
    names = sorted(set(known))
    meant = nearest(word, names)
    question = f'; did you mean "{meant}"?' if meant is not None else "."
    few = len(names) <= _MOST_KNOWN
    listed = f" Known: {', '.join(names)}." if names and (few or meant is None) else ""
    return f"{what} {show(word)} {verb}{question}{listed}".replace("  ", " ")


def show(value: Any) -> str:
    """Write a value as it would stand in the file, shortened and without what is secret in it."""
    if isinstance(value, str):
        text = json.dumps(hide(value[:_LONGEST_LOOKED_AT]), ensure_ascii=False)
    elif isinstance(value, int | float | bool | None):
        text = json.dumps(value)
    elif isinstance(value, dict):
        text = "a mapping" if value else "an empty mapping"
    else:
        text = "a list" if value else "an empty list"
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 3]}..."
