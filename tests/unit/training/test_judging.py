"""Patience and divergence, without any training."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finesweep.spec.study import Objective
from finesweep.training.judging import N_RECENT, Watched, is_diverged, loss_of_ignorance, note_loss, note_value

ACCURACY = Objective(metric="accuracy", direction="maximize")
LOSS = Objective(metric="loss", direction="minimize")


@pytest.mark.parametrize(
    ("objective", "values", "n_without"),
    [
        (ACCURACY, [0.5, 0.6, 0.6, 0.59], 2),
        (ACCURACY, [0.5, 0.4, 0.6], 0),
        (LOSS, [0.5, 0.6, 0.4, 0.4, 0.4], 2),
        (LOSS, [-0.5, -0.6], 0),
        (LOSS, [math.nan, 0.5], 0),
        (LOSS, [0.5, math.nan, math.inf], 2),
        (ACCURACY, [0.5, math.inf], 1),
    ],
)
def test_evaluations_without_a_better_value_are_counted(
    objective: Objective, values: list[float], n_without: int
) -> None:
    watched = Watched()
    for value in values:
        watched = note_value(watched, value, objective, min_delta=0.0)
    assert watched.n_without == n_without


@pytest.mark.parametrize("objective", [ACCURACY, LOSS])
def test_a_crawl_is_no_betterment_until_it_has_gone_far_enough(objective: Objective) -> None:
    sign = 1 if objective is ACCURACY else -1
    watched, counts = Watched(), []
    for k in range(6):
        watched = note_value(watched, sign * k * 0.01, objective, min_delta=0.025)
        counts.append(watched.n_without)
    assert counts == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_has_diverged_at_once(loss: float) -> None:
    assert is_diverged(note_loss(Watched(), loss), factor=5.0)


def after(losses: list[float], *, start: float = 1.0) -> Watched:
    watched = Watched(start_loss=start)
    for loss in losses:
        watched = note_loss(watched, loss)
    return watched


def test_a_loss_that_stays_high_has_diverged() -> None:
    assert not is_diverged(after([6.0] * (N_RECENT - 1)), factor=5.0)
    assert is_diverged(after([6.0] * N_RECENT), factor=5.0)
    assert not is_diverged(after([6.0] * N_RECENT), factor=7.0)
    assert is_diverged(after([0.1] * 50 + [6.0] * N_RECENT), factor=5.0)


def test_one_bad_batch_has_not() -> None:
    assert not is_diverged(after([1.0] * N_RECENT + [30.0] + [1.0] * 20), factor=5.0)


@given(losses=st.lists(st.floats(0, 4.9), max_size=40))
def test_a_loss_below_the_factor_never_diverges(losses: list[float]) -> None:
    assert not is_diverged(after(losses), factor=5.0)


def test_only_the_last_losses_are_remembered() -> None:
    assert after([float(k) for k in range(100)]).recent_losses == tuple(float(k) for k in range(100 - N_RECENT, 100))


def test_ignorance_of_numbers_costs_their_variance_and_of_anything_else_a_nat() -> None:
    assert loss_of_ignorance([1.0, 3.0]) == 1.0
    assert loss_of_ignorance([0.01, 0.03]) == pytest.approx(1e-4)
    assert loss_of_ignorance([0, 1, 2]) == loss_of_ignorance([[1.0, 0.0], [0.0, 1.0]]) == 1.0
