"""Which rows and columns of a table of trials are shown: --where, --sort, --columns, --top.

Conditions are evaluated by `spec.expressions`, never by Python. A trial in which a column that the condition needs has
no value does not match, whatever is asked of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from finesweep.errors import ResultsError
from finesweep.results.columns import METRIC_PREFIX, OBJECTIVE_PREFIX, json_rows
from finesweep.spec.expressions import Expression, ExpressionError, parse_expression
from finesweep.spec.faults import unknown


@dataclass(frozen=True, slots=True)
class Selection:
    """What is asked for; nothing asked leaves a table as it is.

    `sort` names columns, the first of them decides; a minus before one puts its largest first. Rows without a value
    there come last.
    """

    where: str | None = None
    sort: Sequence[str] = ()
    columns: Sequence[str] = ()
    top: int | None = None

    def rows_of(self, frame: pd.DataFrame, *, metric: str | None = None) -> pd.DataFrame:
        """Choose and order rows. `metric` is another name of the column `value`.

        Raises ResultsError for a column that is not there, or a condition that is none.
        """
        if self.where is not None:
            frame = frame[_matches(frame, self.where, metric)]
        for key in reversed(self.sort):  # a stable sort by each, the most important last
            name = _known(key.removeprefix("-"), frame, metric)
            frame = frame.sort_values(name, ascending=not key.startswith("-"), kind="stable", na_position="last")
        frame = frame.reset_index(drop=True)
        return frame if self.top is None else frame.head(self.top)

    def columns_of(self, frame: pd.DataFrame, *, metric: str | None = None) -> list[str]:
        """Name the columns asked for, in that order; all if none was. Raises ResultsError for one that is not there."""
        return [_known(name, frame, metric) for name in self.columns or map(str, frame.columns)]


EVERYTHING = Selection()


def _matches(frame: pd.DataFrame, where: str, metric: str | None) -> list[bool]:
    try:
        condition = parse_expression(where)
    except ExpressionError as error:
        raise ResultsError(f"--where: {error}") from None
    columns = {name: _known(name, frame, metric) for name in condition.names}
    needed = list(dict.fromkeys(columns.values()))
    rows = json_rows(frame[needed]) if needed else ({},) * len(frame)
    return [_holds(condition, columns, row) for row in rows]


def _holds(condition: Expression, columns: Mapping[str, str], row: Mapping[str, Any]) -> bool:
    values = {name: row[column] for name, column in columns.items()}
    if any(value is None for value in values.values()):
        return False
    try:
        return bool(condition.evaluate(values))
    except ExpressionError as error:
        raise ResultsError(f"--where: {error}") from None


def _known(name: str, frame: pd.DataFrame, metric: str | None) -> str:
    """Return the column that a user means: its own name, or that of a metric, an objective or another one."""
    for column in (name, f"{OBJECTIVE_PREFIX}{name}", f"{METRIC_PREFIX}{name}"):
        if column in frame:
            return column
    if name == metric:
        return "value"
    raise ResultsError(unknown("column", name, [str(column) for column in frame.columns]))
