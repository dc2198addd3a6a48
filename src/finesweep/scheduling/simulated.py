"""The simulated backend: whole sweeps on a virtual clock, for tests and forecasts. No real time, no threads.

What trials do is data: a script gives each trial's stages, drawn from nothing but the trial, so that the same seed
gives the same trace.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass, field

from finesweep.events import AttemptResult, Decision, Ending, Report, TrialSpec
from finesweep.scheduling.backend import Tick
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
    """The worker is lost, at this attempt of the trial only."""

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
    order: int
    trial: TrialSpec = field(compare=False)
    stages: Sequence[Stage] = field(compare=False)
    at: int = field(compare=False)  # index of the stage that is due; len(stages) is the end


class SimulatedBackend:
    """Run trials on `n_slots` slots of a virtual clock.

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
    ) -> None:
        self.clock = clock or VirtualClock()
        self._script = script
        self._n_slots = n_slots
        self._checkpoints = {} if checkpoints is None else checkpoints
        self._running: list[_Attempt] = []
        self._n_begun = 0

    def run(self, broker: TrialBroker, tick: Tick) -> None:
        tick()
        while True:
            self._fill(broker)
            if not self._running:
                return
            attempt = heapq.heappop(self._running)
            self.clock.now_s = attempt.due_s
            tick()
            self._advance(broker, attempt)

    def _fill(self, broker: TrialBroker) -> None:
        while len(self._running) < self._n_slots:
            trial = broker.suggest()
            if isinstance(trial, NoTrial):
                return
            broker.begin(trial.number)
            stages = [s for s in self._script(trial) if not isinstance(s, Dies) or s.attempt == trial.attempt]
            self._schedule(_Attempt(0.0, self._n_begun, trial, stages, self._checkpoints.get(trial.number, 0)))
            self._n_begun += 1

    def _advance(self, broker: TrialBroker, attempt: _Attempt) -> None:
        number = attempt.trial.number
        word = broker.poll(number)
        if word is not Decision.CONTINUE:
            broker.finish(number, AttemptResult(_ENDINGS[word]))
            return
        if attempt.at == len(attempt.stages):
            broker.finish(number, AttemptResult(Ending.DONE))
            return
        match attempt.stages[attempt.at]:
            case Says(report=report):
                decision = broker.report(number, report)
                self._checkpoints[number] = attempt.at + 1
                if decision is Decision.CONTINUE:
                    attempt.at += 1
                    self._schedule(attempt)
                else:
                    broker.finish(number, AttemptResult(_ENDINGS[decision]))
            case Raises(reason=reason):
                broker.finish(number, AttemptResult(Ending.FAILED, reason=reason, traceback=reason))
            case Dies():
                broker.finish(number, AttemptResult(Ending.LOST, reason="worker lost: simulated"))

    def _schedule(self, attempt: _Attempt) -> None:
        is_over = attempt.at == len(attempt.stages)
        attempt.due_s = self.clock.now_s + (0.0 if is_over else attempt.stages[attempt.at].after_s)
        heapq.heappush(self._running, attempt)


_ENDINGS = {Decision.STOP: Ending.STOPPED, Decision.PAUSE: Ending.PAUSED}
