"""The simulated backend: whole sweeps on a virtual clock, for tests and forecasts. No real time, no threads.

What trials do is data: a script gives each trial's stages, drawn from nothing but the trial, so that the same seed
gives the same trace.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass, field

from finesweep.events import AttemptResult, Decision, Ending, Report, TrialSpec
from finesweep.scheduling.assignments import Assignments, ending_of_stall
from finesweep.scheduling.backend import Tick
from finesweep.scheduling.lanes import ENDINGS
from finesweep.scheduling.stacking import ALONE, Stacking
from finesweep.search.broker import NoTrial, TrialBroker


@dataclass(frozen=True, slots=True)
class Says:
    """The trial reports, `after_s` seconds of virtual time after its last stage."""

    after_s: float
    report: Report


@dataclass(frozen=True, slots=True)
class Raises:
    """The trainer raises."""

    after_s: float
    reason: str


@dataclass(frozen=True, slots=True)
class Dies:
    """The worker is lost with all trials of its assignment, at this attempt of the trial only.

    With it may go others at the same moment, those that would be heard of next, as when a node of a cluster is removed.
    """

    after_s: float
    attempt: int = 1
    n_workers: int = 1


@dataclass(frozen=True, slots=True)
class Hangs:
    """Nothing more is heard of the trial's assignment: its worker is killed at the sweep's limit for that."""

    after_s: float


@dataclass(frozen=True, slots=True)
class Blocks:
    """The trainer cannot go on until something beside the trial is mended, as a full disk."""

    after_s: float
    reason: str


@dataclass(frozen=True, slots=True)
class _Killed:
    """The end of an assignment that hangs."""

    after_s: float


Stage = Says | Raises | Dies | Hangs | Blocks
Script = Callable[[TrialSpec], Sequence[Stage]]
Chance = Callable[[int], Stage | None]  # asked with a trial's number: what befalls it instead of what it would do


@dataclass(slots=True)
class VirtualClock:
    now_s: float = 0.0

    def __call__(self) -> float:
        return self.now_s


@dataclass(order=True, slots=True)
class _Attempt:
    due_s: float
    assignment: int  # counted as they begin
    number: int
    stages: Sequence[Stage | _Killed] = field(compare=False)
    at: int = field(compare=False)  # index of the stage that is due; len(stages) is the end


class SimulatedBackend:
    """Run trials on `n_slots` slots of a virtual clock.

    Trials of one assignment run side by side; what they report at the same moment is judged, and stored, together.
    `checkpoints` maps a trial's number to the stage it would go on from: kept by the caller, it survives a simulated
    death of the driver as files do. A worker that was not heard of for `stall_s` is killed. `chance` is asked each time
    that a trial is to do something, and may have it do something worse.
    """

    def __init__(
        self,
        script: Script,
        *,
        n_slots: int,
        clock: VirtualClock | None = None,
        checkpoints: MutableMapping[int, int] | None = None,
        stacking: Stacking = ALONE,
        stall_s: float | None = None,
        chance: Chance = lambda number: None,
    ) -> None:
        self.clock = clock or VirtualClock()
        self._script = script
        self._n_slots = n_slots
        self._checkpoints = {} if checkpoints is None else checkpoints
        self._stacking = stacking
        self._stall_s = stall_s
        self._chance = chance
        self._running: list[_Attempt] = []  # a heap
        self._heard_s: dict[int, float] = {}  # assignment -> when it was last heard of
        self._n_begun = 0

    def run(self, broker: TrialBroker, tick: Tick) -> None:
        assignments = Assignments(broker, self._stacking, n_slots=self._n_slots)
        tick()
        while True:
            self._fill(broker, assignments)
            if not self._running:
                return
            attempts = self._next_due()
            self.clock.now_s = attempts[0].due_s
            tick()
            self._advance(broker, attempts)

    def _fill(self, broker: TrialBroker, assignments: Assignments) -> None:
        while len({attempt.assignment for attempt in self._running}) < self._n_slots:
            assignment = assignments.next()
            if isinstance(assignment, NoTrial):
                return
            self._heard_s[self._n_begun] = self.clock()
            for trial in assignment:
                broker.begin(trial.number)
                stages = [s for s in self._script(trial) if not isinstance(s, Dies) or s.attempt == trial.attempt]
                at = self._checkpoints.get(trial.number, 0)
                self._schedule(_Attempt(0.0, self._n_begun, trial.number, stages, at))
            self._n_begun += 1

    def _next_due(self) -> list[_Attempt]:
        """Take what happens next in one assignment, of all its trials that are due at the same moment."""
        due = [heapq.heappop(self._running)]
        while self._running and (self._running[0].due_s, self._running[0].assignment) == (
            due[0].due_s,
            due[0].assignment,
        ):
            due.append(heapq.heappop(self._running))
        return due

    def _advance(self, broker: TrialBroker, attempts: Sequence[_Attempt]) -> None:
        due = [(attempt, self._stage(broker, attempt)) for attempt in attempts]
        for _, stage in due:
            match stage:
                case Dies(n_workers=n_workers):
                    self._lose(broker, attempts, n_workers)
                    return
                case Hangs():
                    self._hang(attempts)
                    return
                case _Killed():
                    self._running.extend(attempts)
                    result = AttemptResult(ending_of_stall(len(attempts)), reason="stalled: simulated")
                    self._end(broker, attempts[0].assignment, result)
                    return
        self._heard_s[attempts[0].assignment] = self.clock()
        with broker.together():
            answers = {
                attempt.number: broker.report(attempt.number, stage.report)
                for attempt, stage in due
                if isinstance(stage, Says)
            }
        for attempt, stage in due:
            match stage:
                case Says():
                    self._checkpoints[attempt.number] = attempt.at + 1
                    decision = answers[attempt.number]
                    if decision is Decision.CONTINUE:
                        attempt.at += 1
                        self._schedule(attempt)
                    else:
                        broker.finish(attempt.number, AttemptResult(ENDINGS[decision]))
                case Raises(reason=reason):
                    broker.finish(attempt.number, AttemptResult(Ending.FAILED, reason=reason, traceback=reason))
                case Blocks(reason=reason):
                    broker.finish(attempt.number, AttemptResult(Ending.BLOCKED, reason=reason))
                case AttemptResult():
                    broker.finish(attempt.number, stage)

    def _stage(self, broker: TrialBroker, attempt: _Attempt) -> Stage | _Killed | AttemptResult:
        """Tell what an attempt does now, or how it ends."""
        if attempt.at < len(attempt.stages) and isinstance(stage := attempt.stages[attempt.at], _Killed):
            return stage
        if (worse := self._chance(attempt.number)) is not None:
            return worse
        word = broker.poll(attempt.number)
        if word is not Decision.CONTINUE:
            return AttemptResult(ENDINGS[word])
        return AttemptResult(Ending.DONE) if attempt.at == len(attempt.stages) else attempt.stages[attempt.at]

    def _lose(self, broker: TrialBroker, attempts: Sequence[_Attempt], n_workers: int) -> None:
        """Lose the workers of these attempts and of those that are due next."""
        self._running.extend(attempts)
        lost = list(dict.fromkeys([attempts[0].assignment, *(a.assignment for a in sorted(self._running))]))
        for assignment in lost[:n_workers]:
            self._end(broker, assignment, AttemptResult(Ending.LOST, reason="worker lost: simulated"))

    def _hang(self, attempts: Sequence[_Attempt]) -> None:
        """Have an assignment do nothing any more until it is killed."""
        if self._stall_s is None:
            raise ValueError("a trial hangs, and without stall_s it would for ever. Give a stall_s.")
        of_worker = attempts[0].assignment
        hanging = [*attempts, *(attempt for attempt in self._running if attempt.assignment == of_worker)]
        self._running = [attempt for attempt in self._running if attempt.assignment != of_worker]
        for attempt in hanging:
            attempt.due_s = max(self.clock(), self._heard_s[of_worker] + self._stall_s)
            attempt.stages, attempt.at = [_Killed(0.0)], 0
        self._running.extend(hanging)
        heapq.heapify(self._running)

    def _end(self, broker: TrialBroker, assignment: int, result: AttemptResult) -> None:
        """End all trials of an assignment whose worker is no more."""
        lost = {attempt.number for attempt in self._running if attempt.assignment == assignment}
        self._running = [attempt for attempt in self._running if attempt.assignment != assignment]
        heapq.heapify(self._running)
        with broker.together():
            for number in sorted(lost, reverse=True):  # each is put before those that wait
                broker.finish(number, result)

    def _schedule(self, attempt: _Attempt) -> None:
        is_over = attempt.at == len(attempt.stages)
        attempt.due_s = self.clock() + (0.0 if is_over else attempt.stages[attempt.at].after_s)
        heapq.heappush(self._running, attempt)
