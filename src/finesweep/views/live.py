"""What `run` and `resume` show: a live picture on a terminal, plain lines elsewhere. Both are made of events alone."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from finesweep.events import (
    AttemptDescribed,
    AttemptStarted,
    Configuration,
    Event,
    Reported,
    SweepHistory,
    TrialFinished,
    TrialInterrupted,
    TrialState,
    TrialSuggested,
)
from finesweep.results.objectives import value_text
from finesweep.spec.front import pareto_front, trained_values
from finesweep.spec.study import Objective
from finesweep.views.printing import duration_text

MOST_STOPS_SHOWN = 3  # of the trials that ended last


@dataclass(slots=True)
class RunningTrial:
    number: int
    configuration: Configuration
    step: int = 0
    last_step: int | None = None  # of its schedule, once the worker has told it
    last: float | None = None
    best: float | None = None
    device: str = ""
    warmup: tuple[int, int] | None = None  # steps there are and steps asked for, where these are more


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

    @property
    def n_ended(self) -> int:
        """Count the trials that were trained to an outcome."""
        return sum(count for state, count in self.counts.items() if state.is_final) - self.n_reused

    @property
    def objective(self) -> Objective:
        """Give the leading objective, the one that is shown while trials run."""
        return self.objectives[0]

    @classmethod
    def after(cls, objectives: Sequence[Objective], n_trials: int, history: SweepHistory) -> Picture:
        """Begin with what earlier drives of the sweep have done."""
        picture = cls(objectives, n_trials)
        for trial in history.trials:
            picture.configurations[trial.number] = trial.configuration
            if trial.state.is_final:
                picture._count(trial.state, reused=trial.reused_from is not None)
        picture._rank(trained_values(history.trials, objectives))
        return picture

    def take(self, event: Event) -> None:
        match event:
            case TrialSuggested():
                self.configurations[event.number] = event.configuration
            case AttemptStarted():
                self.running[event.number] = RunningTrial(event.number, self.configurations[event.number])
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
        candidates = {**self.front, **values}
        self.front = {number: candidates[number] for number in pareto_front(candidates, self.objectives)}

    def _describe(self, event: AttemptDescribed) -> None:
        trial = self.running.get(event.number)
        if trial is not None:
            trial.last_step = event.facts.get("last_step", trial.last_step)
            trial.device = str(event.facts.get("device", trial.device))
            effective, asked = event.facts.get("warmup_steps"), event.facts.get("warmup_steps_asked")
            if isinstance(effective, int) and isinstance(asked, int):
                trial.warmup = (effective, asked) if effective != asked else None

    def _report(self, event: Reported) -> None:
        trial = self.running.get(event.number)
        value = event.report.metrics.get(self.objective.metric)
        if trial is None or value is None:
            return
        trial.step, trial.last = event.report.step, value
        if self.objective.is_better(value, trial.best):
            trial.best = value


_UNKNOWN = (Objective(metric="value", direction="maximize"),)  # before `begin`


class PlainView:
    """Writes a line for each trial that ends: for logs, pipes and continuous integration."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._picture = Picture(_UNKNOWN, 0)

    def begin(self, objectives: Sequence[Objective], n_trials: int, history: SweepHistory) -> None:
        self._picture = Picture.after(objectives, n_trials, history)

    def set_total(self, n_trials: int) -> None:
        self._picture.n_trials = n_trials
        self._write(f"the total is now {n_trials} trials")

    def __call__(self, events: Sequence[Event]) -> None:
        for event in events:
            self._picture.take(event)
            if isinstance(event, TrialFinished):
                self._write(ending_text(self._picture, event))
            elif isinstance(event, TrialInterrupted):
                self._write(f"trial {event.number} interrupted; it goes on under its own number")

    def refresh(self) -> None:
        """Nothing: lines are written as things happen."""

    def say(self, text: str) -> None:
        self._write(text)


class TerminalView:
    """Keeps a picture of the sweep at the foot of the terminal."""

    def __init__(self, console: Console, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._picture = Picture(_UNKNOWN, 0)
        self._console = console
        self._clock = clock
        self._began_s = clock()
        self._ended_before = 0
        self._stops: list[str] = []
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._shown_s = -1.0

    def __enter__(self) -> TerminalView:
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()

    def begin(self, objectives: Sequence[Objective], n_trials: int, history: SweepHistory) -> None:
        self._picture = Picture.after(objectives, n_trials, history)
        self._ended_before = self._picture.n_ended
        self._began_s = self._clock()
        self._live.start()

    def set_total(self, n_trials: int) -> None:
        self._picture.n_trials = n_trials

    def __call__(self, events: Sequence[Event]) -> None:
        for event in events:
            self._picture.take(event)
            if isinstance(event, TrialFinished):
                self._stops = [*self._stops, ending_text(self._picture, event)][-MOST_STOPS_SHOWN:]

    def refresh(self) -> None:
        now_s = self._clock()
        if now_s - self._shown_s >= 0.25:
            self._shown_s = now_s
            self._live.update(self.render(), refresh=True)

    def say(self, text: str) -> None:
        self._console.print(Text(text))

    def render(self) -> RenderableType:
        """Draw the picture as it is now."""
        return Group(
            self._progress(),
            Text(counts_text(self._picture)),
            self._running_table(),
            *(Text(stop, style="dim") for stop in self._stops),
        )

    def _progress(self) -> RenderableType:
        picture = self._picture
        row = Table.grid(padding=(0, 1))
        bar = ProgressBar(total=max(picture.n_trials, 1), completed=picture.n_ended, width=40)
        row.add_row(bar, f"{picture.n_ended}/{picture.n_trials} trials", self._time_left())
        return row

    def _time_left(self) -> str:
        elapsed_s = self._clock() - self._began_s
        ended = self._picture.n_ended - self._ended_before
        left = max(0, self._picture.n_trials - self._picture.n_ended)
        if not ended:
            return f"{duration_text(elapsed_s)} elapsed"
        return f"{duration_text(elapsed_s)} elapsed, about {duration_text(elapsed_s / ended * left)} left"

    def _running_table(self) -> RenderableType:
        table = Table(box=None, padding=(0, 2, 0, 0))
        for header in ("trial", "step", "last", "best"):
            table.add_column(header, justify="right")
        table.add_column("device")
        table.add_column("configuration", no_wrap=True, overflow="ellipsis")
        for trial in self._picture.running.values():
            table.add_row(
                str(trial.number),
                f"{trial.step:,}" + (f"/{trial.last_step:,}" if trial.last_step else ""),
                _value(trial.last),
                _value(trial.best),
                trial.device,
                Text(configuration_text(trial.configuration) + _warmup_text(trial)),
            )
        return table


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
        parts.append(f"best {picture.objective.metric} {_value(values[0])} (trial {number})")
    if len(picture.front) > 1:
        parts.append(f"{len(picture.front)} on the front")
    return ", ".join(parts)


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
            how += f" at step {ended.step:,} with {picture.objective.metric}={_value(ended.last)}"
    configuration = configuration_text(picture.configurations.get(event.number, {}))
    warmup = _warmup_text(ended) if ended is not None else ""
    return f"[{picture.n_ended}/{picture.n_trials}] trial {event.number} {how}: {configuration}{warmup}"


def configuration_text(configuration: Mapping[str, object]) -> str:
    return " ".join(f"{name}={_value(value)}" for name, value in configuration.items())


def _warmup_text(trial: RunningTrial) -> str:
    """Say how much warm-up there is, where that is less than was asked for."""
    return f" (warm-up {trial.warmup[0]:,} of {trial.warmup[1]:,} steps)" if trial.warmup else ""


def _value(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
