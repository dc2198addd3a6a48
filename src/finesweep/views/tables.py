"""Tables for people and for --json: the trials of a sweep, best first, and the sweeps of a database.

Makes rows only; how they look is the affair of `views.printing`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from finesweep.errors import ResultsError
from finesweep.events import TrialState
from finesweep.results.columns import FACT_COLUMNS, METRIC_PREFIX, OBJECTIVE_PREFIX, ON_FRONT, TRIAL_COLUMNS, json_rows
from finesweep.results.frames import Results, TrialResult
from finesweep.results.objectives import values_text
from finesweep.views.selection import EVERYTHING, Selection

_WARMUP = "clamped_warmup"

Kind = Literal["text", "number", "duration", "bytes", "mark"]
_RANKS = {TrialState.COMPLETE: 0, TrialState.PRUNED: 1, TrialState.FAILED: 2}  # all others come last


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: its key in a row, and how a person sees it."""

    key: str
    header: str
    kind: Kind = "number"
    hidden_if_empty: bool = False
    is_printed: bool = True  # else for --json alone


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of JSON values by column key; None where there is nothing."""

    columns: tuple[Column, ...]
    rows: tuple[Mapping[str, Any], ...]


def leaderboard(
    results: Results, sweep: str, *, metrics: Sequence[str] = (), selection: Selection = EVERYTHING
) -> Table:
    """List a sweep's trials: COMPLETE by value, then PRUNED by how far they came, FAILED, and those not finished.

    With several objectives those on the front come first, and each objective has a column.
    `metrics` adds columns: their values at the step of the trial's value, or at its last report if it has none.
    Raises ResultsError for a metric that no trial reported.
    """
    study = results.spec(sweep).study
    frame = best_first(results.trials(sweep), maximize=study.objective.direction == "maximize")
    shown = {objective.metric for objective in study.objectives}
    metrics = [name for name in dict.fromkeys(metrics) if name not in shown]
    if metrics:
        frame = frame.merge(_metrics_at_value(results, sweep, metrics), how="left", on="number")
    return trials_table(frame, value_header=study.objective.metric, metrics=metrics, selection=selection)


def trials_table(
    frame: pd.DataFrame,
    *,
    value_header: str,
    metrics: Sequence[str] = (),
    with_sweep: bool = False,
    selection: Selection = EVERYTHING,
) -> Table:
    """Make the table of a frame of trials; `metrics` are extra columns of it, prefixed.

    Raises ResultsError for a column in the selection that is not there.
    """
    frame = selection.rows_of(frame, metric=value_header)
    extra = [f"{METRIC_PREFIX}{name}" for name in metrics]
    objectives = [name for name in frame.columns if name.startswith(OBJECTIVE_PREFIX)]
    known = {*TRIAL_COLUMNS, *objectives, ON_FRONT, *extra}
    parameters = [name for name in frame.columns if name not in known]
    columns: tuple[Column, ...] = (
        *([Column("sweep", "sweep", "text")] if with_sweep else []),
        Column("number", "trial"),
        *([Column(ON_FRONT, "front", "mark")] if objectives else []),
        Column("state", "state", "text"),
        Column("value", value_header),
        *(Column(key, key.removeprefix(OBJECTIVE_PREFIX)) for key in objectives),
        Column("value_step", "step"),
        *(Column(key, name) for key, name in zip(extra, metrics, strict=True)),
        *(Column(name, name) for name in parameters),
        Column(_WARMUP, "warm-up", "text", hidden_if_empty=True),
        Column("examples_seen", "examples"),
        Column("trained_tokens", "tokens", hidden_if_empty=True),
        Column("cost", "cost", hidden_if_empty=True),
        Column("duration_s", "time", "duration"),
        Column("reused_from", "reused from", hidden_if_empty=True),
        Column("reason", "reason", "text", hidden_if_empty=True),
        Column("fine_tuned_model", "tuned model", "text", hidden_if_empty=True),
        *(Column(name, name, is_printed=False) for name in (*FACT_COLUMNS, "job")),
    )
    rows = [{**row, _WARMUP: _clamped_text(row)} for row in json_rows(frame)]
    if selection.columns:
        headers = {column.key: column for column in columns if column.is_printed}
        chosen = selection.columns_of(frame, metric=value_header)
        columns = tuple(headers.get(name, _column_of(frame, name)) for name in chosen)
    return Table(columns, tuple({column.key: row[column.key] for column in columns} for row in rows))


def _column_of(frame: pd.DataFrame, name: str) -> Column:
    """Show a column of a frame under its own name."""
    return Column(name, name, "number" if pd.api.types.is_numeric_dtype(frame[name]) else "text")


def _clamped_text(row: Mapping[str, Any]) -> str | None:
    """Say how much of a trial's warm-up there was, where that is less than was asked for."""
    asked, effective = row["asked_warmup_steps"], row["effective_warmup_steps"]
    return None if asked == effective else f"{effective:,} of {asked:,}"


def sweeps_table(results: Results, *, selection: Selection = EVERYTHING) -> Table:
    """List the sweeps of a database, newest first."""
    columns: tuple[Column, ...] = (
        Column("sweep", "sweep", "text"),
        Column("verifies", "verifies", "text", hidden_if_empty=True),
        Column("state", "state", "text"),
        Column("best_value", "best"),
        Column("metric", "metric", "text"),
        Column("best_trial", "trial"),
        Column("complete", "complete"),
        Column("pruned", "pruned"),
        Column("failed", "failed"),
        Column("running", "running"),
        Column("interrupted", "interrupted"),
        Column("waiting", "waiting"),
        Column("budget_trials", "budget"),
        Column("seconds_used", "time", "duration"),
        Column("created_at", "created", "text"),
        Column("driver", "driver", "text", hidden_if_empty=True),
        Column("end_reason", "reason", "text", hidden_if_empty=True),
    )
    newest_first = results.sweeps().iloc[::-1]
    if selection.columns:
        known = {column.key: column for column in columns}
        columns = tuple(known.get(name, _column_of(newest_first, name)) for name in selection.columns_of(newest_first))
    return Table(columns, json_rows(selection.rows_of(newest_first)[[column.key for column in columns]]))


def best_text(front: Sequence[TrialResult]) -> str:
    """Say which trial is the best or, where several objectives leave that open, which trials no other beats."""
    best = front[0]
    if len(best.values) == 1:
        [(metric, value)] = best.values.items()
        return f"Best: trial {best.number}, {metric} {value:.4f} at step {best.value_step:,}."
    lines = [f"  trial {trial.number}: {values_text(trial.values)} at step {trial.value_step:,}" for trial in front]
    who = "No trial beats this one" if len(front) == 1 else f"No trial beats these {len(front)}, the front"
    return "\n".join([f"{who}:", *lines])


def best_first(frame: pd.DataFrame, *, maximize: bool) -> pd.DataFrame:
    """Order trials: COMPLETE by value, PRUNED by examples seen, then FAILED, then the others; equals by number.

    COMPLETE trials on the front, where there are several objectives, stand before the others.
    """
    keys = pd.DataFrame(
        {
            "rank": frame["state"].map(lambda state: _RANKS.get(state, len(_RANKS))),
            "is_beaten": ~frame[ON_FRONT].fillna(value=False) if ON_FRONT in frame else False,
            "value": -frame["value"] if maximize else frame["value"],
            "examples": -frame["examples_seen"].where(frame["state"] == TrialState.PRUNED, 0),
            "number": frame["number"],
        }
    )
    return frame.loc[keys.sort_values(list(keys.columns), kind="stable").index].reset_index(drop=True)


def _metrics_at_value(results: Results, sweep: str, metrics: Sequence[str]) -> pd.DataFrame:
    found = results.metrics(sweep, metrics)
    if found[list(metrics)].isna().all().any():  # reported at no trial's value, or never
        known = sorted(results.points(sweep)["metric"].unique())
        unknown = [name for name in metrics if name not in known]
        if unknown:
            listed = ", ".join(known) or "none yet"
            raise ResultsError(f"metric {unknown[0]!r} was not reported in sweep {sweep!r}. Reported: {listed}.")
    return found.rename(columns={name: f"{METRIC_PREFIX}{name}" for name in metrics})
