"""Samples of what a trial's model wrote, as its trainer kept them: those of one report, for people and for --json.

In: a trial, the file that its layout names. Out: rows, and text.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from finesweep.errors import ResultsError
from finesweep.layout import samples_path
from finesweep.results.frames import Results

_PARTS = ("prompt", "reference", "output")
_INDENT = " " * (max(map(len, _PARTS)) + 2)


def read_samples(known: Results, sweep: str, number: int, *, step: int | None = None) -> list[dict[str, Any]]:
    """Return the samples of a trial at a step, or where its value comes from, or of its last report.

    Where one evaluation stands for several steps, its samples are those of each. Raises ResultsError if there are none.
    """
    trial = known.trial(sweep, number)
    of = number if trial.reused_from is None else trial.reused_from
    path = samples_path(known.artifact_dir(sweep), of)
    by_key = {(row["step"], row["row"]): row for row in _rows(path)}  # what was told again stands in the last place
    steps = sorted({at for at, _ in by_key})
    if not steps:
        raise ResultsError(
            f"trial {sweep}:{number} has no samples: {path} is not there or empty. They are kept at each report of a "
            "sweep with evaluation.generation."
        )
    wanted = next(at for at in (step, trial.value_step, steps[-1]) if at is not None)
    before = [at for at in steps if at <= wanted]
    if not before:
        listed = ", ".join(map(str, steps))
        raise ResultsError(f"trial {sweep}:{number} has no samples at step {wanted}. It has those of steps {listed}.")
    return [by_key[key] for key in sorted(by_key) if key[0] == before[-1]]


def samples_text(rows: Sequence[dict[str, Any]]) -> str:
    """Write samples one below the other, without whatever a terminal would obey."""
    blocks = [f"step {rows[0]['step']:,}"]
    blocks += ["\n".join(_part(name, row[name]) for name in _PARTS) for row in rows]
    return "\n\n".join(blocks)


def _rows(path: Path) -> list[dict[str, Any]]:
    """Read the lines of the file. A line that a killed worker left half written is no sample."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


def _part(name: str, text: str) -> str:
    shown = "".join(letter if letter.isprintable() or letter == "\n" else " " for letter in text)
    head = f"{name}:".ljust(len(_INDENT))
    return (head + textwrap.indent(shown, _INDENT).removeprefix(_INDENT)).rstrip()
