"""Read a file of rows, and name the place in it where it is broken.

In: a path. Out: a table in memory. It must not know what the columns mean.
"""

from __future__ import annotations

import csv
import json
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

import datasets
import pyarrow as pa

from finesweep.errors import DataError
from finesweep.spec.inputs import DATA_SUFFIXES

_CSV_ENCODING = "utf-8-sig"  # UTF-8 with or without the mark that Excel puts at its beginning
_NO_ROWS = ("corresponds to no data", "BatchSize must be greater than 0")  # how datasets and pyarrow put it
_ARROW_FILE = b"ARROW1"  # begins the file format; the stream format, which `save_to_disk` writes, begins otherwise
_DEEPEST = 200  # levels of JSON; Arrow itself takes 64, and reads on its stack what is deeper
_NULL_ROW = re.compile(rb"(?:\A|\n)[ \t\r]*null[ \t\r]*(?=\n|\Z)")
_JSON_TEXT = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
_MOST_COLUMNS = 2_000  # tables of datasets take the square of their number
_SHOWN = 60  # characters of a value in a message


def no_column(where: str, column: str, known: Sequence[str], *, called: str = "", way_out: str) -> DataError:
    """Say that rows have no such column, which of theirs may have been meant, and what to do."""
    near = get_close_matches(column, known, n=1)
    hint = f' Did you mean "{near[0]}"?' if near else ""
    return DataError(f'{where} has no column "{column}"{called}.{hint} It has: {", ".join(known)}. {way_out}')


def open_file(path: Path, *, where: str, text_column: str, scratch_dir: Path) -> datasets.Dataset:
    """Read a file. `where` begins every message; a .txt file is one row, its line breaks kept. Raises DataError."""
    if path.suffix not in DATA_SUFFIXES:
        raise DataError(f'{where}: the ending "{path.suffix}" is unknown. Known: {", ".join(DATA_SUFFIXES)}.')
    if not path.is_file():
        raise DataError(f"{where} is not there. Correct the path; it is relative to the file that names it.")
    if path.suffix not in (".parquet", ".arrow"):
        content = path.read_bytes()
        if not content.strip():
            raise no_rows(where)
        if path.suffix in (".json", ".jsonl") and (deadly := _deadly_fault(content)):
            raise DataError(f"{where} cannot be read: {deadly}. Mend the file.")
        del content
    with tempfile.TemporaryDirectory(dir=scratch_dir) as folder:
        try:
            rows = _read(path, text_column, cache_dir=folder)
            if len(rows.column_names) > _MOST_COLUMNS:
                raise ValueError(f"it has {len(rows.column_names):,} columns, and {_MOST_COLUMNS:,} are the most")
            rows.data.table.validate(full=True)  # that texts are UTF-8, and lie where the file says
            return rows
        except UnicodeDecodeError as error:
            beginning = error.object[error.start :][:_SHOWN]
            raise DataError(f"{where} is no UTF-8 text: {show(beginning)}. Save it as UTF-8.") from error
        except (datasets.exceptions.DatasetGenerationError, ValueError, OSError) as error:  # pyarrow's are the latter
            cause = str(error.__cause__ or error).split("\n")[0].rstrip(".")
            if any(words in cause for words in _NO_ROWS):
                raise no_rows(where) from error
            reason = _json_fault(path) if path.suffix == ".jsonl" else None
            raise DataError(f"{where} cannot be read: {reason or cause}. Mend the file.") from error


def _deadly_fault(content: bytes) -> str | None:
    """Say what is in JSON that Arrow's reader would die of, and this process with it."""
    if (null := _NULL_ROW.search(content)) is not None:
        row = content.count(b"\n", 0, null.end()) + 1
        return f"row {row} is null, and no JSON object"
    return f"its values are nested more than {_DEEPEST} levels deep" if _is_deep(content) else None


def _is_deep(content: bytes) -> bool:
    if content.count(b"[") + content.count(b"{") <= _DEEPEST:
        return False
    depth = 0
    for bracket in _JSON_TEXT.sub(b"", content).translate(None, delete=_NO_BRACKETS):
        depth += 1 if bracket in b"[{" else -1
        if depth > _DEEPEST:
            return True
    return False


def no_rows(where: str) -> DataError:
    return DataError(f"{where} holds no rows. Give a file with at least one.")


def show(value: object) -> str:
    """Write a value as messages do, shortened."""
    shown = repr(value)
    return shown if len(shown) <= _SHOWN else shown[: _SHOWN - 1] + "…"


def _read(path: Path, text_column: str, *, cache_dir: str) -> datasets.Dataset:
    options = {"cache_dir": cache_dir, "keep_in_memory": True}
    match path.suffix:
        case ".parquet":
            return datasets.Dataset.from_parquet(str(path), **options)
        case ".arrow":
            return datasets.Dataset(_arrow_table(path))
        case ".txt":
            return datasets.Dataset.from_dict({text_column: [path.read_text(encoding=_CSV_ENCODING)]})
        case ".csv":
            return _read_csv(path)
        case _:
            return datasets.Dataset.from_json(str(path), **options)


def _arrow_table(path: Path) -> pa.Table:
    with pa.memory_map(str(path)) as source:
        is_file = source.read(len(_ARROW_FILE)) == _ARROW_FILE
        source.seek(0)
        table: pa.Table = (pa.ipc.open_file(source) if is_file else pa.ipc.open_stream(source)).read_all()
        table.validate(full=True)  # before anybody reads where a damaged file says that texts lie
        return table


def _read_csv(path: Path) -> datasets.Dataset:
    """Read all cells as text: a guess at types could make numbers of some labels and not of others."""
    usual_limit = csv.field_size_limit(sys.maxsize)  # a cell may hold a long text
    try:
        with path.open(encoding=_CSV_ENCODING, newline="") as file:
            reader = csv.reader(file, strict=True)
            header = next(reader)
            if twice := [name for name, n in Counter(header).items() if n > 1]:
                raise ValueError(f"its header names {show(twice[0])} twice")
            columns: list[list[str]] = [[] for _ in header]
            for row, cells in enumerate(filter(None, reader), start=1):
                if len(cells) != len(header):
                    raise ValueError(
                        f"row {row} has {len(cells)} cells and the header {len(header)}: {show(','.join(cells))}; text "
                        "with a comma in it stands in quotes"
                    )
                for column, cell in zip(columns, cells, strict=True):
                    column.append(cell)
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num}: {error}") from None
    finally:
        csv.field_size_limit(usual_limit)
    text = datasets.Features({name: datasets.Value("string") for name in header})
    return datasets.Dataset.from_dict(dict(zip(header, columns, strict=True)), features=text)


def _json_fault(path: Path) -> str | None:
    """Name the first line that is no JSON object."""
    with path.open("rb") as file:
        for row, line in enumerate(file, start=1):
            try:
                value = json.loads(line)
            except UnicodeDecodeError:
                return f"row {row} is no UTF-8 text: {show(line.strip())}"
            except json.JSONDecodeError as error:
                return f"row {row} is no JSON ({error.msg} at column {error.colno}): {show(error.doc.strip())}"
            if not isinstance(value, dict):
                return f"row {row} is no JSON object: {show(value)}"
    return None
