"""What trials reported, how they were tried, and what they left, as pandas frames. Works inside a transaction."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import pandas as pd
import sqlalchemy as sa

from finesweep.results.columns import (
    ARTIFACT_COLUMNS,
    ATTEMPT_COLUMNS,
    COUNT,
    NUMBER,
    POINT_COLUMNS,
    TELEMETRY_COLUMNS,
    frame_of,
    typed_frame,
)
from finesweep.results.names import of_sweeps, sweep_row, sweep_rows
from finesweep.results.schema import artifacts, attempts, reports, trials
from finesweep.results.values import metrics_from_json, telemetry_from_json


def points_frame(
    connection: sa.Connection,
    sweep: str | None,
    *,
    numbers: Collection[int] | None = None,
    step: int | None = None,
) -> pd.DataFrame:
    return _long_frame(connection, sweep, POINT_COLUMNS, metrics_from_json, numbers=numbers, step=step)


def telemetry_frame(connection: sa.Connection, sweep: str, *, numbers: Collection[int] | None = None) -> pd.DataFrame:
    return _long_frame(connection, sweep, TELEMETRY_COLUMNS, telemetry_from_json, numbers=numbers)


def _long_frame(
    connection: sa.Connection,
    sweep: str | None,
    columns: Mapping[str, str],
    read_json: Callable[[str], Mapping[str, float]],
    *,
    numbers: Collection[int] | None = None,
    step: int | None = None,
) -> pd.DataFrame:
    """Make a row of each number in reports. The first column is the sweep's name, the last two are name and value."""
    names = {row.id: row.name for row in sweep_rows(connection, sweep)}
    shared_columns = ("sweep_id", *list(columns)[1:-2])
    query = sa.select(*(reports.c[name] for name in shared_columns), reports.c.metrics)
    if numbers is not None:
        query = query.where(reports.c.number.in_([*numbers]))
    if step is not None:
        query = query.where(reports.c.step == step)
    values: tuple[list[Any], ...] = tuple([] for _ in columns)
    for sweep_id, *shared, text in connection.execute(of_sweeps(query, reports, names).order_by(reports.c.step)):
        found = read_json(text)
        repeated = (names[sweep_id], *shared)
        for column, value in zip(values, repeated, strict=False):
            column.extend([value] * len(found))
        values[-2].extend(found)
        values[-1].extend(found.values())
    return frame_of(columns, values)


def metrics_frame(connection: sa.Connection, sweep: str, metrics: Sequence[str]) -> pd.DataFrame:
    """Read metrics of trials at the step of their value, or at their last report; of a reused result the origin's."""
    trained = sa.func.coalesce(trials.c.reused_from, trials.c.number)
    others = reports.alias()
    last = sa.select(sa.func.max(others.c.step)).where(
        others.c.sweep_id == trials.c.sweep_id, others.c.number == trained
    )
    its_report = sa.and_(
        reports.c.sweep_id == trials.c.sweep_id,
        reports.c.number == trained,
        reports.c.step == sa.func.coalesce(trials.c.value_step, last.scalar_subquery()),
    )
    query = sa.select(trials.c.number, reports.c.metrics).select_from(trials).join(reports, its_report)
    rows = connection.execute(query.where(trials.c.sweep_id == sweep_row(connection, sweep).id))
    found = [(number, *map(metrics_from_json(text).get, metrics)) for number, text in rows]
    return typed_frame({"number": COUNT, **dict.fromkeys(metrics, NUMBER)}, found)


def attempts_frame(connection: sa.Connection, sweep: str | None) -> pd.DataFrame:
    names = {row.id: row.name for row in sweep_rows(connection, sweep)}
    rows = connection.execute(of_sweeps(sa.select(attempts), attempts, names).order_by(attempts.c.attempt))
    own = list(ATTEMPT_COLUMNS)[1:]
    return typed_frame(ATTEMPT_COLUMNS, [(names[row.sweep_id], *(getattr(row, key) for key in own)) for row in rows])


def artifacts_frame(connection: sa.Connection, sweep: str | None) -> pd.DataFrame:
    names = {row.id: row.name for row in sweep_rows(connection, sweep)}
    query = of_sweeps(sa.select(artifacts), artifacts, names).order_by(artifacts.c.attempt, artifacts.c.kind)
    own = list(ARTIFACT_COLUMNS)[1:]
    return typed_frame(
        ARTIFACT_COLUMNS,
        [(names[row.sweep_id], *(getattr(row, key) for key in own)) for row in connection.execute(query)],
    )
