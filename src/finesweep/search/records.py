"""Between the results database's memory of a trial and Optuna's."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from optuna.distributions import json_to_distribution
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from finesweep.events import Report, TrialRecord, TrialState
from finesweep.spec.study import Objective, has_diverged

_STATES = {
    TrialState.WAITING: OptunaState.RUNNING,
    TrialState.RUNNING: OptunaState.RUNNING,
    TrialState.INTERRUPTED: OptunaState.RUNNING,
    TrialState.COMPLETE: OptunaState.COMPLETE,
    TrialState.PRUNED: OptunaState.PRUNED,
    TrialState.FAILED: OptunaState.FAIL,
}


def missing_metric(report: Report, objectives: Sequence[Objective]) -> str | None:
    """Name an objective that a report lacks and should have: one that diverged need not have them all."""
    if has_diverged(report.metrics, objectives):
        return None
    return next((objective.metric for objective in objectives if objective.metric not in report.metrics), None)


def told_value(report: Report, objectives: Sequence[Objective]) -> float:
    """Return what Optuna is told of a report: the leading objective, or the worst of values where it diverged.

    An infinity on the wanted side would rank best, and samplers that sort by value put NaN anywhere.
    """
    leading = objectives[0]
    if has_diverged(report.metrics, objectives):
        return -math.inf if leading.direction == "maximize" else math.inf
    return report.metrics[leading.metric]


def told_values(reports: Iterable[Report], objectives: Sequence[Objective]) -> dict[int, float]:
    """Return what Optuna was told of reports, by step."""
    return {
        report.step: told_value(report, objectives) for report in reports if missing_metric(report, objectives) is None
    }


def frozen_trial(record: TrialRecord, values: Sequence[float] | None, told: Mapping[int, float]) -> FrozenTrial:
    """Make the trial that Optuna would hold: `values` if it is COMPLETE, and what was told of its reports, by step."""
    notes = {"reason": record.reason, "value_step": record.value_step, "reused_from": record.reused_from}
    state = _STATES[record.state]
    if state is OptunaState.PRUNED and told:
        values = [told[max(told)]]  # as Optuna's tell does
    return FrozenTrial(
        number=record.number,
        trial_id=-1,  # given by the storage
        state=state,
        value=None,
        values=values,
        datetime_start=_moment(record.finished_at if record.started_at is None else record.started_at),
        datetime_complete=_moment(record.finished_at) if state.is_finished() else None,
        params=dict(record.parameters),
        distributions={name: json_to_distribution(text) for name, text in record.distributions.items()},
        user_attrs={key: item for key, item in notes.items() if item is not None},
        system_attrs=dict(record.attributes),
        intermediate_values=dict(told),
    )


def _moment(seconds: float | None) -> datetime:
    return datetime.fromtimestamp(seconds or 0.0)
