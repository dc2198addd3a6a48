"""Our tables. They share a database with Optuna's and never collide: every name begins with finesweep_.

Times are seconds since the epoch, JSON is text. Portable between SQLite and PostgreSQL.
"""

from __future__ import annotations

from enum import StrEnum

import sqlalchemy as sa

from finesweep.errors import ResultsError
from finesweep.results.url import redacted
from finesweep.results.values import ExactJson, PlainText

SCHEMA_VERSION = 2  # results/migrations has the way to each
_SCHEMA_LOCK = 0x66696E65  # "fine": PostgreSQL advisory lock, so that two who create or migrate do not meet

metadata = sa.MetaData()


class SweepState(StrEnum):
    """Where a sweep stands. RUNNING without a live lease is shown as INTERRUPTED."""

    NEW = "NEW"  # in the database, not driven yet
    RUNNING = "RUNNING"
    INTERRUPTED = "INTERRUPTED"  # to be resumed
    FINISHED = "FINISHED"  # its budget is used up
    FAILED = "FAILED"  # could not go on: no trial could be trained


version_table = sa.Table(
    "finesweep_version",
    metadata,
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
)

sweeps = sa.Table(
    "finesweep_sweeps",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", PlainText, nullable=False, unique=True),
    sa.Column("spec", ExactJson, nullable=False),
    sa.Column("provenance", ExactJson, nullable=False),
    sa.Column("grid", ExactJson, nullable=False),
    sa.Column("state", PlainText, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("budget_trials", sa.Integer, nullable=False),
    sa.Column("seconds_used", sa.Double, nullable=False),
    sa.Column("study_attributes", ExactJson, nullable=False),
    sa.Column("stop_requested_at", sa.Double),
    sa.Column("holder_host", PlainText),
    sa.Column("holder_pid", sa.BigInteger),
    sa.Column("holder_started", sa.BigInteger),  # start time of that process, as /proc tells it
    sa.Column("held_since", sa.Double),
    sa.Column("expires_at", sa.Double),
    sa.Column("epoch", sa.BigInteger, nullable=False),
    sa.Column("end_reason", PlainText),  # why its last drive ended before its budget was used up
    sqlite_autoincrement=True,  # an id never comes back, so that an old listener cannot write into a new sweep
)

trials = sa.Table(
    "finesweep_trials",
    metadata,
    sa.Column("sweep_id", sa.ForeignKey("finesweep_sweeps.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("state", PlainText, nullable=False),
    sa.Column("reason", PlainText),
    sa.Column("value", sa.Double),
    sa.Column("value_step", sa.BigInteger),
    sa.Column("source", PlainText, nullable=False),
    sa.Column("configuration", ExactJson, nullable=False),
    sa.Column("parameters", ExactJson, nullable=False),
    sa.Column("distributions", ExactJson, nullable=False),
    sa.Column("attributes", ExactJson, nullable=False),
    sa.Column("twin_of", sa.Integer),
    sa.Column("reused_from", sa.Integer),
    sa.Column("started_at", sa.Double),  # of the first attempt
    sa.Column("finished_at", sa.Double),
    sa.Column("facts", ExactJson, nullable=False),
    sa.Column("examples_seen", sa.BigInteger, nullable=False),
    sa.Index("finesweep_trials_by_value", "sweep_id", "state", "value"),
    sqlite_with_rowid=False,
)

attempts = sa.Table(
    "finesweep_attempts",
    metadata,
    sa.Column("sweep_id", sa.Integer, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("attempt", sa.Integer, primary_key=True),
    sa.Column("ending", PlainText),
    sa.Column("reason", PlainText),
    sa.Column("traceback", PlainText),
    sa.Column("started_at", sa.Double, nullable=False),
    sa.Column("ended_at", sa.Double),
    sa.Column("facts", ExactJson, nullable=False),
    sa.ForeignKeyConstraint(
        ["sweep_id", "number"], ["finesweep_trials.sweep_id", "finesweep_trials.number"], ondelete="CASCADE"
    ),
    sqlite_with_rowid=False,
)

reports = sa.Table(
    "finesweep_reports",
    metadata,
    sa.Column("sweep_id", sa.Integer, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("step", sa.BigInteger, primary_key=True),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("examples_seen", sa.BigInteger, nullable=False),
    sa.Column("final", sa.Boolean, nullable=False),
    sa.Column("decision", PlainText, nullable=False),
    sa.Column("metrics", sa.Text, nullable=False),  # see values.metrics_to_json
    sa.Column("reported_at", sa.Double, nullable=False),
    sa.ForeignKeyConstraint(
        ["sweep_id", "number"], ["finesweep_trials.sweep_id", "finesweep_trials.number"], ondelete="CASCADE"
    ),
    sqlite_with_rowid=False,
)

artifacts = sa.Table(
    "finesweep_artifacts",
    metadata,
    sa.Column("sweep_id", sa.Integer, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("attempt", sa.Integer, primary_key=True),
    sa.Column("kind", PlainText, primary_key=True),
    sa.Column("path", PlainText, nullable=False),  # below the sweep's artifact folder
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("removed_at", sa.Double),
    sa.Column("n_bytes", sa.BigInteger),  # when it was kept
    sa.ForeignKeyConstraint(
        ["sweep_id", "number"], ["finesweep_trials.sweep_id", "finesweep_trials.number"], ondelete="CASCADE"
    ),
    sqlite_with_rowid=False,
)


def lock_schema(connection: sa.Connection) -> None:
    """Let no other process create or migrate our tables until the transaction ends."""
    if connection.dialect.name == "postgresql":  # SQLite's writer has the whole file
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_SCHEMA_LOCK)))


def create_tables(connection: sa.Connection) -> None:
    """Create our tables in a database that has none of them."""
    metadata.create_all(connection)
    connection.execute(sa.insert(version_table).values(version=SCHEMA_VERSION))


def stored_version(connection: sa.Connection) -> int | None:
    """Read the version of our tables; None if there are none. Raises ResultsError if a newer finesweep made them."""
    if not sa.inspect(connection).has_table(version_table.name):
        return None
    version = connection.execute(sa.select(sa.func.max(version_table.c.version))).scalar()
    if version is not None and version > SCHEMA_VERSION:
        raise ResultsError(
            f"{redacted(connection.engine.url)}: its tables have schema version {version}, made by a newer "
            f"finesweep; this one knows up to {SCHEMA_VERSION}. Upgrade finesweep, or name another results database."
        )
    return version
