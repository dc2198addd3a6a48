"""What an exported file is of and what it should come to, in a few sentences: its head, where the format has comments.

In: a record. Out: lines. A verification is read as the record holds it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from finesweep.export.record import ExportRecord


def headline(record: ExportRecord) -> list[str]:
    """Say which trial it is, what it came to and, where it was verified, what it came to over fresh seeds."""
    lines = [f"Trial {record.trial} of the sweep {record.sweep}, which came to {record.metric} {record.value:.6g}."]
    verified = None if record.verification is None else _verified(record.verification)
    return [one_line(line) for line in (lines if verified is None else [*lines, verified])]


def one_line(text: str) -> str:
    """Keep what was told, by a database of whoever made it, from being anything but words in a comment or docstring."""
    return " ".join(text.replace("\\", "/").replace('"', "'").split())


def comment(record: ExportRecord) -> str:
    """Write it as the head of a YAML file."""
    return "".join(f"# {line}\n" for line in headline(record))


def _verified(found: Mapping[str, Any]) -> str | None:
    if not isinstance(found.get("mean"), int | float):
        return None
    seeds = f"{found.get('n', '?')} seeds" if found.get("n") != 1 else "1 seed"
    rows = {"test": " on the test rows, which no trial saw", "validation": " on the validation rows"}
    where = f"{found.get('metric', '')}{rows.get(str(found.get('split')), '')}".strip()
    text = f"Verified over {seeds}: {_mean(found)}"
    baseline = found.get("baseline")
    if isinstance(baseline, Mapping) and isinstance(baseline.get("mean"), int | float):
        text += f", {baseline.get('label', 'baseline')} {_mean(baseline)}"
    return f"{text} ({where})." if where else f"{text}."


def _mean(found: Mapping[str, Any]) -> str:
    """Write a mean with half the width of its interval, to the digits that this leaves."""
    interval = found.get("interval")
    if not interval:
        return f"{found['mean']:.4g}"
    return f"{found['mean']:.4g} ± {(interval[1] - interval[0]) / 2:.2g}"
