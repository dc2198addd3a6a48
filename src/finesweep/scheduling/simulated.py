"""The simulated backend: whole sweeps on a virtual clock, for tests and forecasts. No real time, no threads.

What trials do is data: a script gives each trial's stages, drawn from nothing but the trial, so that the same seed
gives the same trace.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass, field

from finesweep.events import AttemptResult, Decision, Ending, Report, TrialSpec
from finesweep.scheduling.assignments import Assignments
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
    """The worker is lost with all trials of its assignment, at this attempt of the trial only."""

    after_s: float
    attempt: int = 1


Stage = Says | Raises | Dies
Script = Callable[[TrialSpec], Sequence[Stage]]


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
    trial: TrialSpec = field(compare=False)
    stages: Sequence[Stage] = field(compare=False)
    at: int = field(compare=False)  # index of the stage that is due; len(stages) is the end


class SimulatedBackend:
    """Run trials on `n_slots` slots of a virtual clock.

    Trials of one assignment run side by side; what they report at the same moment is judged, and stored, together.
    `checkpoints` maps a trial's number to the stage it would go on from: kept by the caller, it survives a simulated
    death of the driver as files do.
    """

    def __init__(
        self,
        script: Script,
        *,
        n_slots: int,
        clock: VirtualClock | None = None,
        checkpoints: MutableMapping[int, int] | None = None,
        stacking: Stacking = ALONE,
    ) -> None:
        self.clock = clock or VirtualClock()
        self._script = script
        self._n_slots = n_slots
        self._checkpoints = {} if checkpoints is None else checkpoints
        self._stacking = stacking
        self._running: list[_Attempt] = []  # a heap
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
            for trial in assignment:
                broker.begin(trial.number)
                stages = [s for s in self._script(trial) if not isinstance(s, Dies) or s.attempt == trial.attempt]
                at = self._checkpoints.get(trial.number, 0)
                self._schedule(_Attempt(0.0, self._n_begun, trial.number, trial, stages, at))
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
        if any(isinstance(stage, Dies) for _, stage in due):
            self._lose(broker, attempts)
            return
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
                case AttemptResult():
                    broker.finish(attempt.number, stage)

    def _stage(self, broker: TrialBroker, attempt: _Attempt) -> Stage | AttemptResult:
        """Tell what an attempt does now, or how it ends."""
        word = broker.poll(attempt.number)
        if word is not Decision.CONTINUE:
            return AttemptResult(ENDINGS[word])
        return AttemptResult(Ending.DONE) if attempt.at == len(attempt.stages) else attempt.stages[attempt.at]

    def _lose(self, broker: TrialBroker, attempts: Sequence[_Attempt]) -> None:
        of_worker = attempts[0].assignment
        lost = {attempt.number for attempt in (*attempts, *self._running) if attempt.assignment == of_worker}
        self._running = [attempt for attempt in self._running if attempt.assignment != of_worker]
        heapq.heapify(self._running)
        with broker.together():
            for number in sorted(lost, reverse=True):  # each is put before those that wait
                broker.finish(number, AttemptResult(Ending.LOST, reason="worker lost: simulated"))

    def _schedule(self, attempt: _Attempt) -> None:
        is_over = attempt.at == len(attempt.stages)
        attempt.due_s = self.clock.now_s + (0.0 if is_over else attempt.stages[attempt.at].after_s)
        heapq.heappush(self._running, attempt)
