"""The Pareto front: the trials that no other trial beats. With one objective it is the best trial alone. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from finesweep.events import Report, TrialRecord, TrialState
from finesweep.spec.study import Objective


def pareto_front(values: Mapping[int, Sequence[float]], objectives: Sequence[Objective]) -> list[int]:
    """Name the trials that none is at least as good as in every objective, best first by the leading one.

    `values` has each trial's values in the order of the objectives. Of trials equal in all of them the lowest number
    stands for the others, as the best of one objective does.
    """
    ranks = {number: _rank(of_trial, objectives) for number, of_trial in values.items()}
    front: list[int] = []
    for number in sorted(ranks, key=lambda number: (ranks[number], number)):  # what beats a trial stands before it
        if not any(_is_as_good(ranks[other], ranks[number]) for other in front):
            front.append(number)
    return front


def values_of(report: Report, objectives: Iterable[Objective]) -> tuple[float, ...]:
    """Give the objectives' values in a report that has them all."""
    return tuple(float(report.metrics[objective.metric]) for objective in objectives)


def values_at(step: int, reports: Iterable[Report], objectives: Iterable[Objective]) -> tuple[float, ...]:
    """Give the objectives' values in the report of a step."""
    return values_of(next(report for report in reports if report.step == step), objectives)


def trained_values(trials: Iterable[TrialRecord], objectives: Sequence[Objective]) -> dict[int, tuple[float, ...]]:
    """Give the values of those COMPLETE trials that were trained, and did not take over a result."""
    return {
        trial.number: values_at(trial.value_step, trial.reports, objectives)
        for trial in trials
        if trial.state is TrialState.COMPLETE and trial.value_step is not None and trial.reused_from is None
    }


def _rank(values: Sequence[float], objectives: Sequence[Objective]) -> tuple[float, ...]:
    """Turn values so that lower is better in all of them."""
    return tuple(objective.rank(0, value)[0] for objective, value in zip(objectives, values, strict=True))


def _is_as_good(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(mine <= theirs for mine, theirs in zip(one, other, strict=True))
