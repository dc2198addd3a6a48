"""Faults as data: which one strikes which drive of a sweep, and when. Pure data; chance is passed in."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum


class Axis(StrEnum):
    """What is counted, from 0 in each drive, until a fault strikes."""

    EVENTS = "events"  # times that the broker has events stored
    COMMITS = "commits"  # transactions on our tables, those of events among them
    MIRRORED = "mirrored"  # transactions on Optuna's tables
    STAGES = "stages"  # times that a trial is to do something


class Fault(StrEnum):
    """What may befall a sweep, as the table of faults names it."""

    KILLED_BEFORE = "driver killed before it stores an event"
    KILLED_AFTER = "driver killed after it stored an event"
    KILLED_WITHIN = "driver killed before it commits"
    KILLED_MIRRORING = "driver killed before a commit to Optuna's tables"
    KILLED_MIRRORED = "driver killed after a commit to Optuna's tables"
    CTRL_C = "Ctrl-C"
    CTRL_C_TWICE = "Ctrl-C twice"
    STOP = "finesweep stop"
    TAKEN_OVER = "a second driver takes over from a live one"
    LATE_WORKER = "a worker outlives its driver and reports late"
    CLOCK_BACK = "the clock steps back an hour"
    DATABASE_FULL = "disk full under the database"
    WORKER_LOST = "worker lost"
    NODE_REMOVED = "node removed, with all its workers"
    CHECKPOINT_CUT = "worker lost as it writes a checkpoint, which is cut short"
    RAISES = "the trainer raises"
    STALLS = "a trial hangs"
    DISK_FULL = "disk full at a worker"

    @property
    def axis(self) -> Axis:
        return _AXES.get(self, Axis.EVENTS)

    @property
    def ends_drive(self) -> bool:
        """Tell whether the sweep has to be resumed after it."""
        return self in _ENDING

    @property
    def kills_driver(self) -> bool:
        return self in KILLS


KILLS = (
    Fault.KILLED_BEFORE,
    Fault.KILLED_AFTER,
    Fault.KILLED_WITHIN,
    Fault.KILLED_MIRRORING,
    Fault.KILLED_MIRRORED,
)
_ENDING = (
    *KILLS,
    Fault.CTRL_C,
    Fault.CTRL_C_TWICE,
    Fault.STOP,
    Fault.TAKEN_OVER,
    Fault.DATABASE_FULL,
    Fault.DISK_FULL,
)
_AXES: Mapping[Fault, Axis] = {
    Fault.KILLED_WITHIN: Axis.COMMITS,
    Fault.KILLED_MIRRORING: Axis.MIRRORED,
    Fault.KILLED_MIRRORED: Axis.MIRRORED,
    **dict.fromkeys(
        (
            Fault.WORKER_LOST,
            Fault.NODE_REMOVED,
            Fault.CHECKPOINT_CUT,
            Fault.RAISES,
            Fault.STALLS,
            Fault.DISK_FULL,
        ),
        Axis.STAGES,
    ),
}


@dataclass(frozen=True, slots=True)
class Strike:
    """A fault, and how many of what its axis counts come before it.

    With `cuts_checkpoints`, for one that kills the driver, the last checkpoint of each running trial was not whole, and
    the one before it is used.
    """

    fault: Fault
    at: int
    cuts_checkpoints: bool = False


@dataclass(frozen=True, slots=True)
class FaultPlan:
    """The strikes of each drive of a sweep, one drive after another; those that follow are undisturbed."""

    drives: tuple[tuple[Strike, ...], ...] = ()

    def of_drive(self, drive: int) -> tuple[Strike, ...]:
        return self.drives[drive] if drive < len(self.drives) else ()


def random_plan(chance: random.Random, *, n_drives: int, faults: Collection[Fault] = tuple(Fault)) -> FaultPlan:
    """Draw a plan in which each drive is ended by one fault, before which others may have struck."""
    ending = [fault for fault in faults if fault.ends_drive]
    passing = [fault for fault in faults if not fault.ends_drive]

    def drive() -> tuple[Strike, ...]:
        last = _draw(chance, ending)
        return (*(_draw(chance, passing) for _ in range(chance.randrange(3)) if passing), last)

    return FaultPlan(tuple(drive() for _ in range(n_drives)))


def _draw(chance: random.Random, faults: Sequence[Fault]) -> Strike:
    fault = chance.choice(faults)
    within = {Axis.EVENTS: 12, Axis.COMMITS: 30, Axis.MIRRORED: 10, Axis.STAGES: 8}[fault.axis]
    return Strike(fault, chance.randrange(within), cuts_checkpoints=fault.kills_driver and chance.random() < 0.5)
