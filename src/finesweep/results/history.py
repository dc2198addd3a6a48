"""What a broker is rebuilt from: all trials of a sweep with their reports over all attempts."""

from __future__ import annotations

from collections import defaultdict

import sqlalchemy as sa

from finesweep.events import Ending, Report, Source, SweepHistory, TrialRecord, TrialState
from finesweep.results.schema import attempts, reports, sweeps, trials
from finesweep.results.values import metrics_from_json

_USE_RETRIES = [ending for ending in Ending if ending.uses_retry]


def read_history(connection: sa.Connection, sweep_id: int) -> SweepHistory:
    """Read the trials of a sweep in the order of their numbers."""
    reports_of = read_reports(connection, sweep_id)
    counts = {
        row.number: row
        for row in connection.execute(
            sa.select(
                attempts.c.number,
                sa.func.count().label("started"),
                sa.func.count().filter(attempts.c.ending.in_(_USE_RETRIES)).label("retries"),
            )
            .where(attempts.c.sweep_id == sweep_id)
            .group_by(attempts.c.number)
        )
    }
    records = [
        TrialRecord(
            number=row.number,
            state=TrialState(row.state),
            configuration=row.configuration,
            parameters=row.parameters,
            distributions=row.distributions,
            source=Source(row.source),
            attributes=row.attributes,
            reports=tuple(reports_of[row.number]),
            attempts=counts[row.number].started if row.number in counts else 0,
            n_retries=counts[row.number].retries if row.number in counts else 0,
            value=row.value,
            value_step=row.value_step,
            reason=row.reason,
            twin_of=row.twin_of,
            reused_from=row.reused_from,
            started_at=row.started_at,
            finished_at=row.finished_at,
        )
        for row in connection.execute(sa.select(trials).where(trials.c.sweep_id == sweep_id).order_by(trials.c.number))
    ]
    attributes = connection.execute(sa.select(sweeps.c.study_attributes).where(sweeps.c.id == sweep_id)).scalar_one()
    return SweepHistory(trials=tuple(records), study_attributes=attributes)


def read_reports(connection: sa.Connection, sweep_id: int, number: int | None = None) -> defaultdict[int, list[Report]]:
    """Read the reports of a sweep, or of one trial, by trial and in rising steps."""
    query = sa.select(reports).where(reports.c.sweep_id == sweep_id).order_by(reports.c.number, reports.c.step)
    found: defaultdict[int, list[Report]] = defaultdict(list)
    for row in connection.execute(query if number is None else query.where(reports.c.number == number)):
        report = Report(row.step, metrics_from_json(row.metrics), row.examples_seen, final=row.final)
        found[row.number].append(report)
    return found
