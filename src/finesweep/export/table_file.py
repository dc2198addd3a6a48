"""A frame as a file for other tools, its kind told by the ending: .csv, .json, .parquet, .md, .html."""

from __future__ import annotations

import json
from html import escape
from io import BytesIO
from pathlib import Path

import pandas as pd

from finesweep.errors import ExportError
from finesweep.export.whole_file import write_whole
from finesweep.results.columns import json_rows


def export_table(frame: pd.DataFrame, path: Path, *, force: bool = False) -> None:
    """Write a frame to `path`, whole. Raises ExportError for an unknown ending or, if not forced, an existing file."""
    kinds = {".csv": _csv, ".json": _json, ".parquet": _parquet, ".md": _markdown, ".html": _html}
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


def _html(frame: pd.DataFrame) -> bytes:
    """Write a page of its own that needs nothing else; everything in it is text, whatever it looks like."""
    is_number = [pd.api.types.is_numeric_dtype(frame[name]) for name in frame.columns]
    head = "".join(f"<th>{escape(str(name))}</th>" for name in frame.columns)
    rows = "\n".join(
        "<tr>"
        + "".join(
            f"<td{' class=n' if number else ''}>{escape(_text(value))}</td>"
            for value, number in zip(row.values(), is_number, strict=True)
        )
        + "</tr>"
        for row in json_rows(frame)
    )
    page = f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Trials</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body {{ font: 14px/1.4 system-ui, sans-serif; margin: 1rem; color-scheme: light dark; }}
table {{ border-collapse: collapse; }}
th, td {{ padding: .2rem .6rem; border-bottom: 1px solid #8884; text-align: left; white-space: nowrap; }}
.n {{ text-align: right; font-variant-numeric: tabular-nums; }}
</style>
<table>
<thead><tr>{head}</tr></thead>
<tbody>
{rows}
</tbody>
</table>
"""
    return page.encode()


def _cell(value: object) -> str:
    return " ".join(_text(value).replace("|", "\\|").split())


def _text(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
