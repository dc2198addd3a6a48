"""Rows of a record in words that several targets share."""

from __future__ import annotations

import re
from pathlib import Path

from finesweep.export.ledger import Ledger

_KINDS = {".arrow": "arrow", ".csv": "csv", ".json": "json", ".jsonl": "json", ".parquet": "parquet", ".txt": "text"}
_PLAIN_SPLIT = re.compile(r"[\w.-]+\Z")


def file_kind(path: str) -> str:
    """Name the loader of `datasets` for a file."""
    return _KINDS[Path(path).suffix]


def is_plain_split(text: str) -> bool:
    """Tell train from train[:1000] and train+extra."""
    return _PLAIN_SPLIT.match(text) is not None


def warn_of_limits(ledger: Ledger) -> None:
    """Say that rows left out of the trial are not left out here."""
    for key in ("max_train_rows", "max_validation_rows"):
        ledger.warn_unless_default(f"data.{key}", f"{ledger.target} takes all rows: the trial saw a choice of them.")
    ledger.warn_unless_default("data.incomplete", f"{ledger.target} does not look for incomplete rows: remove them.")
    ledger.warn_unless_default("data.seed", f"{ledger.target} chooses no rows by it.")
