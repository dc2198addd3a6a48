"""Finding a sweep by name, and saying which there are when it is not there."""

from __future__ import annotations

import difflib

import sqlalchemy as sa

from finesweep.errors import SweepNameError
from finesweep.results.schema import sweeps
from finesweep.results.url import redacted


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
