"""Brings the faults of one drive about: counts what happens in it, and strikes where the plan says.

In: strikes, and what the driver is about to do. Out: exceptions, as those that a death or a full disk would be. It must
not know sweeps.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

import sqlalchemy as sa

from finesweep.events import Event, Listener
from finesweep.results.writer import Clock, ResultsWriter
from finesweep.simulation.faults import Axis, Fault, Strike

P = ParamSpec("P")
T = TypeVar("T")


_STATEMENTS: dict[Any, Any] = {}  # compiled once for all simulated drivers of this process: SQLAlchemy's own affair


class KilledError(BaseException):
    """The driver is no more. What it does while this passes through it never happens."""


class Striker:
    """What befalls one driver. Once it is dead nothing more is committed in its name."""

    def __init__(self, strikes: Sequence[Strike], acts: Mapping[Fault, Callable[[], None]]) -> None:
        """`acts` bring about what comes from outside, as from another process."""
        self._strikes = strikes
        self._acts = acts
        self._counts: Counter[Axis] = Counter()
        self._is_full = False
        self._is_beside = False
        self.struck: list[Strike] = []
        self.is_dead = False

    def due(self, axis: Axis) -> list[Fault]:
        """Count one more of an axis, and say what strikes at it."""
        at = self._counts[axis]
        self._counts[axis] += 1
        return [strike.fault for strike in self._strikes if strike.fault.axis is axis and strike.at == at]

    def note(self, fault: Fault) -> None:
        self.struck.extend(strike for strike in self._strikes if strike.fault is fault and strike not in self.struck)

    def die(self, fault: Fault) -> None:
        self.note(fault)
        self.is_dead = True
        raise KilledError(fault)

    @contextmanager
    def _beside(self) -> Iterator[None]:
        """Let somebody else write."""
        self._is_beside = True
        try:
            yield
        finally:
            self._is_beside = False

    # --- events ---------------------------------------------------------------------------------------------------

    def around_store(self, store: Callable[[], None]) -> None:
        """Store events, with what strikes before and after."""
        due = self.due(Axis.EVENTS)
        for fault in due:
            if fault is Fault.KILLED_BEFORE:
                self.die(fault)
            elif fault is Fault.DATABASE_FULL:
                self._is_full = True
                self.note(fault)
            elif fault in self._acts:
                self.note(fault)
                with self._beside():
                    self._acts[fault]()
        store()
        if Fault.KILLED_AFTER in due:
            self.die(Fault.KILLED_AFTER)

    # --- commits --------------------------------------------------------------------------------------------------

    @contextmanager
    def watching(self, own: sa.Engine) -> Iterator[None]:
        """Watch the driver's transactions, on `own` and on engines that it makes. Death closes its connections."""
        opened: list[sqlite3.Connection] = []

        def opens(connection: sqlite3.Connection, _record: object) -> None:
            opened.append(connection)

        def begins(connection: sa.Connection) -> None:
            self._refuse_dead()

        def commits(connection: sa.Connection) -> None:
            self._refuse_dead()
            if not self._is_beside:
                self._before_commit(is_ours=connection.engine is own)

        def connects(connection: sa.Connection) -> None:
            connection.execution_options(compiled_cache=_STATEMENTS)

        listeners: dict[str, Callable[..., None]] = {
            "connect": opens,
            "engine_connect": connects,
            "begin": begins,
            "commit": commits,
        }
        for event, listener in listeners.items():
            sa.event.listen(sa.Engine, event, listener)
        try:
            yield
        finally:
            for event, listener in listeners.items():
                sa.event.remove(sa.Engine, event, listener)
            for connection in opened if self.is_dead else ():
                connection.close()  # what was not committed is lost

    def _refuse_dead(self) -> None:
        if self.is_dead and not self._is_beside:
            raise KilledError

    def _before_commit(self, *, is_ours: bool) -> None:
        due = self.due(Axis.COMMITS if is_ours else Axis.MIRRORED)
        if is_ours and self._is_full:
            raise sa.exc.OperationalError("COMMIT", None, Exception("database or disk is full"))
        for fault in due:
            if fault in (Fault.KILLED_WITHIN, Fault.KILLED_MIRRORING):
                self.die(fault)
            elif fault is Fault.KILLED_MIRRORED:  # it commits, and comes to nothing else
                self.note(fault)
                self.is_dead = True


class StruckWriter(ResultsWriter):
    """A results writer whose driver may be struck whenever it stores events."""

    def __init__(self, url: str, engine: sa.Engine, clock: Clock, striker: Striker) -> None:
        super().__init__(url, engine, clock)
        self._striker = striker
        self.store: Listener | None = None  # of what is told to the sweep that was listened to

    def listener(self, name: str) -> Listener:
        store = self.store = super().listener(name)

        def listen(events: Sequence[Event]) -> None:
            self._striker.around_store(lambda: store(events))

        return listen


class Here(Executor):
    """Runs what it is given before it returns, in the thread that asks."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        done: Future[T] = Future()
        try:
            done.set_result(fn(*args, **kwargs))
        except Exception as error:
            done.set_exception(error)
        return done
