"""`--set key.path=value`: changes to a sweep's values from the command line, before they are checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from finesweep.spec.faults import Fault, KeyPath, dotted, unknown
from finesweep.spec.yaml_tree import read_value

FILE = "--set"  # stands where a fault's file would

# Sections that may be left out of a file, so that an override may be the first to enter them.
_OPTIONAL_SECTIONS: frozenset[KeyPath] = frozenset(
    (*path.split("."),)
    for path in (
        *("training", "resources", "artifacts", "study.sampler", "study.pruner", "data", "budget", "study"),
        *("evaluation", "evaluation.metrics", "evaluation.generation", "evaluation.generation.scorers"),
    )
)

# Sections for which a file may give one of their keys alone.
_SHORT: Mapping[KeyPath, str] = {("model",): "name"}


@dataclass(frozen=True, slots=True)
class Override:
    key: str
    value: Any


def parse_overrides(texts: Sequence[str]) -> tuple[list[Override], list[Fault]]:
    """Split `key.path=value`; the value is read as in a file."""
    overrides: list[Override] = []
    faults: list[Fault] = []
    for text in texts:
        key, equals, value = text.partition("=")
        key = key.strip()
        if not equals or not all(key.split(".")):
            faults.append(Fault(FILE, None, key, "write it as key.path=value, as in --set training.seed=1."))
            continue
        try:
            overrides.append(Override(key, read_value(value)))
        except ValueError as error:
            faults.append(Fault(FILE, None, key, str(error)))
    return overrides, faults


def apply_override(values: dict[str, Any], override: Override) -> KeyPath | Fault:
    """Set one value in place and return its key path; a way to it that does not exist is a fault."""
    here: Any = values
    path: list[str | int] = []
    *way, last = override.key.split(".")
    for part in way:
        step = _step(here, part, tuple(path))
        if isinstance(step, Fault):
            return step
        path.append(step)
        if isinstance(here, dict) and here.get(str(step)) is None:
            here[str(step)] = {}
        if tuple(path) in _SHORT and isinstance(here[step], str):
            here[step] = {_SHORT[tuple(path)]: here[step]}
        here = here[step]
    if isinstance(here, dict):
        here[last] = override.value
        return (*path, last)
    step = _step(here, last, tuple(path))
    if isinstance(step, Fault):
        return step
    here[step] = override.value
    return (*path, step)


def _step(here: Any, part: str, path: KeyPath) -> str | int | Fault:
    """Find the key or index that a word of an override means."""
    at = (*path, part)
    if isinstance(here, list):
        if part.isascii() and part.isdigit() and len(part) < 10 and int(part) < len(here):
            return int(part)
        return Fault(FILE, None, dotted(at), f"this is a list of {len(here)}; give a number from 0 below that.")
    if not isinstance(here, dict):
        return Fault(FILE, None, dotted(at), f"{dotted(path)} is a single value and has no keys. Set it as a whole.")
    if here.get(part) is not None or at in _OPTIONAL_SECTIONS:
        return part
    return Fault(FILE, None, dotted(at), unknown("key", part, {str(key) for key in here}))
