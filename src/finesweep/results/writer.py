"""The only writer of our tables: sweeps, their leases, and every event of their trials, each durable when it returns.

Durable is: it survives the death of any process. Takes a URL and a clock; knows nothing of who makes the events.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import sqlalchemy as sa

from finesweep.errors import ResultsError, SweepHeldError, SweepNameError
from finesweep.events import Event, Grid, Listener, SweepHistory
from finesweep.results import lease
from finesweep.results.database import translated, writing_engine
from finesweep.results.history import read_history
from finesweep.results.lease import Holder
from finesweep.results.migrations import bring_up_to_date
from finesweep.results.names import unknown_sweep
from finesweep.results.recording import abandon_open, record
from finesweep.results.schema import SweepState, artifacts, sweeps
from finesweep.results.url import redacted, resolve_url
from finesweep.spec.sweep import SweepSpec

Clock = Callable[[], float]  # seconds since the epoch


@dataclass(frozen=True, slots=True)
class Standing:
    """What a driver looks at now and then: others may have changed it."""

    state: SweepState
    budget_trials: int
    budget_hours: float | None
    seconds_used: float
    stop_requested: bool


def open_writer(
    url: str | Path, *, clock: Clock = time.time, say: Callable[[str], None] | None = None
) -> ResultsWriter:
    """Open a results database to write: a path or URL. What is missing is created, what is older is migrated.

    Args:
        say: told what was migrated, and where the copy is that an SQLite file gets first.

    Raises:
        ResultsError: it cannot be written to, or a newer finesweep made it.
        SweepHeldError: it is to be migrated and an older finesweep drives a sweep in it.
    """
    url = resolve_url(url, folder=Path())
    with translated(url):
        engine = writing_engine(url)
        try:
            with engine.begin() as connection:
                migrated = bring_up_to_date(connection, now_s=clock())
        except BaseException:
            engine.dispose()
            raise
    if migrated is not None and say is not None:
        say(migrated.text)
    return ResultsWriter(url, engine, clock)


class ResultsWriter:
    """Every method is one short transaction. May be used from several threads; one at a time has the connection."""

    def __init__(self, url: str, engine: sa.Engine, clock: Clock) -> None:
        self.url = url
        self._engine = engine
        self._clock = clock
        self._lock = threading.Lock()
        self._epochs: dict[str, int] = {}  # of the sweeps acquired here

    def __enter__(self) -> ResultsWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection. Leases are released by `release`, not by this."""
        self._engine.dispose()

    # --- sweeps -------------------------------------------------------------------------------------------------

    def create_sweep(self, spec: SweepSpec, *, grid: Grid, provenance: Mapping[str, Any]) -> None:
        """Store a resolved sweep. Raises SweepNameError if the name is taken."""
        with self._transaction() as connection:
            taken = connection.execute(sa.select(sweeps.c.id).where(sweeps.c.name == spec.name)).first()
            if taken is not None:
                raise SweepNameError(
                    f"name: sweep {spec.name!r} is already in {redacted(self.url)}. "
                    "Go on with it (finesweep resume, finesweep extend), or give this one another --name."
                )
            connection.execute(
                sa.insert(sweeps).values(
                    name=spec.name,
                    spec=spec.model_dump(mode="json"),
                    provenance=provenance,
                    grid=asdict(grid),
                    state=SweepState.NEW,
                    created_at=self._clock(),
                    budget_trials=spec.budget.trials,
                    seconds_used=0.0,
                    study_attributes={},
                    epoch=0,
                )
            )

    def extend(
        self,
        name: str,
        *,
        trials: int | None = None,
        hours: float | None = None,
        tokens: int | None = None,
        money: float | None = None,
    ) -> None:
        """Set larger totals. Raises ResultsError if one would not grow."""
        with self._sweep(name) as (connection, row):
            before = row.spec["budget"]
            totals = {"trials": trials, "hours": hours, "tokens": tokens, "money": money}
            asked = {key: total for key, total in totals.items() if total is not None}
            for key, total in asked.items():
                if before.get(key) is None or total <= before[key]:
                    has = "no limit" if before.get(key) is None else f"{before[key]:g}"
                    raise ResultsError(
                        f"budget.{key}: {total:g} must be above what sweep {name!r} already has ({has}); "
                        "it is the total, not an addition."
                    )
            budget = {**before, **asked}
            state = SweepState.INTERRUPTED if row.state == SweepState.FINISHED else row.state
            spec = {**row.spec, "budget": budget}
            _update(connection, row, budget_trials=budget["trials"], spec=spec, state=state)

    def set_state(self, name: str, state: SweepState, *, end_reason: str | None = None) -> None:
        """Say where the sweep stands and, if a drive ended before the budget was used up, why."""
        with self._held_sweep(name) as (connection, row):
            _update(connection, row, state=state, end_reason=end_reason)

    def add_seconds(self, name: str, seconds: float) -> None:
        """Charge running time to the sweep's budget of hours."""
        with self._held_sweep(name) as (connection, row):
            _update(connection, row, seconds_used=row.seconds_used + seconds)

    def standing(self, name: str) -> Standing:
        """Read what others may change while a driver runs."""
        with self._sweep(name) as (_, row):
            return Standing(
                state=SweepState(row.state),
                budget_trials=row.budget_trials,
                budget_hours=row.spec["budget"]["hours"],
                seconds_used=row.seconds_used,
                stop_requested=row.stop_requested_at is not None,
            )

    def request_stop(self, name: str) -> None:
        """Ask whoever drives the sweep to stop. The request ends when the sweep is next acquired."""
        with self._sweep(name) as (connection, row):
            _update(connection, row, stop_requested_at=self._clock())

    def delete(self, name: str) -> None:
        """Remove a sweep and all of its trials from our tables. Raises SweepHeldError while it is driven."""
        with self._sweep(name) as (connection, row):
            if self._epochs.get(name) != row.epoch:
                lease.refuse_if_held(row, now_s=self._clock())
            connection.execute(sa.delete(sweeps).where(sweeps.c.id == row.id))
        self._epochs.pop(name, None)

    def grid(self, name: str) -> Grid:
        """Read the axis on which the sweep's trials are compared."""
        with self._sweep(name) as (_, row):
            return Grid(**row.grid)

    def remove_artifacts(self, name: str, number: int) -> None:
        """Note that a trial's files have been removed."""
        with self._held_sweep(name) as (connection, row):
            connection.execute(
                sa.update(artifacts)
                .where(artifacts.c.sweep_id == row.id, artifacts.c.number == number, artifacts.c.removed_at.is_(None))
                .values(removed_at=self._clock())
            )

    def history(self, name: str) -> SweepHistory:
        """Read all that a broker needs to go on with the sweep."""
        with self._sweep(name) as (connection, row):
            return read_history(connection, row.id)

    # --- the lease ----------------------------------------------------------------------------------------------

    def acquire(self, name: str, holder: Holder, *, take_over: bool = False) -> None:
        """Take the sweep for this writer, over from a dead holder if need be.

        Attempts that the last holder left open are ABANDONED, their trials INTERRUPTED. Raises SweepHeldError, unless
        a holder that seems alive is to be taken over: it can then write nothing more.
        """
        with self._sweep(name) as (connection, row):
            epoch = lease.acquire(connection, row, holder, now_s=self._clock(), take_over=take_over)
            abandon_open(connection, row.id, reason=f"its driver ended: {_holder_text(row)}")
        self._epochs[name] = epoch

    def refuse_if_held(self, name: str) -> None:
        """Raise SweepHeldError if a live process drives the sweep."""
        with self._sweep(name) as (_, row):
            lease.refuse_if_held(row, now_s=self._clock())

    def renew(self, name: str) -> None:
        """Keep the lease for another `lease.LEASE_S`. Raises SweepHeldError if somebody else has the sweep."""
        with self._held_sweep(name) as (connection, row):
            _update(connection, row, expires_at=self._clock() + lease.LEASE_S)

    def release(self, name: str) -> None:
        """Give the lease back if it is still this writer's; attempts left open are ABANDONED, as a dead holder's."""
        epoch = self._epochs.pop(name, None)
        mine = sa.select(sweeps).where(sweeps.c.name == name, sweeps.c.epoch == epoch).with_for_update()
        with self._transaction() as connection:
            row = connection.execute(mine).first()
            if row is None:
                return
            abandon_open(connection, row.id, reason=f"its driver ended: {_holder_text(row)}")
            nobody = dict.fromkeys(("holder_host", "holder_pid", "holder_started", "held_since", "expires_at"))
            _update(connection, row, **nobody)

    # --- events -------------------------------------------------------------------------------------------------

    def listener(self, name: str) -> Listener:
        """Give what stores events: those handed over together are stored together or not at all.

        It raises SweepHeldError once another driver has acquired the sweep, and is to be asked for after `acquire`.
        """
        with self._sweep(name) as (_, row):
            sweep_id, epoch = row.id, self._epochs.get(name, row.epoch)
        columns = [sweeps.c[key] for key in ("epoch", "holder_host", "holder_pid")]
        holder = sa.select(*columns).where(sweeps.c.id == sweep_id).with_for_update()

        def listen(events: Sequence[Event]) -> None:
            with self._transaction() as connection:
                _refuse_if_replaced(connection.execute(holder).first(), name, epoch)
                record(connection, sweep_id, events, now_s=self._clock())

        return listen

    # --- transactions -------------------------------------------------------------------------------------------

    @contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        with self._lock, translated(self.url), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def _sweep(self, name: str) -> Iterator[tuple[sa.Connection, sa.Row[Any]]]:
        """Begin a transaction that has the sweep's row to itself."""
        with self._transaction() as connection:
            row = connection.execute(sa.select(sweeps).where(sweeps.c.name == name).with_for_update()).first()
            if row is None:
                raise unknown_sweep(connection, name)
            yield connection, row

    @contextmanager
    def _held_sweep(self, name: str) -> Iterator[tuple[sa.Connection, sa.Row[Any]]]:
        """Begin a transaction as the driver: raises SweepHeldError if another one has taken over."""
        with self._sweep(name) as (connection, row):
            _refuse_if_replaced(row, name, self._epochs.get(name, row.epoch))
            yield connection, row


def _update(connection: sa.Connection, row: sa.Row[Any], **values: Any) -> None:
    connection.execute(sa.update(sweeps).where(sweeps.c.id == row.id).values(values))


def _refuse_if_replaced(row: sa.Row[Any] | None, name: str, epoch: int) -> None:
    if row is None:
        raise SweepNameError(f"sweep {name!r} was deleted while it was being driven. Run its file again to begin anew.")
    if row.epoch != epoch:
        raise SweepHeldError(
            f"sweep {name!r} was taken over by {_holder_text(row)}; nothing more is stored for this one. "
            "Let that one finish, or stop it and resume the sweep."
        )


def _holder_text(row: sa.Row[Any]) -> str:
    return f"process {row.holder_pid} on {row.holder_host}" if row.holder_host else "another process, since gone"
