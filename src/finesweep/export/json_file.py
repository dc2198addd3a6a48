"""The record of a trial as one JSON file. Numbers that JSON cannot hold are written as text: "nan", "inf"."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from finesweep.export.record import ExportRecord
from finesweep.export.whole_file import write_whole

FORMAT = 1  # of the file; raised when a key changes its meaning


def export_json(record: ExportRecord, path: Path, *, force: bool = False) -> None:
    """Write the record to `path`, whole. Raises ExportError if a file is there, unless forced."""
    write_whole(path, export_text(record).encode(), force=force)


def export_text(record: ExportRecord) -> str:
    """Write the record as the text of the file."""
    content = {"finesweep_export": FORMAT, **asdict(record)}
    return json.dumps(_plain(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    match value:
        case float() if not math.isfinite(value):
            return str(value)
        case Mapping():
            return {key: _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case _:
            return value
