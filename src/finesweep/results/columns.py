"""The columns of our tables as pandas sees them: names, meaning and types, the same for empty tables."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from finesweep.spec.parameters import (
    BranchedParameter,
    CategoricalParameter,
    DerivedParameter,
    FloatParameter,
    IntParameter,
    Parameter,
)
from finesweep.spec.study import Objective

TEXT, NUMBER, COUNT, MOMENT, ANY = "string", "float64", "Int64", "datetime64[ns, UTC]", "object"

SWEEP_COLUMNS = {
    "sweep": TEXT,
    "state": TEXT,  # NEW, RUNNING, INTERRUPTED, FINISHED, FAILED
    "metric": TEXT,  # of the objective, of the leading one if there are several
    "direction": TEXT,  # maximize, minimize
    "best_value": NUMBER,  # of the incumbent
    "best_trial": COUNT,  # its number
    "trials": COUNT,  # of any state
    "complete": COUNT,
    "pruned": COUNT,
    "failed": COUNT,
    "running": COUNT,
    "interrupted": COUNT,
    "waiting": COUNT,
    "budget_trials": COUNT,
    "seconds_used": NUMBER,  # of running, over resumes
    "created_at": MOMENT,
    "driver": TEXT,  # host and pid of the live process that drives it
    "model": TEXT,
    "task": TEXT,
    "end_reason": TEXT,  # why its last drive ended before its budget was used up; none otherwise, or while it runs
    "verifies": TEXT,  # the sweep whose best trials it trains again; none of a search
}
TRIAL_COLUMNS = {  # then those of `objective_columns`, and one column for each parameter, under its common name
    "sweep": TEXT,
    "number": COUNT,
    "state": TEXT,  # WAITING, RUNNING, INTERRUPTED, COMPLETE, PRUNED, FAILED
    "value": NUMBER,  # COMPLETE only; of the leading objective
    "value_step": COUNT,  # the step that the value came from
    "reason": TEXT,
    "source": TEXT,  # start_with, default, sampler
    "examples_seen": COUNT,
    "duration_s": NUMBER,  # of its attempts; of an open one up to its last report
    "attempts": COUNT,
    "twin_of": COUNT,
    "reused_from": COUNT,  # the trial whose result it took over
    "started_at": MOMENT,
    "finished_at": MOMENT,
    "n_trainable": COUNT,  # parameters that moved, of
    "n_parameters": COUNT,
    "device_batch_size": COUNT,  # rows on the device at once; times
    "accumulation": COUNT,  # it is batch_size
    "n_oom": COUNT,  # how often the device's memory ran out
    "asked_warmup_steps": COUNT,
    "effective_warmup_steps": COUNT,  # no more than the trial has steps
    "job": TEXT,  # of trainer remote: the id of the job at the fine-tuning server
    "trained_tokens": COUNT,  # by the job, once it has ended
    "cost": NUMBER,  # of these, by remote.price_per_million
    "fine_tuned_model": TEXT,  # what the job made, by the server's name for it
}
FACT_COLUMNS = {  # of TRIAL_COLUMNS, what the worker told -> the name it told it under
    **{name: name for name in ("n_trainable", "n_parameters", "device_batch_size", "accumulation", "n_oom")},
    "asked_warmup_steps": "warmup_steps_asked",
    "effective_warmup_steps": "warmup_steps",
}
JOB_COLUMNS = ("job", "trained_tokens", "cost", "fine_tuned_model")  # the same of a worker of trainer remote
OBJECTIVE_PREFIX = "objective."  # keeps a metric apart from a parameter of the same name
METRIC_PREFIX = "metrics."  # and so does this, of a metric that is no objective
ON_FRONT = "on_front"  # COMPLETE, and no trial of its sweep beats it
POINT_COLUMNS = {
    "sweep": TEXT,
    "number": COUNT,
    "attempt": COUNT,
    "step": COUNT,  # of the sweep's grid
    "examples_seen": COUNT,
    "metric": TEXT,
    "value": NUMBER,
}
TELEMETRY_COLUMNS = {
    "sweep": TEXT,
    "number": COUNT,
    "attempt": COUNT,
    "step": COUNT,
    "examples_seen": COUNT,
    "reported_at": MOMENT,
    "name": TEXT,  # memory_gib, device_use (share of 1), learning_rate, grad_norm
    "value": NUMBER,
}
ATTEMPT_COLUMNS = {
    "sweep": TEXT,
    "number": COUNT,
    "attempt": COUNT,
    "ending": TEXT,  # done, stopped, paused, failed, lost, stalled, blocked, abandoned; none: not ended
    "reason": TEXT,
    "traceback": TEXT,
    "started_at": MOMENT,
    "ended_at": MOMENT,
    "facts": ANY,  # a dict: device, host, pid, effective batch, ...
}
ARTIFACT_COLUMNS = {
    "sweep": TEXT,
    "number": COUNT,
    "attempt": COUNT,
    "kind": TEXT,
    "path": TEXT,  # below the sweep's artifact folder
    "created_at": MOMENT,
    "removed_at": MOMENT,
    "n_bytes": COUNT,  # when it was kept; none where it is not known
}


def typed_frame(columns: Mapping[str, str], rows: Iterable[Sequence[Any]]) -> pd.DataFrame:
    """Make a frame of exactly these columns and types. Moments are given in seconds since the epoch."""
    return frame_of(columns, list(zip(*rows, strict=True)) or [()] * len(columns))


def frame_of(columns: Mapping[str, str], values: Iterable[Sequence[Any]]) -> pd.DataFrame:
    """Make the same of values that are sorted by column already, which costs half."""
    series = {name: _series(found, dtype) for (name, dtype), found in zip(columns.items(), values, strict=True)}
    return pd.DataFrame(series)


def parameter_columns(studies: Iterable[Mapping[str, Parameter]]) -> dict[str, str]:
    """Give each parameter's column and type, in the order of the studies. Disagreement widens the type."""
    found: dict[str, str] = {}
    for parameters in studies:
        for name, parameter in parameters.items():
            dtype = _parameter_dtype(parameter)
            found[name] = wider_dtype(found.get(name, dtype), dtype)
    return found


def objective_columns(objectives: Iterable[Sequence[Objective]]) -> dict[str, str]:
    """Give the columns of sweeps with several objectives: one for each but the leading one, and who is on the front."""
    names = [objective.metric for of_sweep in objectives for objective in of_sweep[1:]]
    return {objective_column(name): NUMBER for name in names} | ({ON_FRONT: "boolean"} if names else {})


def objective_column(metric: str) -> str:
    return f"{OBJECTIVE_PREFIX}{metric}"


def parameter_column(name: str) -> str:
    """Name the column of a parameter, also of one that is called like a fixed column."""
    return f"configuration.{name}" if name in TRIAL_COLUMNS else name


def json_rows(frame: pd.DataFrame) -> tuple[dict[str, Any], ...]:
    """Turn the rows of a frame into JSON values: missing is None, moments are ISO 8601, infinities are text."""
    columns = {name: _json_values(frame[name]) for name in frame.columns}
    return tuple(dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))


def _series(values: Sequence[Any], dtype: str) -> pd.Series[Any]:
    if dtype == MOMENT:
        return pd.to_datetime(pd.Series(values, dtype="float64"), unit="s", utc=True).dt.as_unit("ns")
    return pd.Series(list(values), dtype=dtype)


def _parameter_dtype(parameter: Parameter) -> str:
    match parameter:
        case FloatParameter():
            return NUMBER
        case IntParameter():
            return COUNT
        case CategoricalParameter():
            return _common(scalar_dtype(choice) for choice in parameter.choices if choice is not None)
        case DerivedParameter(value=str()):
            return ANY  # an expression: whatever it yields
        case DerivedParameter():
            return scalar_dtype(parameter.value)
        case BranchedParameter():
            return _common(_parameter_dtype(branch) for branch in parameter.branches.values())


def scalar_dtype(value: object) -> str:
    match value:
        case bool():
            return "boolean"
        case int():
            return COUNT
        case float():
            return NUMBER
        case str():
            return TEXT
        case _:
            return ANY


def _common(dtypes: Iterable[str]) -> str:
    first, *others = [*dtypes] or [ANY]
    for other in others:
        first = wider_dtype(first, other)
    return first


def wider_dtype(one: str, other: str) -> str:
    if one == other:
        return one
    return NUMBER if {one, other} == {NUMBER, COUNT} else ANY


def _json_values(column: pd.Series[Any]) -> list[Any]:
    """Turn a column into JSON values, at a fifth of the cost of one by one where its type tells what is in it."""
    kind = "text" if isinstance(column.dtype, pd.StringDtype) else column.dtype.kind
    if kind not in ("text", "f", "i", "b", "M"):
        return [_json_value(value) for value in column]
    values: list[Any] = [None if gone else value for value, gone in zip(column.tolist(), column.isna(), strict=True)]
    match kind:
        case "f":
            return [str(value) if value in (math.inf, -math.inf) else value for value in values]
        case "M":
            return [value and value.isoformat(timespec="seconds") for value in values]
        case _:
            return values


def _json_value(value: Any) -> Any:
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, pd.Timestamp):
        return value.isoformat(timespec="seconds")
    plain = value.item() if hasattr(value, "item") else value
    if isinstance(plain, float) and not math.isfinite(plain):
        return None if math.isnan(plain) else str(plain)
    return plain
