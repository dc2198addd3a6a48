"""Runs one simulated sweep under a plan of faults, drive after drive, to its end: all that a real one runs but workers.

In: a workload, a plan, a folder. Out: violations of the invariants, which faults struck, and a trace. No real time, no
threads: the same in gives the same out.
"""

from __future__ import annotations

import shutil
import signal
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from finesweep.driver import SweepEnd
from finesweep.errors import DriveError, SweepHeldError
from finesweep.events import (
    AttemptEnded,
    AttemptResult,
    Decision,
    Ending,
    Event,
    Report,
    Reported,
    SweepHistory,
    TrialFinished,
    TrialState,
)
from finesweep.results.database import writing_engine
from finesweep.results.lease import LEASE_S, Holder
from finesweep.results.schema import SweepState
from finesweep.results.writer import ResultsWriter, open_writer
from finesweep.scheduling.backend import Backend, Tick
from finesweep.scheduling.simulated import Blocks, Dies, Hangs, Raises, SimulatedBackend, Stage, VirtualClock
from finesweep.scheduling.stacking import Stacking
from finesweep.search.broker import TrialBroker
from finesweep.search.mirror import holds_study
from finesweep.simulation import invariants
from finesweep.simulation.faults import Axis, Fault, FaultPlan, Strike
from finesweep.simulation.invariants import Harm, Rule, Seen, Truth, Violation, violations
from finesweep.simulation.snapshot import EMPTY, Snapshot, mirrored, read_mirror, read_snapshot
from finesweep.simulation.striking import Here, KilledError, Striker, StruckWriter
from finesweep.simulation.workload import GRID, STALL_S, STEPS, Workload, said, script, stack_key
from finesweep.spec.study import Objective
from finesweep.sweeps import Place, drive_stored
from finesweep.verification.plan import VERIFICATION
from finesweep.verification.race import Race

BEGIN_S = 1_800_000_000.0  # what the wall clock says when the virtual one says 0
BACK_S = 3600.0  # by which a clock steps back
MOST_DRIVES = 40  # of one sweep: one that needs more never ends
HOST = "simulated"  # another host than this one: whether a driver lives is told by its lease alone
EVERY_WORKER = 1000

_STAGES: dict[Fault, Stage] = {
    Fault.WORKER_LOST: Dies(0.0),
    Fault.NODE_REMOVED: Dies(0.0, n_workers=EVERY_WORKER),
    Fault.CHECKPOINT_CUT: Dies(0.0),
    Fault.RAISES: Raises(0.0, "struck"),
    Fault.STALLS: Hangs(0.0),
    Fault.DISK_FULL: Blocks(0.0, "disk full: simulated"),
}


def make_template(path: Path) -> Path:
    """Make a database with all tables and nothing in them, to be copied: that is quicker than to make them again."""
    with open_writer(path) as writer:
        holds_study(writer.url, "")  # makes Optuna's
    return path


@dataclass(frozen=True, slots=True)
class Broken:
    """A violation, and the fault that struck last before it; None: none had."""

    violation: Violation
    after: Fault | None


class Simulation:
    """One sweep and its drivers, one after another; what is on disk survives them all."""

    def __init__(self, workload: Workload, folder: Path, *, template: Path, plan: FaultPlan | None = None) -> None:
        """Begin a sweep in `folder`, which is there, in a copy of an empty database."""
        self.struck: list[Strike] = []
        self.broken: list[Broken] = []
        self.n_drives = 0
        self.now: Snapshot = EMPTY  # the rows as they were last seen
        self._workload = workload
        self._name = workload.spec.name
        self._folder = folder
        self._path = folder / "finesweep.db"
        self._plan = plan or FaultPlan()
        self._truth = Truth(workload.spec, said, STEPS, may_end_early=workload.plan is not None)
        self._clock = VirtualClock()
        self._back_s = 0.0
        self._checkpoints: dict[int, int] = {}
        self._trace: list[str] = []
        self._on_event: Callable[[], None] = _nothing
        self._broker: TrialBroker | None = None
        self._gone: tuple[StruckWriter, Snapshot] | None = None  # the last driver that died, and what it left
        shutil.copyfile(template, self._path)

    @property
    def faults(self) -> set[Fault]:
        """Those that struck."""
        return {strike.fault for strike in self.struck}

    @property
    def url(self) -> str:
        """Name the database, to be read once the sweep is over."""
        return f"sqlite:///{self._path}"

    @property
    def text(self) -> str:
        """Everything that happened, and what is stored in the end."""
        return "\n".join([*self._trace, self.now.text()])

    def run(self, *, on_event: Callable[[], None] | None = None) -> None:
        """Drive the sweep until it is finished, telling `on_event` each time that events were stored."""
        self._on_event = on_event or _nothing
        if not self.n_drives:
            with open_writer(self._path, clock=self._wall) as writer:
                writer.create_sweep(self._workload.spec, grid=GRID, provenance=self._provenance())
        with closing(sqlite3.connect(self._path, isolation_level=None)) as self._reader:
            while self.n_drives < MOST_DRIVES:
                if self._drive(self._plan.of_drive(self.n_drives)):
                    return
        self._break(Violation(Harm.LOST, "sweeps_end", f"not finished after {MOST_DRIVES} drives"))

    def left_by_death(self, folder: Path, *, cuts_checkpoints: bool = False) -> Simulation:
        """Copy what would be left if the driver died now. The sweep can be run to its end from there."""
        copy = Simulation(self._workload, folder, template=self._path)
        with closing(sqlite3.connect(self._path)) as one, closing(sqlite3.connect(copy._path)) as other:
            one.backup(other)
        copy._clock = VirtualClock(self._clock() + LEASE_S)
        copy._checkpoints = dict(self._checkpoints)
        copy.n_drives, copy.now = self.n_drives, self.now
        if cuts_checkpoints:
            copy._cut_all()
        return copy

    # --- one drive ------------------------------------------------------------------------------------------------

    def _drive(self, strikes: Sequence[Strike]) -> bool:
        """Drive the sweep once. Tell whether it is finished."""
        self.n_drives += 1
        self._broker = None
        self._striker = Striker(strikes, self._acts())
        engine = writing_engine(f"sqlite:///{self._path}")
        end: SweepEnd | None = None
        writer = StruckWriter(f"sqlite:///{self._path}", engine, self._wall, self._striker)
        with closing(writer):
            try:
                with self._striker.watching(engine):
                    end = self._drive_as_real(writer)
            except (KilledError, KeyboardInterrupt, DriveError, SweepHeldError) as error:
                self._trace.append(f"{self.n_drives} {self._clock():.6f} {type(error).__name__} {error}")
                if not self._striker.struck:
                    self._break(Violation(Harm.LOST, "drivers_do_not_fail", repr(error)))
        self.struck.extend(self._striker.struck)
        if end is None:
            self._bury(writer)
            return False
        self._trace.append(f"{self.n_drives} {self._clock():.6f} {end}")
        is_over = end.state is SweepState.FINISHED or (end.state is SweepState.FAILED and end.reason is None)
        of_end: Sequence[Rule] = (invariants.everything_is_done,) if is_over else ()
        self._look((*invariants.EVER, invariants.nothing_is_open, invariants.mirror_is_whole, *of_end))
        return is_over

    def _drive_as_real(self, writer: StruckWriter) -> SweepEnd:
        try:
            writer.refuse_if_held(self._name)
        except SweepHeldError:  # the clock was set back, so that the lease of the dead lasts
            take_over = True
        else:
            take_over = False
        plan = self._workload.plan
        return drive_stored(
            self._workload.spec,
            Place(writer.url, self._folder),
            GRID,
            lambda: _Watched(self._backend(), self._begin),
            writer=writer,
            view=_View(self._after),
            take_over=take_over,
            holder=Holder(HOST, self.n_drives, 1),
            clock=self._clock,
            copying=Here(),
            agenda=None if plan is None else Race(plan, self._workload.spec.study.objective),
        )

    def _provenance(self) -> Mapping[str, Any]:
        plan = self._workload.plan
        return {} if plan is None else {VERIFICATION: plan.model_dump(mode="json")}

    def _backend(self) -> SimulatedBackend:
        return SimulatedBackend(
            script,
            n_slots=self._workload.n_slots,
            clock=self._clock,
            checkpoints=self._checkpoints,
            stacking=Stacking(self._workload.n_lanes, stack_key),
            stall_s=STALL_S,
            chance=self._befall,
        )

    def _begin(self, broker: TrialBroker) -> None:
        self._broker = broker
        self._look((*invariants.EVER, invariants.nothing_is_open))

    def _after(self, events: Sequence[Event]) -> None:
        self._trace.extend(f"{self.n_drives} {self._clock():.6f} {event!r}" for event in events)
        rules = invariants.EVER if self._broker is None else (*invariants.EVER, invariants.sampler_was_told_the_truth)
        self._look(rules)
        self._on_event()

    def _bury(self, writer: StruckWriter) -> None:
        """Leave a driver that did not come to say how it ended, until its lease is over."""
        self._look((*invariants.EVER, invariants.mirror_is_not_ahead))
        if any(strike.cuts_checkpoints for strike in self._striker.struck):
            self._cut_all()
        self._gone = (writer, self.now)
        self._clock.now_s += LEASE_S

    def _wall(self) -> float:
        return BEGIN_S + self._clock() - self._back_s

    # --- looking --------------------------------------------------------------------------------------------------

    def _look(self, rules: Sequence[Rule]) -> None:
        """Hold what is stored now to rules."""
        before, self.now = self.now, read_snapshot(self._reader, self._name)
        seen = Seen(
            self._truth,
            before,
            self.now,
            study=lambda: [] if self._broker is None else mirrored(self._broker.study),
            mirror=lambda: read_mirror(self._reader, self._name),
        )
        for violation in violations(rules, seen):
            self._break(violation)

    def _break(self, violation: Violation) -> None:
        struck = [*self.struck, *self._striker.struck]
        self.broken.append(Broken(violation, struck[-1].fault if struck else None))

    # --- what strikes from outside ----------------------------------------------------------------------------------

    def _acts(self) -> dict[Fault, Callable[[], None]]:
        acts: dict[Fault, Callable[[], None]] = {
            Fault.CTRL_C: partial(_press_ctrl_c, 1),
            Fault.CTRL_C_TWICE: partial(_press_ctrl_c, 2),
            Fault.STOP: partial(self._elsewhere, lambda writer: writer.request_stop(self._name)),
            Fault.TAKEN_OVER: self._take_over,
            Fault.CLOCK_BACK: self._step_back,
        }
        if self._gone is not None:
            acts[Fault.LATE_WORKER] = partial(self._report_late, *self._gone)
        return acts

    def _befall(self, number: int) -> Stage | None:
        """Have something happen to a trial instead of what it would do."""
        for fault in self._striker.due(Axis.STAGES):
            self._striker.note(fault)
            if fault is Fault.CHECKPOINT_CUT:
                self._cut(number)
            return _STAGES[fault]
        return None

    def _cut(self, number: int) -> None:
        """Have the last checkpoint of a trial be worth nothing: the one before it is used."""
        self._checkpoints[number] = max(0, self._checkpoints.get(number, 0) - 1)

    def _cut_all(self) -> None:
        for number in self._checkpoints:
            self._cut(number)

    def _elsewhere(self, act: Callable[[ResultsWriter], None]) -> None:
        with open_writer(self._path, clock=self._wall) as writer:
            act(writer)

    def _take_over(self) -> None:
        """Have another driver take the sweep from this one, and end before it does anything."""

        def act(writer: ResultsWriter) -> None:
            writer.acquire(self._name, Holder(HOST, 1000 + self.n_drives, 1), take_over=True)
            writer.release(self._name)

        self._elsewhere(act)

    def _step_back(self) -> None:
        self._back_s += BACK_S

    def _report_late(self, writer: StruckWriter, left: Snapshot) -> None:
        """Have the workers of the last driver that died report to it, as if it were not quite dead."""
        before = read_snapshot(self._reader, self._name).text()
        begun = left.attempts if writer.store is not None else {}  # it died before it took the sweep: none is its own
        for number, attempts in begun.items():
            if attempts[-1].is_open and self._is_heard(writer, number, attempts[-1].attempt):
                self._break(Violation(Harm.ZOMBIE, "late_workers_are_refused", f"trial {number} was heard"))
        writer.close()
        if read_snapshot(self._reader, self._name).text() != before:
            self._break(Violation(Harm.MISLABELLED, "late_workers_change_nothing", "they did"))

    def _is_heard(self, writer: StruckWriter, number: int, attempt: int) -> bool:
        report = Report(STEPS[-1], {"accuracy": 1.0, "size": 0.0}, STEPS[-1], final=True)
        assert writer.store is not None, "it has stored the beginning of this attempt"
        try:
            writer.store([Reported(number, attempt, report, Decision.CONTINUE, {})])
            writer.store(
                [
                    AttemptEnded(number, attempt, AttemptResult(Ending.DONE)),
                    TrialFinished(number, TrialState.COMPLETE, None, 1.0, STEPS[-1]),
                ]
            )
        except SweepHeldError:
            return False
        return True


class _Watched:
    """A backend that says whose trials it is about to run."""

    def __init__(self, backend: Backend, begins: Callable[[TrialBroker], None]) -> None:
        self._backend = backend
        self._begins = begins

    def run(self, broker: TrialBroker, tick: Tick) -> None:
        self._begins(broker)
        self._backend.run(broker, tick)


class _View:
    """Hears of events once everybody else has."""

    def __init__(self, after: Callable[[Sequence[Event]], None]) -> None:
        self._after = after

    def begin(self, objectives: Sequence[Objective], n_trials: int, history: SweepHistory) -> None: ...

    def set_total(self, n_trials: int) -> None: ...

    def __call__(self, events: Sequence[Event]) -> None:
        self._after(events)

    def refresh(self) -> None: ...

    def say(self, text: str) -> None: ...


def _press_ctrl_c(times: int) -> None:
    for _ in range(times):
        signal.raise_signal(signal.SIGINT)


def _nothing() -> None: ...
