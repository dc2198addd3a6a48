"""What `run` and `resume` show: a live picture on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from finesweep.events import Event, SweepHistory, TrialFinished, TrialInterrupted
from finesweep.spec.study import Objective
from finesweep.views.picture import (
    Picture,
    configuration_text,
    counts_text,
    ending_text,
    memory_text,
    short,
    warmup_text,
)
from finesweep.views.printing import duration_text, sparkline

MOST_STOPS_SHOWN = 3  # of the trials that ended last
CURVE_WIDTH = 16  # characters

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
        self._picture = Picture.after(objectives, n_trials, history, clock=self._clock)
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
        table.add_column("curve", no_wrap=True)
        table.add_column("examples/s", justify="right")
        table.add_column("memory", justify="right")
        table.add_column("device")
        table.add_column("configuration", no_wrap=True, overflow="ellipsis")
        for trial in self._picture.running.values():
            table.add_row(
                str(trial.number),
                f"{trial.step:,}" + (f"/{trial.last_step:,}" if trial.last_step else ""),
                short(trial.last),
                short(trial.best),
                sparkline(trial.curve, CURVE_WIDTH),
                "" if trial.examples_per_s is None else f"{trial.examples_per_s:,.0f}",
                memory_text(trial.memory_gib),
                trial.device,
                Text(configuration_text(trial.configuration) + warmup_text(trial)),
            )
        return table
