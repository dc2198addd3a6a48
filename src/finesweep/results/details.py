"""What trials reported, how they were tried, and what they left, as pandas frames. Works inside a transaction."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import pandas as pd
import sqlalchemy as sa

from finesweep.results.columns import (
    ARTIFACT_COLUMNS,
    ATTEMPT_COLUMNS,
    COUNT,
    NUMBER,
    POINT_COLUMNS,
    frame_of,
    typed_frame,
)
from finesweep.results.names import of_sweeps, sweep_row, sweep_rows
from finesweep.results.schema import artifacts, attempts, reports, trials
from finesweep.results.values import metrics_from_json

_POINT_FIELDS = ("sweep_id", "number", "attempt", "step", "examples_seen", "metrics")


def points_frame(
    connection: sa.Connection,
    sweep: str | None,
    *,
    numbers: Collection[int] | None = None,
    step: int | None = None,
) -> pd.DataFrame:
    names = {row.id: row.name for row in sweep_rows(connection, sweep)}
    query = sa.select(*(reports.c[name] for name in _POINT_FIELDS))
    if numbers is not None:
        query = query.where(reports.c.number.in_([*numbers]))
    if step is not None:
        query = query.where(reports.c.step == step)
    values: tuple[list[Any], ...] = tuple([] for _ in POINT_COLUMNS)
    for sweep_id, *shared, text in connection.execute(of_sweeps(query, reports, names).order_by(reports.c.step)):
        metrics = metrics_from_json(text)
        repeated = (names[sweep_id], *shared)
        for column, value in zip(values, repeated, strict=False):
            column.extend([value] * len(metrics))
        values[-2].extend(metrics)
        values[-1].extend(metrics.values())
    return frame_of(POINT_COLUMNS, values)


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
