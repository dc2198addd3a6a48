"""From an older schema of our tables to this one: a module a version, with what it changes as alembic operations.

To make a version N: freeze a database of the version before for the tests, change `results.schema` and its
SCHEMA_VERSION, write `version_N.py` here and name it in MIGRATIONS. A migration names columns itself and imports
nothing of ours, for the code goes on. Our integer says where a database stands: `alembic_version` is Optuna's
(docs/decisions/0012).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from finesweep.errors import SweepHeldError
from finesweep.results.backup import copy_beside
from finesweep.results.lease import lease_of
from finesweep.results.migrations import version_2
from finesweep.results.schema import SCHEMA_VERSION, create_tables, lock_schema, stored_version, sweeps, version_table
from finesweep.results.url import redacted, sqlite_path

if TYPE_CHECKING:
    from alembic.operations import Operations

MIGRATIONS: Mapping[int, Callable[[Operations], None]] = {2: version_2.upgrade}  # from the version before to this one

_LEASE = ("name", "holder_host", "holder_pid", "holder_started", "held_since", "expires_at")  # in every version


@dataclass(frozen=True, slots=True)
class Migrated:
    """What was done to a database."""

    url: str
    before: int  # its schema version
    copy: Path | None  # None on a server

    @property
    def text(self) -> str:
        """Say so, for people."""
        kept = (
            "A server's database is not copied; pg_dump does that."
            if self.copy is None
            else f"As it was before, it is kept in {self.copy.name}."
        )
        return f"{redacted(self.url)}: migrated from schema version {self.before} to {SCHEMA_VERSION}. {kept}"


def bring_up_to_date(connection: sa.Connection, *, now_s: float) -> Migrated | None:
    """Create our tables, or make them those of this version; tell what was migrated.

    Works inside the transaction it is given, which on SQLite holds the write lock: it is all done or nothing is. An
    SQLite file is copied first. Raises ResultsError if a newer finesweep made the tables, SweepHeldError while an older
    one drives a sweep.
    """
    lock_schema(connection)
    version = stored_version(connection)
    if version is None:
        create_tables(connection)
    if version is None or version == SCHEMA_VERSION:
        return None
    _refuse_if_driven(connection, version, now_s=now_s)
    url = connection.engine.url.render_as_string(hide_password=False)
    path = sqlite_path(url)
    copy = None if path is None else copy_beside(path, version=version, now_s=now_s)
    _migrate(connection, version)
    return Migrated(url, version, copy)


def _migrate(connection: sa.Connection, version: int) -> None:
    from alembic.migration import MigrationContext  # a tenth of a second, needed once in a database's life
    from alembic.operations import Operations

    operations = Operations(MigrationContext.configure(connection))
    for next_version in range(version + 1, SCHEMA_VERSION + 1):
        MIGRATIONS[next_version](operations)
    connection.execute(sa.update(version_table).values(version=SCHEMA_VERSION))


def _refuse_if_driven(connection: sa.Connection, version: int, *, now_s: float) -> None:
    for row in connection.execute(sa.select(*(sweeps.c[name] for name in _LEASE)).order_by(sweeps.c.id)):
        lease = lease_of(row)
        if lease is not None and lease.is_live(now_s):
            raise SweepHeldError(
                f"{redacted(connection.engine.url)}: its tables have schema version {version} and are migrated to "
                f"{SCHEMA_VERSION} once nobody writes to them, but sweep {row.name!r} is driven by process "
                f"{lease.holder.pid} on {lease.holder.host}, with an older finesweep. Let it end, or stop it there "
                f"(kill -INT {lease.holder.pid}) and resume it with this one."
            )
