"""What a free slot is to do: one trial, or several that are trained as one computation.

In: trials one by one. Out: assignments, in the order in which the trials came. It must not know workers or time.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Hashable

from finesweep.events import Ending, TrialSpec
from finesweep.scheduling.stacking import Stacking
from finesweep.search.broker import NoTrial, TrialBroker

Assignment = tuple[TrialSpec, ...]  # in ascending number


def ending_of_stall(n_trials: int) -> Ending:
    """Say how the trials of an assignment ended whose worker was killed because nothing was heard of it.

    Of several it cannot be told which one hangs: all are LOST, go alone after that, and the one that hangs shows.
    """
    return Ending.STALLED if n_trials == 1 else Ending.LOST


class Assignments:
    """Asks for as many trials as are one slot's share of what is left, and puts those of equal keys together."""

    def __init__(
        self,
        broker: TrialBroker,
        stacking: Stacking,
        *,
        n_slots: int,
        ask: Callable[[], TrialSpec | NoTrial] | None = None,
    ) -> None:
        """Ask the broker, or `ask`, which may say DRAWING: then so does `next`, and goes on where it was."""
        self._broker = broker
        self._stacking = stacking
        self._n_slots = n_slots
        self._ask = ask or broker.suggest
        self._gathered: list[TrialSpec] = []
        self._ready: deque[Assignment] = deque()  # of those gathered last
        self._held: TrialSpec | None = None  # goes alone, after them
        self._share = 1
        self._n_of_round = 0  # times that this share was gathered; each slot is to have one

    @property
    def is_under_way(self) -> bool:
        """Tell whether some of an assignment, but not all of it, is there."""
        return bool(self._gathered)

    def next(self) -> Assignment | NoTrial:
        """Give the next assignment, or say why there is none; once the sweep is halted, give back what was held."""
        if self._broker.halted:
            self.give_back()
        if not self._ready:
            word = self._gather()
            if word is not None:
                return word
        return self._ready.popleft()

    def give_back(self) -> None:
        """Give the broker back what no slot was given."""
        ready = [trial for assignment in self._ready for trial in assignment]
        held = [] if self._held is None else [self._held]
        for trial in reversed([*ready, *self._gathered, *held]):  # the broker puts each before those that wait
            self._broker.give_back(trial.number)
        self._ready.clear()
        self._gathered, self._held = [], None

    def _gather(self) -> NoTrial | None:
        """Make assignments of trials that may share one, up to the next that goes alone; or say why there are none."""
        if not self._gathered and self._n_of_round == 0:
            n_left = self._broker.n_left + (self._held is not None)
            self._share = max(1, min(self._stacking.n_lanes, math.ceil(n_left / self._n_slots)))
        while len(self._gathered) < self._share:
            found = self._take()
            if not isinstance(found, TrialSpec):
                if found is NoTrial.DRAWING or not self._gathered:
                    return found
                break
            goes_alone = self._key(found) is None
            if self._gathered and goes_alone:
                self._held = found
                break
            self._gathered.append(found)
            if goes_alone:
                break
        groups: dict[Hashable, list[TrialSpec]] = {}
        for trial in sorted(self._gathered, key=lambda trial: trial.number):
            groups.setdefault(self._key(trial), []).append(trial)
        self._ready.extend(map(tuple, groups.values()))
        self._gathered = []
        self._n_of_round = (self._n_of_round + 1) % self._n_slots
        return None

    def _take(self) -> TrialSpec | NoTrial:
        if self._held is None:
            return self._ask()
        held, self._held = self._held, None
        return held

    def _key(self, trial: TrialSpec) -> Hashable | None:
        """Return what it may share an assignment by. One whose worker was lost goes alone: it may be what kills it."""
        return None if trial.n_retries else self._stacking.key(trial.configuration)
