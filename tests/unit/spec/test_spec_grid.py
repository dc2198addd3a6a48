from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from finesweep.errors import SpecError
from finesweep.events import Grid
from finesweep.spec.grid import largest, plan_grid
from finesweep.spec.sweep import SweepSpec

RATE = {"learning_rate": {"type": "float", "low": 1e-5, "high": 1e-3}}


def spec(
    make_spec: Callable[..., SweepSpec],
    parameters: dict[str, Any] | None = None,
    *,
    pruner: dict[str, Any] | None = None,
    **training: Any,
) -> SweepSpec:
    objective = {"metric": "accuracy", "direction": "maximize"}
    study = {"objective": objective, "parameters": RATE | (parameters or {})}
    return make_spec(study=study | ({"pruner": pruner} if pruner else {}), training=training)


def test_by_default_trials_report_twice_an_epoch(make_spec: Callable[..., SweepSpec]) -> None:
    assert plan_grid(spec(make_spec, epochs=3), n_train_rows=1001) == Grid("examples", every=501, longest=3003)


def test_reports_are_at_least_a_batch_apart(make_spec: Callable[..., SweepSpec]) -> None:
    sizes = {"batch_size": {"type": "categorical", "choices": [8, 64, 32]}}
    assert plan_grid(spec(make_spec, sizes), n_train_rows=50).every == 64


def test_the_sweep_may_say_how_often(make_spec: Callable[..., SweepSpec]) -> None:
    assert plan_grid(spec(make_spec, eval_every=70, epochs=1), n_train_rows=1000).every == 70


def test_progress_counts_percent(make_spec: Callable[..., SweepSpec]) -> None:
    pruner = {"type": "asha", "compare_at": "progress", "first_rung": 20}
    assert plan_grid(spec(make_spec, pruner=pruner), n_train_rows=7) == Grid("progress", every=20, longest=100)
    assert plan_grid(spec(make_spec, pruner=pruner, eval_every=10), n_train_rows=7).every == 10


@pytest.mark.parametrize(
    ("epochs", "longest"),
    [
        ({"type": "int", "low": 2, "high": 5}, 5000),
        ({"type": "float", "low": 0.5, "high": 2.5}, 2500),
        ({"type": "categorical", "choices": [1, 4, 2]}, 4000),
        ({"value": 6}, 6000),
        ({"by": "method", "full": {"type": "int", "low": 1, "high": 3}, "feature-extraction": {"value": 20}}, 20_000),
    ],
)
def test_the_longest_trial_bounds_the_grid(
    make_spec: Callable[..., SweepSpec], epochs: dict[str, Any], longest: int
) -> None:
    method = {"method": {"type": "categorical", "choices": ["full", "feature-extraction"]}}
    assert plan_grid(spec(make_spec, method | {"epochs": epochs}), n_train_rows=1000).longest == longest


def test_a_fraction_of_an_epoch_is_rounded_up(make_spec: Callable[..., SweepSpec]) -> None:
    assert plan_grid(spec(make_spec, epochs=0.5), n_train_rows=1001).longest == 501


def test_an_expression_counts_as_the_setting_that_it_replaces(make_spec: Callable[..., SweepSpec]) -> None:
    swept = spec(make_spec, {"epochs": {"value": "1 + 1"}}, epochs=3)
    assert largest(swept, "epochs") == 3


@pytest.mark.parametrize("kind", ["asha", "hyperband"])
def test_a_first_rung_off_the_grid_is_told_with_the_way_out(make_spec: Callable[..., SweepSpec], kind: str) -> None:
    pruner = {"type": kind, "first_rung": 750}
    message = r"first_rung \(750\) must be a multiple of eval_every, which is 500.*divisor of 750"
    with pytest.raises(SpecError, match=message):
        plan_grid(spec(make_spec, pruner=pruner), n_train_rows=1000)
    assert plan_grid(spec(make_spec, pruner=pruner, eval_every=250), n_train_rows=1000).every == 250
