"""How a table looks: aligned plain text for pipes and files, a rich table on a terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from finesweep.views.tables import Column, Table

MOST_DECIMALS = 4
MOST_DRAWN = 500  # rows: rich takes a millisecond for each
COUNTS = (1e4, 1e15)  # whole numbers whose largest lies between these count something, such as parameters
_BLOCKS = "▁▂▃▄▅▆▇█"
_STYLES = {"COMPLETE": "green", "PRUNED": "yellow", "FAILED": "red", "RUNNING": "cyan", "FINISHED": "green"}


def show(table: Table, console: Console) -> None:
    """Print a table: with lines and colours on a terminal, as plain text elsewhere and where it has very many rows."""
    if not console.is_terminal or len(table.rows) > MOST_DRAWN:
        console.file.write(f"{plain_text(table)}\n")
        return
    console.print(rich_table(table))


def rich_table(table: Table) -> RichTable:
    """Make what a terminal shows."""
    shown = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
    columns, cells = shown_cells(table)
    for column in columns:
        shown.add_column(Text(column.header), justify="left" if is_left(column) else "right")
    for row in zip(*cells, strict=True):
        shown.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    return shown


def plain_text(table: Table) -> str:
    """Write a table as aligned lines: a header, then the rows. No colours, no lines, no trailing blanks."""
    columns, cells = shown_cells(table)
    aligned = [_aligned(column, [column.header, *texts]) for column, texts in zip(columns, cells, strict=True)]
    return "\n".join("  ".join(row).rstrip() for row in zip(*aligned, strict=True))


def html_table(table: Table) -> str:
    """Write a table as HTML, for a notebook; whatever it holds is text."""
    columns, cells = shown_cells(table)
    sides = ["left" if is_left(column) else "right" for column in columns]
    head = "".join(f'<th style="text-align: {s}">{escape(c.header)}</th>' for c, s in zip(columns, sides, strict=True))
    rows = (
        "".join(f'<td style="text-align: {s}">{escape(cell)}</td>' for cell, s in zip(row, sides, strict=True))
        for row in zip(*cells, strict=True)
    )
    body = "".join(f"<tr>{row}</tr>\n" for row in rows)
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>"


def number_texts(values: Sequence[Any]) -> list[str]:
    """Write the numbers of a column alike, so that they align: as many decimals as needed, at most four.

    A column with values below 1e-4, all below 0.01, or from 1e7 on is written like 3.2e-05; large counts in full.
    """
    floats = [value for value in values if isinstance(value, float)]
    if floats and COUNTS[0] <= max(map(abs, floats)) < COUNTS[1] and all(value.is_integer() for value in floats):
        return [f"{value:.0f}" if isinstance(value, float) else _text(value) for value in values]
    sizes = [abs(value) for value in floats if value]
    if sizes and (min(sizes) < 1e-4 or max(sizes) < 1e-2 or max(sizes) >= 1e7):
        return [_text(value) if not isinstance(value, float) else f"{value:.1e}" if value else "0" for value in values]
    decimals = next(
        (n for n in range(MOST_DECIMALS) if all(round(value, n) == round(value, MOST_DECIMALS) for value in floats)),
        MOST_DECIMALS,
    )
    return [f"{value:.{max(decimals, 1)}f}" if isinstance(value, float) else _text(value) for value in values]


def sparkline(values: Sequence[float], width: int) -> str:
    """Draw a curve in so many characters at most, from its lowest value to its highest; gaps where it is not finite."""
    if len(values) > width:
        values = [values[round(place * (len(values) - 1) / (width - 1))] for place in range(width)]
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return ""
    low, high = min(finite), max(finite)
    scale = (len(_BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BLOCKS[round((value - low) * scale)] if math.isfinite(value) else " " for value in values)


def duration_text(seconds: float | None) -> str:
    """Write a duration: 12.3s, 3m05s, 2h04m."""
    if seconds is None:
        return ""
    if seconds < 59.95:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest:02d}s" if minutes < 60 else f"{minutes // 60}h{minutes % 60:02d}m"


def bytes_text(n_bytes: float) -> str:
    """Write a size: 980 B, 12.3 KiB, 4.5 GiB."""
    if n_bytes < 1000:
        return f"{n_bytes:.0f} B"
    for unit in ("KiB", "MiB", "GiB"):
        n_bytes /= 1024
        if n_bytes < 1000:
            return f"{n_bytes:.1f} {unit}"
    return f"{n_bytes / 1024:.1f} TiB"


def shown_cells(table: Table) -> tuple[list[Column], list[list[str]]]:
    """Give the columns that people are shown, and of each its cells as text."""
    columns, cells = [], []
    for column in (column for column in table.columns if column.is_printed):
        values = [row[column.key] for row in table.rows]
        if not column.hidden_if_empty or any(value is not None for value in values):
            columns.append(column)
            cells.append(_texts(column, values))
    return columns, cells


def _texts(column: Column, values: Sequence[Any]) -> list[str]:
    match column.kind:
        case "duration":
            return [duration_text(value) for value in values]
        case "bytes":
            return ["" if value is None else bytes_text(value) for value in values]
        case "number":
            return number_texts(values)
        case "mark":
            return ["*" if value else "" for value in values]
        case "text":
            return [_text(value) for value in values]


def _text(value: Any) -> str:
    """Write a value on one line, without whatever a terminal would obey."""
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case _:
            return "".join(letter if letter.isprintable() else " " for letter in str(value))


def _aligned(column: Column, texts: Sequence[str]) -> list[str]:
    width = max(map(cell_len, texts))
    blanks = [" " * (width - cell_len(text)) for text in texts]
    if is_left(column):
        return [text + blank for text, blank in zip(texts, blanks, strict=True)]
    return [blank + text for text, blank in zip(texts, blanks, strict=True)]


def is_left(column: Column) -> bool:
    """Tell whether a column is text, and not numbers that align at the right."""
    return column.kind in ("text", "mark")
