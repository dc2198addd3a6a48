"""Between the results database's memory of a trial and Optuna's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime

from optuna.distributions import json_to_distribution
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from finesweep.events import Report, TrialRecord, TrialState
from finesweep.spec.study import Objective

_STATES = {
    TrialState.WAITING: OptunaState.RUNNING,
    TrialState.RUNNING: OptunaState.RUNNING,
    TrialState.INTERRUPTED: OptunaState.RUNNING,
    TrialState.COMPLETE: OptunaState.COMPLETE,
    TrialState.PRUNED: OptunaState.PRUNED,
    TrialState.FAILED: OptunaState.FAIL,
}


def is_diverged(report: Report, metric: str) -> bool:
    """Tell whether the objective or a loss is not finite.

    Other metrics may be undefined for good reasons, as a correlation of constant predictions is.
    """
    return any(
        not math.isfinite(value) for name, value in report.metrics.items() if name == metric or name.endswith("loss")
    )


def told_value(report: Report, objective: Objective) -> float:
    """Return what Optuna is told of a report: the objective, or the worst of values where it diverged.

    An infinity on the wanted side would rank best, and samplers that sort by value put NaN anywhere.
    """
    if is_diverged(report, objective.metric):
        return -math.inf if objective.direction == "maximize" else math.inf
    return report.metrics[objective.metric]


def frozen_trial(record: TrialRecord, reports: Sequence[Report], objective: Objective) -> FrozenTrial:
    """Make the trial that Optuna would hold: `reports` are its own, or those of the trial whose result it took over."""
    values = {report.step: told_value(report, objective) for report in reports if objective.metric in report.metrics}
    notes = {"reason": record.reason, "value_step": record.value_step, "reused_from": record.reused_from}
    state = _STATES[record.state]
    value = record.value
    if state is OptunaState.PRUNED and values:
        value = values[max(values)]  # as Optuna's tell does
    return FrozenTrial(
        number=record.number,
        trial_id=-1,  # given by the storage
        state=state,
        value=value,
        values=None,
        datetime_start=_moment(record.finished_at if record.started_at is None else record.started_at),
        datetime_complete=_moment(record.finished_at) if state.is_finished() else None,
        params=dict(record.parameters),
        distributions={name: json_to_distribution(text) for name, text in record.distributions.items()},
        user_attrs={key: item for key, item in notes.items() if item is not None},
        system_attrs=dict(record.attributes),
        intermediate_values=values,
    )


def _moment(seconds: float | None) -> datetime:
    return datetime.fromtimestamp(seconds or 0.0)
