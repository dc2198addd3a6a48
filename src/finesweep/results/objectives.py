"""The objectives of a stored sweep, what its COMPLETE trials are worth by them, and which of them none beats.

All values of a trial are in its report of the step that `value_step` names; a result taken over is in the earlier
trial's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from pydantic import TypeAdapter

from finesweep.events import TrialState
from finesweep.results.columns import ON_FRONT, objective_column
from finesweep.results.schema import reports, trials
from finesweep.results.values import metrics_from_json
from finesweep.spec.front import pareto_front
from finesweep.spec.study import Objective, Objectives

_OBJECTIVES = TypeAdapter[tuple[Objective, ...]](Objectives)


def stored_objectives(sweep: sa.Row[Any]) -> tuple[Objective, ...]:
    """Read a sweep's objectives, the leading one first."""
    return _OBJECTIVES.validate_python(sweep.spec["study"]["objective"])


def complete_values(
    connection: sa.Connection, sweep: sa.Row[Any], number: int | None = None
) -> dict[int, dict[str, float]]:
    """Read the values of the COMPLETE trials, or of one, by number and metric, the leading one first."""
    objectives = stored_objectives(sweep)
    wanted = sa.true() if number is None else trials.c.number == number
    complete = sa.and_(trials.c.sweep_id == sweep.id, trials.c.state == TrialState.COMPLETE, wanted)
    if len(objectives) == 1:
        rows = connection.execute(sa.select(trials.c.number, trials.c.value).where(complete))
        return {row.number: {objectives[0].metric: row.value} for row in rows}
    its_report = (
        reports.c.sweep_id == trials.c.sweep_id,
        reports.c.number == sa.func.coalesce(trials.c.reused_from, trials.c.number),
        reports.c.step == trials.c.value_step,
    )
    query = sa.select(trials.c.number, reports.c.metrics).join(reports, sa.and_(*its_report)).where(complete)
    metrics = {row.number: metrics_from_json(row.metrics) for row in connection.execute(query)}
    return {number: {o.metric: found[o.metric] for o in objectives} for number, found in metrics.items()}


def read_front(connection: sa.Connection, sweep: sa.Row[Any]) -> dict[int, dict[str, float]]:
    """Read the values of the trials that no other beats, by number and metric, best first by the leading objective.

    With one objective that is the best alone, the earliest of equals, which the database finds in its index.
    """
    objectives = stored_objectives(sweep)
    if len(objectives) > 1:
        values = complete_values(connection, sweep)
        return {number: values[number] for number in front_of(values, objectives)}
    [objective] = objectives
    complete = (trials.c.sweep_id == sweep.id, trials.c.state == TrialState.COMPLETE)
    extreme = sa.func.max if objective.direction == "maximize" else sa.func.min
    best = connection.execute(sa.select(extreme(trials.c.value)).where(*complete)).scalar()
    if best is None:
        return {}
    earliest = sa.select(sa.func.min(trials.c.number)).where(*complete, trials.c.value == best)
    return {connection.execute(earliest).scalar_one(): {objective.metric: best}}


def front_of(values: Mapping[int, Mapping[str, float]], objectives: Sequence[Objective]) -> list[int]:
    """Name the trials that no other beats, best first by the leading objective; with one objective the best alone."""
    return pareto_front({number: tuple(of_trial.values()) for number, of_trial in values.items()}, objectives)


def objective_values(
    connection: sa.Connection, sweeps: Iterable[sa.Row[Any]]
) -> dict[tuple[int, int], dict[str, float | bool]]:
    """Read the `objective_columns` of COMPLETE trials, by sweep id and number."""
    found: dict[tuple[int, int], dict[str, float | bool]] = {}
    for sweep in sweeps:
        values = complete_values(connection, sweep)
        front = set(front_of(values, stored_objectives(sweep)))
        for number, of_trial in values.items():
            columns = {objective_column(metric): value for metric, value in of_trial.items()}
            found[sweep.id, number] = {**columns, ON_FRONT: number in front}
    return found


def values_text(values: Mapping[str, float]) -> str:
    """Write a trial's values for people, by metric."""
    return ", ".join(f"{metric} {value_text(value)}" for metric, value in values.items())


def value_text(value: float) -> str:
    """Write a value for people: 0.9134, 12.3, 66,362,880."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
