"""Trials that do what a script says, for backends that really run a trainer."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from finesweep.events import AttemptResult, Decision, Ending, Report, TrialSpec
from finesweep.scheduling.simulated import Dies, Raises, Says, Stage
from finesweep.trainer import Reporter, StackReporter

_ENDINGS = {Decision.STOP: Ending.STOPPED, Decision.PAUSE: Ending.PAUSED}


@dataclass(frozen=True)
class ScriptedTrainer:
    """Plays a trial's stages; a death is real. Time is shortened by `speed`."""

    script: Callable[[TrialSpec], Sequence[Stage]]
    clean_up_s: float = 0.0
    speed: float = 0.0  # real seconds per scripted second

    def __call__(self) -> ScriptedTrainer:
        return self

    def run(self, trial: TrialSpec, reporter: Reporter) -> AttemptResult:
        for stage in self.script(trial):
            time.sleep(stage.after_s * self.speed)
            decision = reporter.poll()
            match stage:
                case Says(report=report) if decision is Decision.CONTINUE:
                    decision = reporter.report(report)
                case Raises(reason=reason):
                    raise RuntimeError(reason)
                case Dies(attempt=attempt) if attempt == trial.attempt:
                    os.kill(os.getpid(), signal.SIGKILL)
            if decision is not Decision.CONTINUE:
                time.sleep(self.clean_up_s)
                return AttemptResult(_ENDINGS[decision])
        return AttemptResult(Ending.DONE)


@dataclass(frozen=True)
class ScriptedStackTrainer(ScriptedTrainer):
    """Plays the stages of several trials side by side: the first of each, then the second of each, and so on."""

    def __call__(self) -> ScriptedStackTrainer:
        return self

    def can_stack(self, trials: Sequence[TrialSpec]) -> bool:
        return True

    def run_stack(self, trials: Sequence[TrialSpec], reporter: StackReporter) -> None:
        numbers = [trial.number for trial in trials]
        for number in numbers:
            reporter.describe(number, {"stack": numbers})
        lanes = {trial.number: (trial, iter(self.script(trial))) for trial in trials}
        while lanes:
            reports: dict[int, Report] = {}
            time.sleep(self.speed)
            for number, (trial, stages) in list(lanes.items()):
                word = reporter.poll(number)
                if word.must_return:
                    del lanes[number]
                    reporter.end(number, AttemptResult(_ENDINGS[word]))
                    continue
                match next(stages, None):
                    case None:
                        del lanes[number]
                        reporter.end(number, AttemptResult(Ending.DONE))
                    case Says(report=report):
                        reports[number] = report
                    case Raises(reason=reason):
                        raise RuntimeError(reason)
                    case Dies(attempt=attempt) if attempt == trial.attempt:
                        os.kill(os.getpid(), signal.SIGKILL)
            for number, decision in reporter.report(reports).items() if reports else ():
                if decision.must_return:
                    del lanes[number]
                    reporter.end(number, AttemptResult(_ENDINGS[decision]))
