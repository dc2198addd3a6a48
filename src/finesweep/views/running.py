"""The trials of a sweep that run, as its reports tell of them: for whoever looks at it from outside."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from finesweep.events import MEMORY_GIB, Configuration
from finesweep.results.frames import Results
from finesweep.results.jobs import place_text


@dataclass(frozen=True, slots=True)
class RunningRow:
    """How far a trial is, and how its leading objective has been."""

    number: int
    step: int  # of the sweep's grid, at its last report
    last_step: int | None  # of its schedule, once the worker has told it
    curve: tuple[float, ...]
    device: str  # or the job that it is at a fine-tuning server
    memory_gib: float | None  # at its last report
    configuration: Configuration

    def step_text(self, between: str) -> str:
        """Say at which step it is, and of how many where that is known."""
        return f"{self.step:,}" if self.last_step is None else f"{self.step:,}{between}{self.last_step:,}"


def read_running(results: Results, sweep: str, numbers: Iterable[int]) -> list[RunningRow]:
    """Read trials, one by one. Raises ResultsError for one that is not there."""
    metric = results.spec(sweep).study.objective.metric
    running = []
    numbers = list(numbers)
    telemetry = results.telemetry(sweep, numbers=numbers)
    memory = telemetry[telemetry["name"] == MEMORY_GIB].groupby("number")["value"].last()
    for number in numbers:
        trial = results.trial(sweep, number)
        last_step = trial.facts.get("last_step")
        running.append(
            RunningRow(
                number=number,
                step=trial.reports[-1].step if trial.reports else 0,
                last_step=last_step if isinstance(last_step, int) else None,
                curve=tuple(report.metrics[metric] for report in trial.reports if metric in report.metrics),
                memory_gib=float(memory[number]) if number in memory.index else None,
                device=place_text(trial.facts),
                configuration=trial.configuration,
            )
        )
    return running
