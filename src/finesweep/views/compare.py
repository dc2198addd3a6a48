"""Several sweeps side by side: their trials on common columns, and the best of each with its distance to the best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from finesweep.errors import ResultsError
from finesweep.results.columns import (
    TRIAL_COLUMNS,
    json_rows,
    parameter_column,
    parameter_columns,
    scalar_dtype,
    wider_dtype,
)
from finesweep.results.frames import Results
from finesweep.spec.settings import has_effect
from finesweep.spec.sweep import SweepSpec
from finesweep.views.tables import Column, Table, best_first, trials_table

BEST_COLUMNS = {
    "sweep": "string",
    "metric": "string",
    "direction": "string",
    "best_trial": "Int64",
    "best_value": "float64",
    "difference": "float64",  # to the best of all sweeps with the same objective; 0 is that one
    "complete": "Int64",
    "pruned": "Int64",
    "failed": "Int64",
    "seconds_used": "float64",
}


@dataclass(frozen=True, slots=True)
class Comparison:
    """`trials` has the columns of `Results.trials`; `best` has one row a sweep, see BEST_COLUMNS."""

    trials: pd.DataFrame
    best: pd.DataFrame


def compare(results: Results, sweeps: Sequence[str]) -> Comparison:
    """Gather the trials of sweeps, best first, and the best of each.

    A parameter that only some sweeps search has the fixed setting of the others in their rows. Sweeps whose
    objectives differ keep their trials apart, in the order given. Raises ResultsError without a sweep.
    """
    if not sweeps:
        raise ResultsError("compare: no sweep was named. Name one or several; finesweep status lists them.")
    names = list(dict.fromkeys(sweeps))
    specs = {name: results.spec(name) for name in names}
    parameters = parameter_columns(spec.study.parameters for spec in specs.values())
    frames = [_with_settings(results.trials(name), spec, parameters) for name, spec in specs.items()]
    maximize = [spec.study.objective.direction == "maximize" for spec in specs.values()]
    if len({_objective(spec) for spec in specs.values()}) == 1:
        trials = best_first(pd.concat(frames, ignore_index=True), maximize=maximize[0])
    else:
        apart = [best_first(frame, maximize=up) for frame, up in zip(frames, maximize, strict=True)]
        trials = pd.concat(apart, ignore_index=True)
    return Comparison(trials, _best(results, names))


def comparison_tables(comparison: Comparison, *, top: int | None = None) -> tuple[Table, Table]:
    """Make the tables that a terminal shows: the best of each sweep, then the trials."""
    metrics = comparison.best["metric"].unique()
    value_header = str(metrics[0]) if len(metrics) == 1 else "value"
    trials = comparison.trials if top is None else comparison.trials.head(top)
    best_columns = (
        Column("sweep", "sweep", "text"),
        Column("metric", "metric", "text"),
        Column("best_value", "best"),
        Column("difference", "difference"),
        Column("best_trial", "trial"),
        Column("complete", "complete"),
        Column("pruned", "pruned"),
        Column("failed", "failed"),
        Column("seconds_used", "time", "duration"),
    )
    best = Table(best_columns, json_rows(comparison.best))
    return best, trials_table(trials, value_header=value_header, with_sweep=len(comparison.best) > 1)


def _with_settings(frame: pd.DataFrame, spec: SweepSpec, parameters: Mapping[str, str]) -> pd.DataFrame:
    """Give a sweep's trials a column for every parameter of any sweep: its own, or its fixed setting."""
    columns = {}
    for name, dtype in parameters.items():
        column = parameter_column(name)
        if column in frame:
            columns[column] = pd.Series(list(frame[column]), index=frame.index, dtype=dtype)
        else:
            setting = getattr(spec.training, name, None)
            fitting = dtype if setting is None else wider_dtype(dtype, scalar_dtype(setting))
            methods = frame.get("method", pd.Series([spec.training.method] * len(frame)))
            values = [setting if has_effect(name, method=method) else None for method in methods]
            columns[column] = pd.Series(values, index=frame.index, dtype=fitting)
    return frame[list(TRIAL_COLUMNS)].assign(**columns)


def _objective(spec: SweepSpec) -> tuple[str, str]:
    return spec.study.objective.metric, spec.study.objective.direction


def _best(results: Results, names: Sequence[str]) -> pd.DataFrame:
    frame = results.sweeps().set_index("sweep", drop=False).loc[list(names)].reset_index(drop=True)
    objectives = frame.groupby(["metric", "direction"])["best_value"]
    leading = objectives.transform("max").where(frame["direction"] == "maximize", objectives.transform("min"))
    return frame.assign(difference=frame["best_value"] - leading)[list(BEST_COLUMNS)].astype(BEST_COLUMNS)
