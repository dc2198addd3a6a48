"""What the trials of a sweep hold on disk, as a table and as a few words. Measures files; removes nothing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from finesweep.holdings import Holding
from finesweep.layout import PartKind, loose_size, size_of
from finesweep.views.printing import bytes_text
from finesweep.views.tables import Column, Table

_BYTES = ("weights_bytes", "checkpoint_bytes", "other_bytes", "log_bytes", "free_bytes")
_COLUMN_OF = {PartKind.WEIGHTS: "weights_bytes", PartKind.CHECKPOINT: "checkpoint_bytes"}


def holdings_table(holdings: Iterable[Holding]) -> Table:
    """List the trials that hold something besides their logs, in the order of their numbers."""
    columns = (
        Column("number", "trial"),
        Column("state", "state", "text"),
        Column("weights_bytes", "weights", "bytes"),
        Column("checkpoint_bytes", "checkpoints", "bytes"),
        Column("other_bytes", "other", "bytes", hidden_if_empty=True),  # half-written, of a trainer of one's own
        Column("log_bytes", "logs", "bytes"),
        Column("free_bytes", "may go", "bytes", hidden_if_empty=True),
        Column("why", "because", "text", hidden_if_empty=True),
    )
    return Table(columns, tuple(_row(holding) for holding in holdings if holding.parts))


def stock_text(table: Table, *, keep: str, quota_bytes: int | None, unknown_bytes: int) -> str:
    """Say what all of it comes to, what is allowed, and what may go."""
    sums = totals(table)
    held = sums["weights_bytes"] + sums["checkpoint_bytes"] + sums["other_bytes"]
    quota = "no quota" if quota_bytes is None else f"a quota of {bytes_text(quota_bytes)}"
    who = "1 trial holds" if len(table.rows) == 1 else f"{len(table.rows)} trials hold"
    lines = [f"{who} {bytes_text(held)}; keep: {keep}, {quota}."]
    if unknown_bytes:
        lines.append(f"{bytes_text(unknown_bytes)} are set aside: of trials that the database does not know.")
    return "\n".join(lines)


def totals(table: Table) -> dict[str, int]:
    """Add up each column of bytes."""
    return {key: sum(row[key] or 0 for row in table.rows) for key in _BYTES}


def _row(holding: Holding) -> dict[str, Any]:
    row: dict[str, Any] = {
        "number": holding.number,
        "state": None if holding.trial is None else str(holding.trial.state),
        **dict.fromkeys(_BYTES),
        "log_bytes": loose_size(holding.path),
        "why": "; ".join(dict.fromkeys(held.why_free for held in holding.parts if held.why_free)) or None,
    }
    for held in holding.parts:
        n_bytes = size_of(held.part.path)
        for key in (_COLUMN_OF.get(held.part.kind, "other_bytes"), *(["free_bytes"] if held.why_free else [])):
            row[key] = (row[key] or 0) + n_bytes
    return row
