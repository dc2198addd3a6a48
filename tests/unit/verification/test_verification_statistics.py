"""Are the numbers of a verification right as often as they claim? On simulated trainings whose truth is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from finesweep.simulation.repeats import Measured, World, measure
from finesweep.verification import statistics

N = 3000
SIGMAS = 4.0  # of the binomial or normal error of N replications: one test in ten thousand fails by chance


def is_about(share: float, expected: float) -> bool:
    return abs(share - expected) <= SIGMAS * math.sqrt(expected * (1 - expected) / N)


def is_nothing(bias: float, *, n_seeds: int) -> bool:
    return abs(bias) <= SIGMAS / math.sqrt(n_seeds * N)


@pytest.fixture(scope="module")
def searched() -> Measured:
    """Thirty configurations, tried once each; the best three race."""
    return measure(World(), n=N, seed=1)


def test_intervals_of_mean_training_and_difference_hold_as_often_as_they_say_after_a_race(searched: Measured) -> None:
    assert is_about(searched.mean_covered, 0.95)
    assert is_about(searched.training_covered, 0.95)
    assert is_about(searched.difference_covered, 0.95)


def test_intervals_of_the_race_hold_together_at_least_as_often(searched: Measured) -> None:
    assert searched.race_covered >= 0.95 - SIGMAS * math.sqrt(0.95 * 0.05 / N)


def test_what_is_shown_is_unbiased_and_what_the_search_and_the_race_said_is_not(searched: Measured) -> None:
    assert is_nothing(searched.shown_bias, n_seeds=5)
    assert searched.race_bias > 0.2
    assert searched.search_bias > 0.7  # of the winner, which the race has chosen since
    assert searched.search_best_bias > 1.3  # of the best of the search: the curse of the winner


def test_only_the_test_rows_are_free_of_what_the_validation_rows_flatter() -> None:
    found = measure(World(rows_effect=1.0), n=N, seed=2)
    assert is_nothing(found.shown_bias, n_seeds=5)
    assert found.validation_bias > 0.7
    assert is_about(found.mean_covered, 0.95)


def test_what_a_seed_does_to_all_alike_changes_no_promise() -> None:
    found = measure(World(seed_effect=0.7), n=N, seed=3)
    assert is_about(found.mean_covered, 0.95)
    assert is_about(found.difference_covered, 0.95)
    assert is_nothing(found.shown_bias, n_seeds=5)
    assert found.race_covered >= 0.95 - SIGMAS * math.sqrt(0.95 * 0.05 / N)


@pytest.mark.parametrize("n_race_seeds", [3, 5])
def test_a_race_seldom_drops_the_best(n_race_seeds: int) -> None:
    close = measure(World(behind=0.5, n_race_seeds=n_race_seeds), n=N, seed=4)
    assert close.best_dropped <= 0.05 + SIGMAS * math.sqrt(0.05 * 0.95 / N)


def test_a_race_drops_clear_losers_and_saves_their_trainings() -> None:
    found = measure(World(behind=6.0, n_race_seeds=5), n=500, seed=5)
    assert found.loser_dropped > 0.95
    assert found.best_dropped == 0.0
    assert found.best_won == 1.0
    assert found.trainings < 20.0  # of 25


def test_an_estimate_is_students_t() -> None:
    values = np.random.default_rng(0).normal(size=7)
    found = statistics.estimate(values)
    low, high = stats.t.interval(0.95, 6, loc=values.mean(), scale=values.std(ddof=1) / math.sqrt(7))
    assert found.half_width == pytest.approx((high - low) / 2)
    assert found.prediction_half_width == pytest.approx((high - low) / 2 * math.sqrt(8))
    assert (found.n, found.mean, found.std) == (7, pytest.approx(values.mean()), pytest.approx(values.std(ddof=1)))


def test_one_training_has_no_interval_and_none_has_no_estimate() -> None:
    found = statistics.estimate([0.5])
    assert (found.mean, found.std, found.half_width, found.prediction_half_width) == (0.5, None, None, None)
    with pytest.raises(ValueError, match="no value"):
        statistics.estimate([])


def test_nothing_is_dropped_without_a_spread_to_judge_by() -> None:
    assert not statistics.dropped(np.array([[0.9], [0.1]]), error=0.05, n_arms=2, n_looks=1).any()
    assert not statistics.dropped(np.array([[0.9, 0.8, 0.7]]), error=0.05, n_arms=1, n_looks=1).any()
    assert statistics.first_look_std(np.array([[0.9], [0.1]])) is None


def test_the_leader_itself_is_never_dropped_not_even_where_repeats_are_all_equal() -> None:
    behind = statistics.dropped(np.array([[0.9, 0.9], [0.9, 0.9], [0.1, 0.1]]), error=0.05, n_arms=3, n_looks=1)
    assert behind.tolist() == [False, False, True]


def test_probabilities_of_two_arms_are_those_of_students_t() -> None:
    one, other = [0.9, 0.92, 0.88, 0.91], [0.89, 0.9, 0.9, 0.87]
    (first, second) = statistics.probabilities_of_best([one, other], maximize=True) or (0.0, 0.0)
    by_t = stats.ttest_ind(one, other, alternative="greater").pvalue  # the flat prior gives just this
    assert first == pytest.approx(1 - by_t, abs=0.01)
    assert first + second == pytest.approx(1.0)
    assert statistics.probabilities_of_best([one, other], maximize=False) == pytest.approx((second, first), abs=0.01)
    assert statistics.probabilities_of_best([one, other], maximize=True) == (first, second)  # the same each time


def test_probabilities_need_a_value_of_each_arm_and_two_of_one() -> None:
    assert statistics.probabilities_of_best([[0.9], [0.8]], maximize=True) is None
    assert statistics.probabilities_of_best([[0.9, 0.8], []], maximize=True) is None
    assert statistics.probabilities_of_best([[0.5, 0.5], [0.5, 0.5], [0.1, 0.1]], maximize=True) == (0.5, 0.5, 0.0)
