"""What tells cheaply whether a sweep has changed since the last look, and when it was last heard of.

Reads indexes and the reports of running trials alone, never those of the trials that have ended.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import sqlalchemy as sa

from finesweep.events import TrialState
from finesweep.results.lease import lease_of
from finesweep.results.names import sweep_rows
from finesweep.results.schema import attempts, reports, sweeps, trials


def change_marks(connection: sa.Connection, sweep: str | None = None, *, now_s: float) -> Mapping[str, str]:
    """Give each sweep, or one, a text that is another after any report, ending, or change of who drives it.

    Raises SweepNameError.
    """
    rows = sweep_rows(connection, sweep)
    parts: dict[int, list[object]] = {}
    for row in rows:
        lease = lease_of(row)
        is_live = lease is not None and lease.is_live(now_s)
        parts[row.id] = [
            row.id,
            row.state,
            row.epoch,
            row.budget_trials,
            row.end_reason,
            row.stop_requested_at,
            is_live,
        ]
    own = [row.id for row in rows]
    counts = sa.select(trials.c.sweep_id, trials.c.state, sa.func.count(), sa.func.max(trials.c.value))
    running = sa.select(trials.c.sweep_id, trials.c.number).where(trials.c.state == TrialState.RUNNING).subquery()
    began = sa.select(running.c.sweep_id, sa.func.count(), sa.func.max(attempts.c.started_at)).join_from(
        running, attempts, _same_trial(running, attempts)
    )
    told = sa.select(running.c.sweep_id, sa.func.count(), sa.func.max(reports.c.reported_at)).join_from(
        running, reports, _same_trial(running, reports)
    )
    for query, key in (
        (counts.group_by(trials.c.sweep_id, trials.c.state), trials.c.sweep_id),
        (began.group_by(running.c.sweep_id), running.c.sweep_id),
        (told.group_by(running.c.sweep_id), running.c.sweep_id),
    ):
        for sweep_id, *found in connection.execute(query.where(key.in_(own)).order_by(key)):
            parts[sweep_id] += found
    return {row.name: hashlib.sha256(repr(parts[row.id]).encode()).hexdigest()[:16] for row in rows}


def last_heard(connection: sa.Connection) -> Mapping[str, float]:
    """Tell when a running trial of a sweep last reported or began, in seconds since the epoch; none runs: no entry."""
    at = sa.func.max(sa.func.coalesce(reports.c.reported_at, attempts.c.started_at)).label("heard")
    query = (
        sa.select(sweeps.c.name, at)
        .join_from(sweeps, trials, sa.and_(trials.c.sweep_id == sweeps.c.id, trials.c.state == TrialState.RUNNING))
        .join(attempts, _same_trial(trials, attempts))
        .outerjoin(reports, sa.and_(_same_trial(attempts, reports), reports.c.attempt == attempts.c.attempt))
        .group_by(sweeps.c.name)
    )
    return {row.name: row.heard for row in connection.execute(query)}


def _same_trial(one: sa.FromClause, other: sa.FromClause) -> sa.ColumnElement[bool]:
    return sa.and_(one.c.sweep_id == other.c.sweep_id, one.c.number == other.c.number)
