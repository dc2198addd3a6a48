"""The Pareto front, by its properties and against Optuna's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finesweep.events import Report
from finesweep.spec.front import pareto_front, values_at
from finesweep.spec.study import Objective

Values = Mapping[int, Sequence[float]]
NUMBERS = st.sampled_from([-1.0, 0.0, 0.25, 0.5, 1.0, 2.0])  # few, so that they tie


@st.composite
def swarms(draw: st.DrawFn, n_objectives: int | None = None) -> tuple[Values, list[Objective]]:
    """Draw some objectives and trials, in any order."""
    n = n_objectives or draw(st.integers(1, 4))
    directions = draw(st.lists(st.sampled_from(["maximize", "minimize"]), min_size=n, max_size=n))
    objectives = [Objective(metric=f"m{i}", direction=direction) for i, direction in enumerate(directions)]
    rows = draw(st.dictionaries(st.integers(0, 30), st.tuples(*[NUMBERS] * n), max_size=14))
    return rows, objectives


def is_as_good(one: Sequence[float], other: Sequence[float], objectives: Sequence[Objective]) -> bool:
    return not any(o.is_better(theirs, mine) for o, mine, theirs in zip(objectives, one, other, strict=True))


@given(swarms())
def test_nobody_on_the_front_is_beaten_and_everybody_else_is(swarm: tuple[Values, list[Objective]]) -> None:
    values, objectives = swarm
    front = pareto_front(values, objectives)
    for number, of_trial in values.items():
        as_good = {other for other in values if is_as_good(values[other], of_trial, objectives)} - {number}
        if number in front:
            assert all(tuple(values[other]) == tuple(of_trial) and other > number for other in as_good)
        else:
            assert as_good & set(front)


@given(swarms(), st.randoms())
def test_the_order_of_trials_does_not_matter(swarm: tuple[Values, list[Objective]], chance: object) -> None:
    values, objectives = swarm
    shuffled = list(values.items())
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    assert pareto_front(dict(shuffled), objectives) == pareto_front(values, objectives)


@given(swarms())
def test_a_front_grows_trial_by_trial(swarm: tuple[Values, list[Objective]]) -> None:
    """As retention and the live view make it, which forget whoever has left it."""
    values, objectives = swarm
    kept: dict[int, Sequence[float]] = {}
    for number, of_trial in values.items():
        candidates = {**kept, number: of_trial}
        kept = {one: candidates[one] for one in pareto_front(candidates, objectives)}
    assert list(kept) == pareto_front(values, objectives)


@given(swarms(n_objectives=1))
def test_the_front_of_one_objective_is_the_best_trial_the_earliest_of_equals(
    swarm: tuple[Values, list[Objective]],
) -> None:
    values, (objective,) = swarm
    ranked = sorted(values, key=lambda number: objective.rank(number, values[number][0]))
    assert pareto_front(values, [objective]) == ranked[:1]


@given(swarms())
def test_the_front_leads_with_the_best_by_the_first_objective(swarm: tuple[Values, list[Objective]]) -> None:
    values, objectives = swarm
    leading = [objectives[0].rank(0, values[number][0]) for number in pareto_front(values, objectives)]
    assert leading == sorted(leading)


@given(swarms())
def test_optuna_finds_the_same_front(swarm: tuple[Values, list[Objective]]) -> None:
    """But for trials that are equal in everything: optuna lists them all."""
    values, objectives = swarm
    study = optuna.create_study(directions=[objective.direction for objective in objectives])
    for row in values.values():
        study.add_trial(optuna.trial.create_trial(values=list(row)))
    theirs = {tuple(trial.values) for trial in study.best_trials}
    ours = [tuple(values[number]) for number in pareto_front(values, objectives)]
    assert set(ours) == theirs
    assert len(ours) == len(theirs)


def test_values_are_those_of_one_report() -> None:
    objectives = [Objective(metric="f1", direction="maximize"), Objective(metric="loss", direction="minimize")]
    reports = [Report(step, {"loss": step / 2, "f1": step / 10, "more": 0.0}, step) for step in (1, 2, 3)]
    assert values_at(2, reports, objectives) == (0.2, 1.0)


@pytest.fixture(autouse=True)
def quiet_optuna() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
