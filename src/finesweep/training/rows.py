"""Check the rows of a table against the task, so that a fault is named by split, row, column and value.

In: a table; which columns. Out: rows whose values have the types the task wants. It must not know models or tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import datasets

from finesweep.errors import DataError
from finesweep.spec.sweep import DataSpec, Task, columns_of
from finesweep.training.files import no_column, no_rows, show
from finesweep.training.sources import Table

ROLES = ("system", "developer", "user", "assistant", "tool")
LABEL_SEPARATOR = "|"  # between several labels in a CSV cell

CLASSIFICATIONS = ("classification", "multi-label-classification")

_NAMED = 3  # incomplete rows in a message


@dataclass(frozen=True, slots=True)
class Rows:
    where: str  # how a message begins that is about them
    columns: Mapping[str, Sequence[Any]]  # by key of the data section
    numbers: Sequence[int]  # the place of each in its source, from 1
    class_names: tuple[str, ...] = ()  # in the order that the data set itself gives them, where it does
    is_document: bool = False  # one row, which a share cuts in parts

    def __len__(self) -> int:
        return len(self.numbers)

    def take(self, indices: Sequence[int]) -> Rows:
        columns = {key: [values[i] for i in indices] for key, values in self.columns.items()}
        return replace(self, columns=columns, numbers=[self.numbers[i] for i in indices])


def read_rows(table: Table, data: DataSpec, task: Task) -> tuple[Rows, list[str]]:
    """Return the rows, and a note if some are left out. Raises DataError for what keeps them from being used."""
    wanted = columns_of(data, task)
    for key, column in wanted.items():
        _check_column(table, column, key)
    if len(table.rows) == 0:
        raise no_rows(table.where)
    incomplete: dict[int, str] = {}
    columns = {
        key: _read_column(table, column, _reader(table, key, task), incomplete) for key, column in wanted.items()
    }
    names = _class_names(table, wanted["label"]) if task in CLASSIFICATIONS else ()
    rows = Rows(table.where, columns, range(1, len(table.rows) + 1), names, table.is_document)
    return _leave_out(rows, incomplete, data) if incomplete else (rows, [])


class _IncompleteError(Exception):
    """A row says too little to be used; the text says how."""


class _WrongError(Exception):
    """A value is of no use whatever the row; the text says what it is and what is wanted."""


def _check_column(table: Table, column: str, key: str) -> None:
    known = table.rows.column_names
    if column not in known:
        way_out = f"Name one of them as data.{key}."
        raise no_column(table.where, column, known, called=f" (data.{key})", way_out=way_out)


def _read_column(table: Table, column: str, read: Callable[[Any], Any], incomplete: dict[int, str]) -> Sequence[Any]:
    """Read every value, and note in `incomplete` what is wrong with which row."""
    values: list[Any] = []
    for index, value in enumerate(_named_classes(table, column)):
        try:
            values.append(read(value))
        except _IncompleteError as error:
            incomplete.setdefault(index, f'row {index + 1}, column "{column}" {error}')
            values.append(None)
        except _WrongError as error:
            raise DataError(f'{table.where}, row {index + 1}, column "{column}" {error}') from None
    return values


def _class_names(table: Table, column: str) -> tuple[str, ...]:
    """Return the names that a data set keeps beside the numbers of its classes."""
    feature = table.rows.features[column]
    feature = getattr(feature, "feature", feature)  # of a list
    return tuple(feature.names) if isinstance(feature, datasets.ClassLabel) else ()


def _named_classes(table: Table, column: str) -> Sequence[Any]:
    """Return a column's values, classes by their names; -1 is how `datasets` marks a row without one."""
    values: Sequence[Any] = _decoded(table, column)
    names = (*_class_names(table, column), None)
    if len(names) == 1:
        return values
    return [
        [names[label] for label in value] if isinstance(value, list) else names[-1 if value is None else value]
        for value in values
    ]


def _decoded(table: Table, column: str) -> Sequence[Any]:
    """Return a column's values: whether its text is UTF-8 is looked at here for the first time."""
    try:
        values: Sequence[Any] = table.rows[column][:]
    except UnicodeDecodeError:
        for index in range(len(table.rows)):
            try:
                table.rows[index]
            except UnicodeDecodeError as error:
                raise DataError(
                    f'{table.where}, row {index + 1}, column "{column}" holds {show(error.object)}, which is no UTF-8 '
                    "text. Save the file as UTF-8."
                ) from None
        raise
    return values


def _leave_out(rows: Rows, incomplete: Mapping[int, str], data: DataSpec) -> tuple[Rows, list[str]]:
    n = len(rows)
    if len(incomplete) == n:
        raise DataError(f"{rows.where}: all {n} rows are incomplete: {_some(incomplete)}. Fill them, or name others.")
    if data.incomplete == "refuse":
        raise DataError(
            f"{rows.where}: {len(incomplete)} of {n} rows are incomplete: {_some(incomplete)}. Fill or remove them, or "
            "set data.incomplete: leave-out."
        )
    kept = rows.take([index for index in range(n) if index not in incomplete])
    return kept, [f"{len(incomplete)} of {n} rows are incomplete and left out: {_some(incomplete)}"]


def _some(incomplete: Mapping[int, str]) -> str:
    first = [incomplete[index] for index in sorted(incomplete)[:_NAMED]]
    return "; ".join(first) + ("; ..." if len(incomplete) > _NAMED else "")


# --- one value --------------------------------------------------------------------------------------------------


def _reader(table: Table, key: str, task: Task) -> Callable[[Any], Any]:
    """Return the function that reads a value of one column, or raises _IncompleteError or _WrongError."""
    if key == "messages":
        return _chat
    if key != "label":
        return _text
    match task:
        case "regression":
            return _number_in_text if table.is_text else _number
        case "multi-label-classification":
            return _labels_in_text if table.is_text else _labels
        case _:
            return _label


def _text(value: Any) -> str:
    if _is_missing(value):
        raise _IncompleteError(f"holds no text ({show(value)})")
    if not isinstance(value, str):
        raise _WrongError(f"holds {_typed(value)}, not text. Write it as text.")
    if not value.strip():
        raise _IncompleteError(f"holds empty text ({show(value)})")
    return value


def _label(value: Any) -> str | int:
    if _is_missing(value):
        raise _IncompleteError(f"holds no label ({show(value)})")
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise _WrongError(f"holds {_typed(value)}; a label is text or a whole number. Remove the row or correct it.")
    if isinstance(value, str) and not value.strip():
        raise _IncompleteError(f"holds an empty label ({show(value)})")
    return value


def _labels(value: Any) -> tuple[str | int, ...]:
    """Read the labels of a row, which may be none at all."""
    if _is_missing(value):
        raise _IncompleteError(f"holds no list of labels ({show(value)}); one without any is []")
    if not isinstance(value, list):
        raise _WrongError(f"holds {_typed(value)}, not a list of labels. Write [{show(value)}].")
    try:
        return tuple(dict.fromkeys(_label(label) for label in value))
    except _IncompleteError as error:
        raise _WrongError(f"{error} in a list of labels. Remove it there.") from None


def _labels_in_text(value: str) -> tuple[str | int, ...]:
    """Read a cell of CSV: a|b. An empty one is a row without labels."""
    if value.strip().startswith("["):
        raise _WrongError(
            f"holds {show(value)}; in CSV several labels are written a{LABEL_SEPARATOR}b, without brackets."
        )
    if not value.strip():
        return ()
    return _labels([label.strip() for label in value.split(LABEL_SEPARATOR)])


def _number(value: Any) -> float:
    if _is_missing(value):
        raise _IncompleteError(f"holds no number ({show(value)})")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _WrongError(f"holds {_typed(value)}, not a number. Write it as a number.")
    if not math.isfinite(value):
        raise _WrongError(f"holds {show(value)}, which is not finite. Remove the row or correct it.")
    return float(value)


def _number_in_text(value: str) -> float:
    if not value.strip():
        raise _IncompleteError(f"holds no number ({show(value)})")
    try:
        return _number(float(value))
    except ValueError:
        raise _WrongError(
            f"holds {show(value)}, which is no number. Write it with a decimal point, as in 3.5."
        ) from None


def _chat(value: Any) -> list[dict[str, str]]:
    """Read a chat: messages of role and content, of which the assistant says at least one."""
    if not value:
        raise _IncompleteError(f"holds no messages ({show(value)})")
    if not isinstance(value, list) or not all(isinstance(message, Mapping) for message in value):
        raise _WrongError(f"holds {_typed(value)}, not a list of messages. {_MESSAGES}")
    chat = [_message(message, f"message {place}") for place, message in enumerate(value, start=1)]
    if not any(message["role"] == "assistant" for message in chat):
        raise _IncompleteError("holds a chat in which the assistant says nothing, so that there is nothing to learn")
    return chat


_MESSAGES = 'Write [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}].'


def _message(message: Mapping[str, Any], name: str) -> dict[str, str]:
    for key in ("role", "content"):
        if key not in message:
            raise _WrongError(f'holds {name} without "{key}" (it has: {", ".join(message)}). {_MESSAGES}')
    role, content = message["role"], message["content"]
    if role not in ROLES:
        raise _WrongError(f"holds {name} of the role {show(role)}. Known: {', '.join(ROLES)}.")
    if content is not None and not isinstance(content, str):
        raise _WrongError(f"holds {name} with the content {_typed(content)}, not text. Write it as text.")
    if content is None or (not content.strip() and role != "system"):
        raise _IncompleteError(f"holds {name} (of the {role}) without text ({show(content)})")
    return {"role": role, "content": content}


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _typed(value: Any) -> str:
    return f"{show(value)} ({type(value).__name__})"
