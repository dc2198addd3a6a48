"""Read the rows of a split and check them, so that a fault is named by file, row, column and value.

In: JSON lines, JSON, CSV or Parquet; which columns. Out: plain texts and targets. It must not know models or tokens.
"""

from __future__ import annotations

import csv
import json
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import datasets

from finesweep.errors import DataError
from finesweep.spec.inputs import DATA_SUFFIXES
from finesweep.spec.sweep import DataSpec, Task

Label = str | int

_CSV_ENCODING = "utf-8-sig"  # UTF-8 with or without the mark that Excel puts at its beginning
_NO_ROWS = ("corresponds to no data", "BatchSize must be greater than 0")  # how datasets and pyarrow put it
_SHOWN = 60  # characters of a value in a message


@dataclass(frozen=True, slots=True)
class Rows:
    inputs: Sequence[str]
    targets: Sequence[Label]  # classification: the class; causal-lm: the completion

    def __len__(self) -> int:
        return len(self.inputs)

    def take(self, indices: Sequence[int]) -> Rows:
        return Rows([self.inputs[i] for i in indices], [self.targets[i] for i in indices])


def read_split(data: DataSpec, split: str, *, task: Task, columns: tuple[str, str], scratch_dir: Path) -> Rows:
    """Read one split. Raises DataError for whatever keeps it from being trained on."""
    path = Path(getattr(data, split))
    where = f"data.{split}: {path}"
    table = _read_table(path, where, scratch_dir)
    keys = ("text", "label") if task == "classification" else ("prompt", "completion")
    for key, column in zip(keys, columns, strict=True):
        _check_column(table, column, where=where, key=key)
    if len(table) == 0:
        raise _no_rows(where)
    inputs, targets = (table[column][:] for column in columns)
    for row, (value, target) in enumerate(zip(inputs, targets, strict=True), start=1):
        _check_text(value, f'{where}, row {row}, column "{columns[0]}"')
        if task == "classification":
            _check_label(target, f'{where}, row {row}, column "{columns[1]}"')
        else:
            _check_text(target, f'{where}, row {row}, column "{columns[1]}"')
    return Rows(inputs, targets)


def class_labels(train: Rows, validation: Rows, data: DataSpec) -> list[Label]:
    """Return the classes of the training rows in order. Raises DataError where they cannot be learnt or scored."""
    counts = Counter(train.targets)
    kinds = {type(label) for label in [*counts, *set(validation.targets)]}
    if len(kinds) > 1:
        raise DataError(
            f'column "{data.label}" holds text in some rows and whole numbers in others ({data.train}, '
            f"{data.validation}). Write all labels in one way."
        )
    if len(counts) == 1:
        raise DataError(
            f'data.train: {data.train}, column "{data.label}" has one class only ({next(iter(counts))!r}). '
            "A classifier needs at least two: give more rows or another column as data.label."
        )
    for row, label in enumerate(validation.targets, start=1):
        if label not in counts:
            raise DataError(
                f'data.validation: {data.validation}, row {row}, column "{data.label}": the class {_show(label)} is in '
                f"no training row ({data.train}), so it cannot be learnt. Move rows of it to the training file or "
                "remove them here."
            )
    return sorted(counts)


def _read_table(path: Path, where: str, scratch_dir: Path) -> datasets.Dataset:
    if path.suffix not in DATA_SUFFIXES:
        raise DataError(f'{where}: the ending "{path.suffix}" is unknown. Known: {", ".join(DATA_SUFFIXES)}.')
    if not path.is_file():
        raise DataError(f"{where} is not there. Correct the path; it is relative to the file that names it.")
    if path.suffix != ".parquet" and not path.read_bytes().strip():
        raise _no_rows(where)
    with tempfile.TemporaryDirectory(dir=scratch_dir) as folder:
        options = {"cache_dir": folder, "keep_in_memory": True}
        try:
            if path.suffix == ".parquet":
                return datasets.Dataset.from_parquet(str(path), **options)
            if path.suffix == ".csv":
                # all columns as text: a guess by chunks would make numbers of some labels and not of others
                text_columns = datasets.Features({name: datasets.Value("string") for name in _csv_header(path)})
                how = {"features": text_columns, "na_filter": False, "encoding": _CSV_ENCODING}
                return datasets.Dataset.from_csv(str(path), **how, **options)
            return datasets.Dataset.from_json(str(path), **options)
        except (datasets.exceptions.DatasetGenerationError, ValueError) as error:
            cause = str(error.__cause__ or error).split("\n")[0]
            if any(words in cause for words in _NO_ROWS):
                raise _no_rows(where) from error
            reason = _json_fault(path) if path.suffix == ".jsonl" else None
            raise DataError(f"{where} cannot be read: {reason or cause}. Mend the file.") from error


def _no_rows(where: str) -> DataError:
    return DataError(f"{where} holds no rows. Give a file with at least one.")


def _csv_header(path: Path) -> list[str]:
    with path.open(encoding=_CSV_ENCODING, newline="") as file:
        return next(csv.reader(file))


def _json_fault(path: Path) -> str | None:
    """Name the first line that is no JSON object."""
    with path.open(encoding="utf-8") as file:
        for row, line in enumerate(file, start=1):
            try:
                value = json.loads(line)
            except json.JSONDecodeError as error:
                return f"row {row} is no JSON ({error.msg} at column {error.colno}): {_show(line.strip())}"
            if not isinstance(value, dict):
                return f"row {row} is no JSON object: {_show(value)}"
    return None


def _check_column(table: datasets.Dataset, column: str, *, where: str, key: str) -> None:
    if column not in table.column_names:
        near = get_close_matches(column, table.column_names, n=1)
        hint = f' Did you mean "{near[0]}"?' if near else ""
        raise DataError(
            f'{where} has no column "{column}" (data.{key}).{hint} It has: {", ".join(table.column_names)}. '
            f"Name one of them as data.{key}."
        )


def _check_text(value: object, where: str) -> None:
    if not isinstance(value, str):
        raise DataError(f"{where} holds {_show(value)} ({type(value).__name__}), not text. Write it as text.")
    if not value.strip():
        raise DataError(f"{where} holds empty text ({_show(value)}). Remove the row or fill it.")


def _check_label(value: object, where: str) -> None:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise DataError(
            f"{where} holds {_show(value)} ({type(value).__name__}); a label is text or a whole number. "
            "Remove the row or correct it."
        )
    if isinstance(value, str) and not value.strip():
        raise DataError(f"{where} holds an empty label ({_show(value)}). Remove the row or fill it.")


def _show(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= _SHOWN else shown[: _SHOWN - 1] + "…"
