"""What the pages say of a sweep or a trial in a sentence. In: results. Out: text."""

from __future__ import annotations

import math

import pandas as pd

from finesweep.events import TrialState
from finesweep.results.frames import Results, TrialResult
from finesweep.results.objectives import value_text
from finesweep.spec.study import AshaPruner, HyperbandPruner, Objective
from finesweep.views.printing import duration_text

SILENT_S = 600.0  # without a report: a sweep that names no time of its own is worth a look


def age_text(seconds: float) -> str:
    """Say how long ago something was."""
    return "just now" if seconds < 1 else f"{duration_text(seconds)} ago"


def silence_text(heard_s: float | None, *, now_s: float, limit_s: float | None) -> str | None:
    """Say that a sweep that is driven has not been heard of for long; None if it has."""
    if heard_s is None or now_s - heard_s < (limit_s or SILENT_S):
        return None
    return f"stalled: the last report came {age_text(now_s - heard_s)}"


def outcome_text(results: Results, trial: TrialResult) -> str:
    """Say in a sentence how a trial ended and why."""
    spec = results.spec(trial.sweep)
    objective = spec.study.objective
    if trial.reused_from is not None:
        return f"It has the configuration of trial {trial.reused_from}, whose result it took over without training."
    match trial.state:
        case TrialState.COMPLETE:
            assert trial.value is not None
            why = f", ended by {trial.reason}" if trial.reason else ", its whole schedule"
            return (
                f"It came to {objective.metric} {value_text(trial.value)} at step {trial.value_step:,} and saw "
                f"{trial.examples_seen:,} examples{why}."
            )
        case TrialState.PRUNED:
            return _pruned_text(results, trial, objective)
        case TrialState.FAILED:
            return f"It failed after {trial.examples_seen:,} examples: {trial.reason or 'no reason is known'}."
        case TrialState.RUNNING:
            return f"It is being trained and has seen {trial.examples_seen:,} examples."
        case TrialState.INTERRUPTED:
            return f"It was interrupted after {trial.examples_seen:,} examples and goes on when the sweep is resumed."
        case _:
            return "It has not begun: it waits for a trial with the same configuration."


def _pruned_text(results: Results, trial: TrialResult, objective: Objective) -> str:
    begin = f"It was stopped at {trial.examples_seen:,} examples ({trial.reason or 'pruned'})"
    values = [report.metrics.get(objective.metric, math.nan) for report in trial.reports]
    if not values or not math.isfinite(values[-1]):
        return f"{begin}; its last {objective.metric} is no finite number."
    points = results.points(trial.sweep, step=trial.reports[-1].step)
    others = [value for value in points.loc[points["metric"] == objective.metric, "value"] if math.isfinite(value)]
    place = 1 + sum(objective.is_better(other, values[-1]) for other in others)
    pruner = results.spec(trial.sweep).study.pruner
    rule = ""
    if isinstance(pruner, AshaPruner | HyperbandPruner):
        rule = f"; of those that come to a rung, one in {pruner.reduction_factor} goes on"
    return (
        f"{begin} with {objective.metric} {value_text(values[-1])}: number {place} of the {len(others)} trials that "
        f"have reported there until now{rule}."
    )


def moment_text(seconds: float | None) -> str:
    """Write a moment, given in seconds since the epoch, in UTC."""
    return "" if seconds is None else f"{pd.Timestamp(seconds, unit='s'):%Y-%m-%d %H:%M:%S} UTC"
