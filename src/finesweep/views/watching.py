"""Following a sweep that another process runs: looks at the database every second, until nobody drives the sweep.

On a terminal a picture that is drawn anew, elsewhere a line for each trial that has ended since the last look.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table as RichTable
from rich.text import Text

from finesweep.results.frames import Results, TrialResult
from finesweep.results.objectives import values_text
from finesweep.views.picture import configuration_text, short
from finesweep.views.printing import duration_text, rich_table, sparkline
from finesweep.views.running import RunningRow, read_running
from finesweep.views.selection import Selection
from finesweep.views.tables import leaderboard

EVERY_S = 1.0
MOST_TRIALS_SHOWN = 10
CURVE_WIDTH = 16  # characters
_ENDED = ("COMPLETE", "PRUNED", "FAILED")
_COUNTED = ("complete", "pruned", "failed", "running", "interrupted", "waiting")


def watch(
    results: Results, sweep: str, console: Console, *, sleep: Callable[[float], None], selection: Selection
) -> None:
    """Follow a sweep to the end of its drive; one that nobody drives is shown once. Raises SweepNameError."""
    results.spec(sweep)  # raises for a name that is not there
    if not console.is_terminal:
        _write_lines(results, sweep, console, sleep=sleep)
        return
    with Live(console=console, auto_refresh=False) as live:
        while True:
            row = _row(results, sweep)  # before the trials: those shown last are then the end
            live.update(picture(results, row, selection=selection), refresh=True)
            if _is_over(row):
                return
            sleep(EVERY_S)


def picture(results: Results, row: pd.Series[Any], *, selection: Selection) -> RenderableType:
    """Draw how far a sweep is, the trials that run, and the first of its leaderboard. `row`: of `Results.sweeps`."""
    sweep = str(row["sweep"])
    shown = replace(selection, top=selection.top or MOST_TRIALS_SHOWN)
    running = read_running(results, sweep, _numbers(results, sweep, ["RUNNING"]))
    return Group(
        Text(_headline(row)),
        *([_running_table(running)] if running else []),
        rich_table(leaderboard(results, sweep, selection=shown)),
    )


def _write_lines(results: Results, sweep: str, console: Console, *, sleep: Callable[[float], None]) -> None:
    told: set[int] = set()
    while True:
        row = _row(results, sweep)
        for number in _numbers(results, sweep, _ENDED):
            if number not in told:
                told.add(number)
                console.file.write(f"{_ending(results.trial(sweep, number))}\n")
        console.file.flush()
        if _is_over(row):
            console.file.write(f"{_headline(row)}\n")
            return
        sleep(EVERY_S)


def _is_over(row: pd.Series[Any]) -> bool:
    return bool(pd.isna(row["driver"]))


def _row(results: Results, sweep: str) -> pd.Series[Any]:
    frame = results.sweeps()
    return frame[frame["sweep"] == sweep].iloc[0]


def _numbers(results: Results, sweep: str, states: Sequence[str]) -> list[int]:
    trials = results.trials(sweep)
    return [int(number) for number in trials[trials["state"].isin(states)]["number"]]


def _headline(row: pd.Series[Any]) -> str:
    ended = sum(row[state.lower()] for state in _ENDED)
    counts = [f"{row[state]} {state}" for state in _COUNTED if row[state]]
    parts = [
        f"{row['sweep']} {row['state']}: {ended}/{row['budget_trials']} trials",
        *counts,
        f"{duration_text(row['seconds_used'])} of running",
    ]
    if not pd.isna(row["best_trial"]):
        parts.append(f"best {row['metric']} {short(row['best_value'])} (trial {row['best_trial']})")
    return ", ".join(parts)


def _running_table(running: Sequence[RunningRow]) -> RenderableType:
    table = RichTable(box=None, padding=(0, 2, 0, 0))
    for header in ("trial", "step", "last"):
        table.add_column(header, justify="right")
    table.add_column("curve", no_wrap=True)
    table.add_column("device")
    table.add_column("configuration", no_wrap=True, overflow="ellipsis")
    for trial in running:
        table.add_row(
            str(trial.number),
            trial.step_text("/"),
            short(trial.curve[-1]) if trial.curve else "",
            sparkline(trial.curve, CURVE_WIDTH),
            trial.device,
            Text(configuration_text(trial.configuration)),
        )
    return table


def _ending(trial: TrialResult) -> str:
    how = f"{trial.state}" + (f" ({trial.reason})" if trial.reason else "")
    values = f" {values_text(trial.values)} at step {trial.value_step:,}" if trial.values else ""
    reused = "" if trial.reused_from is None else f", as trial {trial.reused_from}"
    return f"trial {trial.number} {how}{values}{reused}: {configuration_text(trial.configuration)}"
