"""Assignments for a backend whose loop must not wait: the sampler works in a thread, one assignment ahead.

A sampler may take seconds. Trials are reported and end meanwhile; only with a single slot, where a sweep is to repeat
exactly, does an ending wait for the assignment that is being put together. That costs nothing: the slot could not be
given another one before.
"""

from __future__ import annotations

import math
import time
from concurrent import futures

from finesweep.events import TrialSpec
from finesweep.scheduling.assignments import Assignment, Assignments
from finesweep.scheduling.stacking import Stacking
from finesweep.search.asking import Drawing, Drawn
from finesweep.search.broker import NoTrial, TrialBroker

# The longest that the backend's loop stands still for a drawing; most samplers need less.
PATIENCE_S = 0.02


class AskedAhead:
    """Gives assignments that are there already, and prepares the next."""

    def __init__(self, broker: TrialBroker, stacking: Stacking, *, n_slots: int) -> None:
        self._broker = broker
        self._assignments = Assignments(broker, stacking, n_slots=n_slots, ask=self._ask)
        self._ready: Assignment | None = None
        self._drawing: futures.Future[Drawn] | None = None
        self._deadline_s = 0.0
        self._thread = futures.ThreadPoolExecutor(1, thread_name_prefix="finesweep-sampler")
        if n_slots == 1:
            broker.before_endings(self.settle)

    def next(self) -> Assignment | NoTrial:
        """Give the next assignment; DRAWING if the sampler is still at work."""
        if self._broker.halted:
            self.give_back()
        found = self._ready or self._gather(PATIENCE_S)
        self._ready = None
        if isinstance(found, tuple):
            self.prepare()
        return found

    def prepare(self) -> None:
        """Go on with the next assignment as far as is possible without waiting long."""
        if self._ready is None and not self._broker.halted:
            self._keep(self._gather(PATIENCE_S if self._assignments.is_under_way else 0.0))

    def settle(self) -> None:
        """Wait for the assignment that is being put together, if one is."""
        if self._broker.halted:
            self.give_back()
        elif self._drawing is not None or self._assignments.is_under_way:
            self._keep(self._gather(math.inf))

    def give_back(self) -> None:
        """Give the broker back what no slot was given; a drawing is waited for, and given back too."""
        if self._drawing is not None:
            drawn = self._drawing.result()
            self._drawing = None
            trial = self._broker.register(drawn)
            if trial is not None:
                self._broker.give_back(trial.number)
        self._assignments.give_back()
        for trial in reversed(self._ready or ()):
            self._broker.give_back(trial.number)
        self._ready = None

    def close(self) -> None:
        """Let the thread go, without waiting for what it draws."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _gather(self, patience_s: float) -> Assignment | NoTrial:
        self._deadline_s = time.monotonic() + patience_s
        return self._assignments.next()

    def _keep(self, found: Assignment | NoTrial) -> None:
        self._ready = found if isinstance(found, tuple) else None

    def _ask(self) -> TrialSpec | NoTrial:
        while True:
            if self._drawing is None:
                found = self._broker.look()
                if not isinstance(found, Drawing):
                    return found
                self._drawing = self._thread.submit(found)
            patience_s = max(0.0, self._deadline_s - time.monotonic())
            futures.wait([self._drawing], timeout=None if patience_s == math.inf else patience_s)
            if not self._drawing.done():
                return NoTrial.DRAWING
            drawn, self._drawing = self._drawing.result(), None
            trial = self._broker.register(drawn)
            if trial is not None:
                return trial
