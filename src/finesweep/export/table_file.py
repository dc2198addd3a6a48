"""A frame as a file for other tools, its kind told by the ending: .csv, .json, .parquet, .md."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path

import pandas as pd

from finesweep.errors import ExportError
from finesweep.export.whole_file import write_whole
from finesweep.results.columns import json_rows


def export_table(frame: pd.DataFrame, path: Path, *, force: bool = False) -> None:
    """Write a frame to `path`, whole. Raises ExportError for an unknown ending or, if not forced, an existing file."""
    kinds = {".csv": _csv, ".json": _json, ".parquet": _parquet, ".md": _markdown}
    if path.suffix.lower() not in kinds:
        raise ExportError(f"{path}: ending {path.suffix!r} is unknown. Known: {', '.join(kinds)}.")
    write_whole(path, kinds[path.suffix.lower()](frame), force=force)


def _csv(frame: pd.DataFrame) -> bytes:
    return frame.to_csv(index=False).encode()


def _json(frame: pd.DataFrame) -> bytes:
    return f"{json.dumps(json_rows(frame), indent=2, ensure_ascii=False)}\n".encode()


def _parquet(frame: pd.DataFrame) -> bytes:
    content = BytesIO()
    frame.to_parquet(content, index=False)
    return content.getvalue()


def _markdown(frame: pd.DataFrame) -> bytes:
    header = [str(name) for name in frame.columns]
    rule = ["---:" if pd.api.types.is_numeric_dtype(frame[name]) else "---" for name in frame.columns]
    rows = [[_cell(value) for value in row.values()] for row in json_rows(frame)]
    return "".join(f"| {' | '.join(row)} |\n" for row in (header, rule, *rows)).encode()


def _cell(value: object) -> str:
    if value is None:
        return ""
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return " ".join(text.replace("|", "\\|").split())
