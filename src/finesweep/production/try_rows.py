"""Rows that a model is tried on: of a file as sweeps read them, or of stdin; labels are not asked for.

In: a path, which columns. Out: texts, pairs or chats, in the order of the rows.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import datasets

from finesweep.errors import DataError
from finesweep.training.files import no_column, no_rows, open_file, show

STDIN = "-"


@dataclass(frozen=True, slots=True)
class Tried:
    """Columns by key: text and perhaps text_pair, prompt, or messages."""

    where: str
    columns: Mapping[str, Sequence[Any]]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))


def read_tried(path: str, columns: Mapping[str, str], *, stdin: BinaryIO) -> Tried:
    """Read the rows of a file, or JSON lines of stdin; every line of a .txt file is a row. Raises DataError."""
    with tempfile.TemporaryDirectory() as scratch:
        if path == STDIN:
            file, where = Path(scratch) / "stdin.jsonl", "stdin"
            file.write_bytes(stdin.read())
        else:
            file, where = Path(path), path
        if file.suffix == ".txt":
            return _lines(file, where, columns)
        table = open_file(file, where=where, text_column=next(iter(columns.values())), scratch_dir=Path(scratch))
        return Tried(where, {key: _column(table, column, key, where) for key, column in columns.items()})


def _lines(file: Path, where: str, columns: Mapping[str, str]) -> Tried:
    key = next(iter(columns))
    if len(columns) > 1 or key == "messages":
        raise DataError(f"{where}: a line of text is no row of {' and '.join(columns)}. Give a file with columns.")
    try:
        lines = [line for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except OSError as error:
        raise DataError(f"{where} cannot be read ({error.strerror}). Correct the path.") from error
    except UnicodeDecodeError:
        raise DataError(f"{where} is no UTF-8 text. Save it as UTF-8.") from None
    if not lines:
        raise no_rows(where)
    return Tried(where, {key: lines})


def _column(table: datasets.Dataset, column: str, key: str, where: str) -> Sequence[Any]:
    if column not in table.column_names:
        raise no_column(where, column, table.column_names, way_out="Name the one to read with --text.")
    values: Sequence[Any] = table[column][:]
    for number, value in enumerate(values, start=1):
        if key == "messages":
            if not isinstance(value, list) or not value:
                raise DataError(
                    f'{where}, row {number}, column "{column}" holds {show(value)}, not a list of messages.'
                )
        elif not isinstance(value, str) or not value.strip():
            raise DataError(f'{where}, row {number}, column "{column}" holds {show(value)}, no text. Mend the row.')
    return values
