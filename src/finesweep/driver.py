"""Drives one sweep from its lease to its end: broker, backend, database, view, limits and signals put together.

The backend owns the time; everything that must happen now and then happens in its tick.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Protocol

from finesweep.errors import FinesweepError
from finesweep.events import Event, Listener, SweepHistory, TrialFinished
from finesweep.results.schema import SweepState
from finesweep.results.writer import ResultsWriter
from finesweep.scheduling.backend import Backend
from finesweep.search.broker import TrialBroker
from finesweep.search.mirror import OptunaMirror
from finesweep.spec.study import Objective
from finesweep.spec.sweep import SweepSpec

LOOK_EVERY_S = 1.0  # at what others may have changed: a request to stop, a larger total
RENEW_EVERY_S = 10.0  # the lease, well within its term, and the hours charged

CTRL_C = "stopped by Ctrl-C"
TERMINATED = "stopped by SIGTERM"
HUNG_UP = "stopped because the terminal went away"
BY_REQUEST = "stopped by `finesweep stop`"
STOPS = (CTRL_C, TERMINATED, HUNG_UP, BY_REQUEST)
HOURS = "budget.hours are used up"


class View(Protocol):
    """Somebody who watches: told every event, and refreshed several times a second."""

    def begin(self, objectives: Sequence[Objective], n_trials: int, history: SweepHistory) -> None:
        """Hear what there is before the first event; the first objective is the leading one."""

    def set_total(self, n_trials: int) -> None: ...

    def __call__(self, events: Sequence[Event]) -> None: ...

    def refresh(self) -> None: ...

    def say(self, text: str) -> None:
        """Tell something that is no event."""


@dataclass(frozen=True, slots=True)
class SweepEnd:
    """How a drive ended."""

    name: str
    state: SweepState
    reason: str | None  # why it ended before its budget of trials was used up
    n_unfinished: int  # trials that wait to be resumed


class Driver:
    """One drive of a sweep that is in the database and whose lease is held."""

    def __init__(
        self,
        spec: SweepSpec,
        *,
        writer: ResultsWriter,
        make_broker: Callable[[Listener], TrialBroker],
        listeners: Sequence[Listener],
        view: View,
        clock: Callable[[], float] = time.monotonic,
        copying: Executor | None = None,
    ) -> None:
        """Listeners hear of events in order, after they were stored. Optuna's tables are written by `copying`."""
        self._spec = spec
        self._writer = writer
        self._view = view
        self._clock = clock
        self._store = writer.listener(spec.name)
        self._listeners: tuple[Listener, ...] = (*listeners, view)
        self._unmirrored = False
        self._signal: str | None = None
        self._is_stopping = False
        self.broker = make_broker(self._hear)
        self._mirror = OptunaMirror(writer.url, self.broker.study, copying=copying)
        self._looked_s = self._renewed_s = self._began_s = clock()
        standing = writer.standing(spec.name)
        self._used_before_s = standing.seconds_used
        self._n_trials = standing.budget_trials

    def drive(self, backend: Backend) -> SweepEnd:
        """Run to the end of the budget, or until told to stop. The database is whole whatever happens."""
        name = self._spec.name
        self._writer.set_state(name, SweepState.RUNNING)  # and no longer why an earlier drive ended
        end, reason = SweepState.INTERRUPTED, None
        try:
            self._look()  # the hours may be over before anything is begun
            if self.broker.n_left:
                with self._signals():
                    backend.run(self.broker, self.tick)
            elif not self.broker.halted:
                more = f" More of them: finesweep extend {name} --trials N" if self.broker.can_grow else ""
                n_trials = f"All {self._n_trials} trials" if self.broker.can_grow else "All trials that it takes"
                self._view.say(f"{n_trials} are done.{more}")
            self._writer.renew(name)  # raises if another driver has taken over: then nothing more is written
            self._mirror.complete()
            end, reason = self._end_state(), self.broker.halted or self.broker.used_up
        except FinesweepError as error:
            reason = str(error)
            raise
        finally:
            self._mirror.close()
            self._charge()
            self._writer.set_state(name, end, end_reason=reason)
        return SweepEnd(name, end, reason, self.broker.n_unfinished)

    def tick(self) -> None:
        """Do what must be done now and then. Cheap when nothing is due."""
        now_s = self._clock()
        if self._signal is not None:
            self._stop(self._signal, "Stopping: running trials write a checkpoint. Ctrl-C again to stop at once.")
        if now_s - self._looked_s >= LOOK_EVERY_S:
            self._looked_s = now_s
            self._look()
        if now_s - self._renewed_s >= RENEW_EVERY_S:
            self._writer.renew(self._spec.name)
            self._charge()
        self._view.refresh()

    def _hear(self, events: Sequence[Event]) -> None:
        self._store(events)
        self._unmirrored |= any(isinstance(event, TrialFinished) for event in events)
        for listener in self._listeners:
            listener(events)

    def _look(self) -> None:
        standing = self._writer.standing(self._spec.name)
        if standing.budget_trials != self._n_trials:
            self._n_trials = standing.budget_trials
            self.broker.extend(self._n_trials)
            self._view.set_total(self._n_trials)
        if standing.stop_requested:
            self._stop(BY_REQUEST, "Stopping as asked: running trials write a checkpoint.")
        hours = standing.budget_hours
        used_s = self._used_before_s + self._clock() - self._began_s
        if hours is not None and used_s >= hours * 3600 and not self.broker.halted:
            self.broker.halt(HOURS, pause=self._spec.budget.at_end == "interrupt")
            self._view.say(f"The {hours:g} hours of the budget are over: no further trials are begun.")
        if self._unmirrored:
            self._unmirrored = False
            self._writer.renew(self._spec.name)
            self._mirror.follow()

    def _stop(self, reason: str, text: str) -> None:
        """Have the running trials pause, once; also when the hours are over and they were to finish."""
        if not self._is_stopping:
            self._is_stopping = True
            self.broker.halt(reason, pause=True)
            self._view.say(text)

    def _charge(self) -> None:
        now_s = self._clock()
        self._writer.add_seconds(self._spec.name, now_s - self._renewed_s)
        self._renewed_s = now_s

    def _end_state(self) -> SweepState:
        if self.broker.n_unfinished or self.broker.halted in STOPS:
            return SweepState.INTERRUPTED
        if self.broker.all_failed:
            return SweepState.FAILED
        return SweepState.FINISHED if self.broker.halted in (None, HOURS) else SweepState.INTERRUPTED

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Take the first of these signals as a request to stop; a second one stops at once."""
        reasons = {signal.SIGINT: CTRL_C, signal.SIGTERM: TERMINATED, signal.SIGHUP: HUNG_UP}

        def handle(number: int, frame: FrameType | None) -> None:
            if self._signal is not None:
                raise KeyboardInterrupt
            self._signal = reasons[signal.Signals(number)]

        try:
            before = {number: signal.signal(number, handle) for number in reasons}
        except ValueError:  # not in the main thread: whoever is there looks after signals
            yield
            return
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
