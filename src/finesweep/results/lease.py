"""Who drives a sweep: a lease that expires, and an epoch that tells an old driver that it was replaced.

On the holder's own host its process decides, and no clock: one that waits for a locked database or a debugger is not
dead, and one that is gone does not come back because the clock was set. From elsewhere only the expiry is known.
Works inside the transaction it is given. The time is passed in.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from finesweep.errors import SweepHeldError
from finesweep.results.schema import sweeps

PROC = Path("/proc")
LEASE_S = 60.0  # a driver renews several times in this while; a reader calls it dead afterwards


@dataclass(frozen=True, slots=True)
class Holder:
    """A process, told apart from a later one with the same pid by when it started."""

    host: str
    pid: int
    started: int | None  # in clock ticks since boot; None where /proc does not tell

    @classmethod
    def this_process(cls) -> Holder:
        """Describe the process that calls."""
        return cls(socket.gethostname(), os.getpid(), process_started(os.getpid()))


@dataclass(frozen=True, slots=True)
class Lease:
    """Who holds a sweep, since when, until when (seconds since the epoch)."""

    holder: Holder
    held_since: float
    expires_at: float

    def is_live(self, now_s: float) -> bool:
        """Tell whether its process still exists; where that cannot be told for certain, it must not have expired."""
        if self.holder.host != socket.gethostname():
            return now_s < self.expires_at
        if self.holder.started is None:  # a pid alone may be that of a later process
            return now_s < self.expires_at and is_alive(self.holder)
        return is_alive(self.holder)


def lease_of(row: Any) -> Lease | None:  # Any: a row of sweeps, whose columns SQLAlchemy does not type
    """Read the lease from a row of `sweeps`; None if nobody holds it."""
    if row.holder_host is None:
        return None
    return Lease(Holder(row.holder_host, row.holder_pid, row.holder_started), row.held_since, row.expires_at)


def acquire(
    connection: sa.Connection,
    row: Any,  # of sweeps
    holder: Holder,
    *,
    now_s: float,
    take_over: bool,
) -> int:
    """Take the sweep in `row` and return the new epoch; a request to stop ends with it.

    Raises SweepHeldError if the lease is live, unless it is to be taken over.
    """
    if not take_over:
        refuse_if_held(row, now_s=now_s)
    epoch = int(row.epoch) + 1
    connection.execute(
        sa.update(sweeps)
        .where(sweeps.c.id == row.id)
        .values(
            holder_host=holder.host,
            holder_pid=holder.pid,
            holder_started=holder.started,
            held_since=now_s,
            expires_at=now_s + LEASE_S,
            epoch=epoch,
            stop_requested_at=None,
        )
    )
    return epoch


def refuse_if_held(row: Any, *, now_s: float) -> None:  # Any: a row of sweeps
    """Raise SweepHeldError if the lease in a row of `sweeps` is live."""
    lease = lease_of(row)
    if lease is not None and lease.is_live(now_s):
        since = datetime.fromtimestamp(lease.held_since, UTC)
        raise SweepHeldError(
            f"sweep {row.name!r} is driven by process {lease.holder.pid} on {lease.holder.host} since "
            f"{since:%Y-%m-%d %H:%M:%S} UTC. Stop it with: finesweep stop {row.name}. {_way_past(lease, now_s)}"
        )


def _way_past(lease: Lease, now_s: float) -> str:
    if lease.holder.host == socket.gethostname():
        return f"Should it hang: kill {lease.holder.pid}, then resume."
    return f"Should it be gone: its lease ends in {lease.expires_at - now_s:.0f} s, or resume with --take-over."


def is_alive(holder: Holder, *, proc: Path = PROC) -> bool:
    """Tell whether a process of this host still exists and is the same one."""
    started = process_started(holder.pid, proc=proc)
    if started is not None and holder.started is not None:
        return started == holder.started
    if (proc / "self").exists():
        return started is not None
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it exists and belongs to somebody else
        return True
    return True


def process_started(pid: int, *, proc: Path = PROC) -> int | None:
    """Read when a process of this host started, in clock ticks since boot; None if it or /proc is not there."""
    try:
        stat = (proc / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # the name before it may hold blanks and brackets
    is_zombie = fields[0] == "Z"
    return None if is_zombie else int(fields[19])  # field 22 of proc(5)
