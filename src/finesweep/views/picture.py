"""What is known of a running sweep, made of events alone: counts, the incumbent, the trials that run; and its words."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from finesweep.events import (
    MEMORY_GIB,
    AttemptDescribed,
    AttemptStarted,
    Configuration,
    Event,
    Report,
    Reported,
    SweepHistory,
    TrialFinished,
    TrialInterrupted,
    TrialState,
    TrialSuggested,
)
from finesweep.results.jobs import place_text
from finesweep.results.objectives import value_text
from finesweep.spec.front import pareto_front, trained_values
from finesweep.spec.study import Objective
from finesweep.views.printing import duration_text

MOST_POINTS = 64  # of a running trial's curve; a longer one is thinned


@dataclass(slots=True)
class RunningTrial:
    number: int
    configuration: Configuration
    step: int = 0
    last_step: int | None = None  # of its schedule, once the worker has told it
    last: float | None = None
    best: float | None = None
    curve: list[float] = field(default_factory=list)  # the leading objective's values, evenly thinned
    examples_per_s: float | None = None  # between its last two reports
    device: str = ""
    memory_gib: float | None = None  # that it holds on its device, at its last report
    warmup: tuple[int, int] | None = None  # steps there are and steps asked for, where these are more
    reported_s: float | None = None  # when it last did, or began
    examples_seen: int = 0
    stride: int = 1  # every so many reports one is in the curve
    n_reports: int = 0

    def take(self, report: Report, value: float, now_s: float) -> None:
        """Take a report of the objective's value."""
        self.step, self.last = report.step, value
        self.memory_gib = report.telemetry.get(MEMORY_GIB, self.memory_gib)
        if self.reported_s is not None and now_s > self.reported_s and report.examples_seen > self.examples_seen:
            self.examples_per_s = (report.examples_seen - self.examples_seen) / (now_s - self.reported_s)
        self.reported_s, self.examples_seen = now_s, report.examples_seen
        if self.n_reports % self.stride == 0:
            self.curve.append(value)
        self.n_reports += 1
        if len(self.curve) > MOST_POINTS:
            self.curve, self.stride = self.curve[::2], 2 * self.stride


@dataclass(slots=True)
class Picture:
    """What is known of a sweep from its events: counts, the incumbent, the trials that run."""

    objectives: Sequence[Objective]
    n_trials: int
    counts: dict[TrialState, int] = field(default_factory=lambda: dict.fromkeys(TrialState, 0))
    n_reused: int = 0
    front: dict[int, Sequence[float]] = field(default_factory=dict)  # trials that none beats, the incumbent first
    running: dict[int, RunningTrial] = field(default_factory=dict)
    configurations: dict[int, Configuration] = field(default_factory=dict)
    ended: RunningTrial | None = None  # the one that ended last, as it was
    best_since: tuple[int, float] | None = None  # when the incumbent came: trials ended by then, and the time
    clock: Callable[[], float] = time.monotonic

    @property
    def n_ended(self) -> int:
        """Count the trials that were trained to an outcome."""
        return sum(count for state, count in self.counts.items() if state.is_final) - self.n_reused

    @property
    def objective(self) -> Objective:
        """Give the leading objective, the one that is shown while trials run."""
        return self.objectives[0]

    @classmethod
    def after(
        cls,
        objectives: Sequence[Objective],
        n_trials: int,
        history: SweepHistory,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> Picture:
        """Begin with what earlier drives of the sweep have done."""
        picture = cls(objectives, n_trials, clock=clock)
        for trial in history.trials:
            picture.configurations[trial.number] = trial.configuration
            if trial.state.is_final:
                picture._count(trial.state, reused=trial.reused_from is not None)
        picture.front |= picture._ranked(trained_values(history.trials, objectives))
        return picture

    def take(self, event: Event) -> None:
        match event:
            case TrialSuggested():
                self.configurations[event.number] = event.configuration
            case AttemptStarted():
                configuration = self.configurations[event.number]
                self.running[event.number] = RunningTrial(event.number, configuration, reported_s=self.clock())
            case AttemptDescribed():
                self._describe(event)
            case Reported():
                self._report(event)
            case TrialFinished():
                self.ended = self.running.pop(event.number, None)
                self._count(event.state, reused=event.reused_from is not None)
                if event.values and event.reused_from is None:
                    self._rank({event.number: event.values})
            case TrialInterrupted():
                self.running.pop(event.number, None)

    def _count(self, state: TrialState, *, reused: bool) -> None:
        self.counts[state] += 1
        self.n_reused += reused

    def _rank(self, values: Mapping[int, Sequence[float]]) -> None:
        before = next(iter(self.front), None)
        self.front = self._ranked(values)
        if next(iter(self.front), None) != before:
            self.best_since = self.n_ended, self.clock()

    def _ranked(self, values: Mapping[int, Sequence[float]]) -> dict[int, Sequence[float]]:
        candidates = {**self.front, **values}
        return {number: candidates[number] for number in pareto_front(candidates, self.objectives)}

    def _describe(self, event: AttemptDescribed) -> None:
        trial = self.running.get(event.number)
        if trial is not None:
            trial.last_step = event.facts.get("last_step", trial.last_step)
            trial.device = place_text(event.facts) or trial.device
            effective, asked = event.facts.get("warmup_steps"), event.facts.get("warmup_steps_asked")
            if isinstance(effective, int) and isinstance(asked, int):
                trial.warmup = (effective, asked) if effective != asked else None

    def _report(self, event: Reported) -> None:
        trial = self.running.get(event.number)
        value = event.report.metrics.get(self.objective.metric)
        if trial is None or value is None:
            return
        trial.take(event.report, value, self.clock())
        if self.objective.is_better(value, trial.best):
            trial.best = value


def counts_text(picture: Picture) -> str:
    """Say in a line how far a sweep is and what is best."""
    counts = picture.counts
    parts = [
        f"{counts[TrialState.COMPLETE]} complete",
        f"{counts[TrialState.PRUNED]} pruned",
        f"{counts[TrialState.FAILED]} failed",
        f"{len(picture.running)} running",
    ]
    if picture.n_reused:
        parts.append(f"{picture.n_reused} reused")
    if picture.front:
        number, values = next(iter(picture.front.items()))
        parts.append(f"best {picture.objective.metric} {short(values[0])} (trial {number}{_since_text(picture)})")
    if len(picture.front) > 1:
        parts.append(f"{len(picture.front)} on the front")
    return ", ".join(parts)


def _since_text(picture: Picture) -> str:
    """Say how long ago the incumbent came, if it came while this picture was kept."""
    if picture.best_since is None:
        return ""
    n_ended, at_s = picture.best_since
    n_since = picture.n_ended - n_ended
    return f", {duration_text(picture.clock() - at_s)} and {n_since} trial{'' if n_since == 1 else 's'} ago"


def ending_text(picture: Picture, event: TrialFinished) -> str:
    """Say in a line how a trial ended."""
    ended = picture.ended if picture.ended is not None and picture.ended.number == event.number else None
    if event.reused_from is not None:
        how = f"same configuration as trial {event.reused_from}, whose result it takes over ({event.state})"
    elif event.state is TrialState.COMPLETE:
        values = zip(picture.objectives, event.values, strict=True)
        said = " ".join(f"{objective.metric}={value_text(value)}" for objective, value in values)
        how = f"COMPLETE {said} at step {event.value_step:,}"
        if event.number in picture.front:
            how += ", the best so far" if len(picture.objectives) == 1 else ", on the front"
        how += f" ({event.reason})" if event.reason else ""
    else:
        how = f"{event.state} ({event.reason})"
        if ended is not None and ended.last is not None and math.isfinite(ended.last):
            how += f" at step {ended.step:,} with {picture.objective.metric}={short(ended.last)}"
    configuration = configuration_text(picture.configurations.get(event.number, {}))
    warmup = warmup_text(ended) if ended is not None else ""
    return f"[{picture.n_ended}/{picture.n_trials}] trial {event.number} {how}: {configuration}{warmup}"


def configuration_text(configuration: Mapping[str, object]) -> str:
    return " ".join(f"{name}={short(value)}" for name, value in configuration.items())


def warmup_text(trial: RunningTrial) -> str:
    """Say how much warm-up there is, where that is less than was asked for."""
    return f" (warm-up {trial.warmup[0]:,} of {trial.warmup[1]:,} steps)" if trial.warmup else ""


def memory_text(gib: float | None) -> str:
    return "" if gib is None else f"{gib:.1f} GiB"


def short(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
