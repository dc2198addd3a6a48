"""Finding sweeps by name and their rows in other tables, and saying which there are when one is not there."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa

from finesweep.errors import SweepNameError
from finesweep.results.schema import sweeps
from finesweep.results.url import redacted


def sweep_rows(connection: sa.Connection, sweep: str | None) -> list[sa.Row[Any]]:
    """Read the row of one sweep, or those of all, oldest first. Raises SweepNameError."""
    if sweep is not None:
        return [sweep_row(connection, sweep)]
    return list(connection.execute(sa.select(sweeps).order_by(sweeps.c.id)))


def sweep_row(connection: sa.Connection, name: str) -> sa.Row[Any]:
    """Read the row of a sweep. Raises SweepNameError."""
    row = connection.execute(sa.select(sweeps).where(sweeps.c.name == name)).first()
    if row is None:
        raise unknown_sweep(connection, name)
    return row


def of_sweeps(query: sa.Select[Any], table: sa.Table, sweep_ids: Iterable[int]) -> sa.Select[Any]:
    """Keep the rows of some sweeps, in the order of sweeps and trials."""
    return query.where(table.c.sweep_id.in_([*sweep_ids])).order_by(table.c.sweep_id, table.c.number)


def unknown_sweep(connection: sa.Connection, name: str) -> SweepNameError:
    """Say that a name is unknown, with the nearest known one or the newest few."""
    newest = sa.select(sweeps.c.name).order_by(sweeps.c.id.desc())
    known = list(connection.execute(newest).scalars())
    where = f"sweep {name!r} is not in {redacted(connection.engine.url)}"
    if not known:
        return SweepNameError(f"{where}, which holds no sweeps yet. Run one first, or name another with --results.")
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    listed = ", ".join(known[:10]) + (", ..." if len(known) > 10 else "")
    return SweepNameError(f"{where}; {hint}Known: {listed}.")
