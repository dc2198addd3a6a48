"""Several sweeps side by side: their trials on common columns, and the best of each with its distance to the best."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from finesweep.errors import ResultsError
from finesweep.events import TrialState
from finesweep.results.columns import (
    ON_FRONT,
    TRIAL_COLUMNS,
    json_rows,
    objective_column,
    objective_columns,
    parameter_column,
    parameter_columns,
    scalar_dtype,
    wider_dtype,
)
from finesweep.results.cost import examples_trained, sweep_cost
from finesweep.results.frames import Results
from finesweep.results.jobs import job_cost
from finesweep.spec.front import pareto_front
from finesweep.spec.settings import has_effect
from finesweep.spec.space import fixed_settings
from finesweep.spec.study import StudySpec
from finesweep.spec.sweep import SweepSpec, TransformersSweep
from finesweep.views.selection import EVERYTHING, Selection
from finesweep.views.tables import Column, Table, best_first, trials_table
from finesweep.views.verified import headline

BEST_COLUMNS = {
    "sweep": "string",
    "metric": "string",
    "direction": "string",
    "best_trial": "Int64",
    "best_value": "float64",
    "difference": "float64",  # to the best of all sweeps with the same objective and data; 0 is that one
    "judged_on": "string",  # a mark of the validation data, where these sweeps were not all judged on the same
    "on_front": "Int64",  # several objectives: how many of its trials no trial of any of these sweeps beats
    "complete": "Int64",
    "pruned": "Int64",
    "failed": "Int64",
    "seconds_used": "float64",
    "examples_seen": "Int64",  # of all its trials
    "slot_hours": "float64",  # of training
    "gpu_hours": "float64",  # of these, on GPUs
    "trained_tokens": "Int64",  # of trainer remote: by all of its jobs
    "cost": "float64",  # of these, by remote.price_per_million
    "verified": "string",  # what its verification found, in a sentence
}


@dataclass(frozen=True, slots=True)
class Comparison:
    """`trials` has the columns of `Results.trials`; `best` has one row a sweep, see BEST_COLUMNS."""

    trials: pd.DataFrame
    best: pd.DataFrame

    @property
    def metric(self) -> str | None:
        """Name the leading objective's metric, where it is the same in all sweeps."""
        metrics = self.best["metric"].unique()
        return str(metrics[0]) if len(metrics) == 1 else None


@dataclass(frozen=True, slots=True)
class Judge:
    """What a sweep's trials are judged by. Only sweeps whose judges are equal can be ranked together."""

    objectives: tuple[tuple[str, str], ...]  # metric, direction
    data: str  # a mark of the validation data, the same for the same data


def judges_of(results: Results, sweeps: Iterable[str]) -> dict[str, Judge]:
    """Give each sweep's judge. Data are marked in the order in which sweeps bring them: "data 1", "data 2"."""
    marks: dict[str | None, str] = {}
    judges = {}
    for name in sweeps:
        fingerprint = results.provenance(name).get("data_fingerprint")
        data = marks.setdefault(fingerprint, f"data {len(marks) + 1}")
        objectives = results.spec(name).study.objectives
        judges[name] = Judge(tuple((objective.metric, objective.direction) for objective in objectives), data)
    return judges


def compare(results: Results, sweeps: Sequence[str]) -> Comparison:
    """Gather the trials of sweeps, best first, and the best of each.

    A parameter that only some sweeps search has the fixed setting of the others in their rows. Sweeps whose
    objectives or data differ keep their trials apart, in the order given: they are never ranked together. Several
    objectives that are the same have one front over all sweeps. Raises ResultsError without a sweep.
    """
    if not sweeps:
        raise ResultsError("compare: no sweep was named. Name one or several; finesweep status lists them.")
    names = list(dict.fromkeys(sweeps))
    specs = {name: results.spec(name) for name in names}
    parameters = parameter_columns(spec.study.parameters for spec in specs.values())
    frames = [_with_settings(results.trials(name), spec, parameters) for name, spec in specs.items()]
    studies = [spec.study for spec in specs.values()]
    judges = judges_of(results, names)
    if len({*judges.values()}) == 1:
        frames, studies = [_with_one_front(pd.concat(frames, ignore_index=True), studies[0])], studies[:1]
    ordered = [
        best_first(frame, maximize=study.objective.direction == "maximize")
        for frame, study in zip(frames, studies, strict=True)
    ]
    trials = pd.concat(ordered, ignore_index=True)
    objectives = objective_columns(spec.study.objectives for spec in specs.values())
    columns = [*TRIAL_COLUMNS, *objectives, *map(parameter_column, parameters)]
    return Comparison(trials[columns], _best(results, specs, judges, trials))


def comparison_tables(comparison: Comparison, *, selection: Selection = EVERYTHING) -> tuple[Table, Table]:
    """Make the tables that a terminal shows: the best of each sweep, then the trials."""
    value_header = comparison.metric or "value"
    best_columns = (
        Column("sweep", "sweep", "text"),
        Column("metric", "metric", "text"),
        Column("best_value", "best"),
        Column("difference", "difference"),
        Column("best_trial", "trial"),
        Column("judged_on", "judged on", "text", hidden_if_empty=True),
        Column("on_front", "on front", hidden_if_empty=True),
        Column("complete", "complete"),
        Column("pruned", "pruned"),
        Column("failed", "failed"),
        Column("seconds_used", "time", "duration"),
        Column("examples_seen", "examples"),
        Column("slot_hours", "slot hours"),
        Column("gpu_hours", "GPU hours"),
        Column("trained_tokens", "tokens", hidden_if_empty=True),
        Column("cost", "cost", hidden_if_empty=True),
        Column("verified", "verification", "text", hidden_if_empty=True),
    )
    best = Table(best_columns, json_rows(comparison.best))
    with_sweep = len(comparison.best) > 1
    return best, trials_table(comparison.trials, value_header=value_header, with_sweep=with_sweep, selection=selection)


def _with_settings(frame: pd.DataFrame, spec: SweepSpec, parameters: Mapping[str, str]) -> pd.DataFrame:
    """Give a sweep's trials a column for every parameter of any sweep: its own, or its fixed setting."""
    objectives = objective_columns([spec.study.objectives])
    fixed, is_own = fixed_settings(spec.training, ()), not isinstance(spec, TransformersSweep)
    columns = {}
    for name, dtype in parameters.items():
        column = parameter_column(name)
        if column in frame:
            columns[column] = pd.Series(list(frame[column]), index=frame.index, dtype=dtype)
        else:
            setting = fixed.get(name)
            fitting = dtype if setting is None else wider_dtype(dtype, scalar_dtype(setting))
            methods = frame.get("method", pd.Series([fixed.get("method")] * len(frame)))
            values = [setting if is_own or has_effect(name, method=method) else None for method in methods]
            columns[column] = pd.Series(values, index=frame.index, dtype=fitting)
    return frame[[*TRIAL_COLUMNS, *objectives]].assign(**columns)


def _with_one_front(frame: pd.DataFrame, study: StudySpec) -> pd.DataFrame:
    """Mark those trials of several sweeps that none of any of them beats."""
    if len(study.objectives) == 1:
        return frame
    columns = ["value", *(objective_column(objective.metric) for objective in study.objectives[1:])]
    complete = frame.loc[frame["state"] == TrialState.COMPLETE, columns]
    values = {int(index): tuple(row) for index, row in zip(complete.index, complete.to_numpy(), strict=True)}
    front = frame.index.isin(pareto_front(values, study.objectives))
    return frame.assign(**{ON_FRONT: pd.array(front, dtype="boolean")})


def _best(
    results: Results, specs: Mapping[str, SweepSpec], judges: Mapping[str, Judge], trials: pd.DataFrame
) -> pd.DataFrame:
    frame = results.sweeps().set_index("sweep", drop=False).loc[list(specs)].reset_index(drop=True)
    judged_on = frame["sweep"].map({name: judge.data for name, judge in judges.items()})
    objectives = frame.groupby(["metric", "direction", judged_on])["best_value"]
    leading = objectives.transform("max").where(frame["direction"] == "maximize", objectives.transform("min"))
    marked = trials[ON_FRONT] if ON_FRONT in trials else pd.Series(pd.NA, index=trials.index, dtype="boolean")
    on_front = marked.groupby(trials["sweep"]).sum(min_count=1)
    costs = [sweep_cost(results, name) for name in specs]
    jobs = pd.DataFrame(
        [(found.trained_tokens, found.money) if (found := job_cost(results, name)) else (None, None) for name in specs],
        columns=["trained_tokens", "cost"],
        dtype="float64",
    )
    return frame.assign(
        difference=frame["best_value"] - leading,
        judged_on=judged_on if judged_on.nunique() > 1 else None,
        on_front=frame["sweep"].map(on_front),
        examples_seen=[examples_trained(trials[trials["sweep"] == name]) for name in specs],
        slot_hours=[cost.slot_hours for cost in costs],
        gpu_hours=[cost.gpu_hours for cost in costs],
        trained_tokens=jobs["trained_tokens"],
        cost=jobs["cost"],
        verified=pd.array([headline(results, name) for name in specs], dtype="string"),
    )[list(BEST_COLUMNS)].astype(BEST_COLUMNS)
