"""Metrics from rows that were scored one by one."""

from __future__ import annotations

import math

import numpy as np
import pytest

from finesweep.spec.sweep import METRICS
from finesweep.training.metrics import causal_lm_metrics, classification_metrics


def test_classification() -> None:
    statistics = np.array([[0.1, 0], [0.3, 1], [2.0, 1], [0.4, 2]], dtype=np.float32)
    metrics = classification_metrics(statistics, np.array([0, 1, 2, 2]))
    assert metrics == pytest.approx({"loss": 0.7, "accuracy": 0.75, "macro_f1": 7 / 9, "mcc": 0.7})


def test_what_a_study_may_name_is_what_is_measured() -> None:
    assert (
        classification_metrics(np.array([[1.0, 0], [1.0, 1]]), np.array([0, 1])).keys()
        == METRICS["classification"].keys()
    )
    assert causal_lm_metrics(np.array([[1.0, 1, 1]])).keys() == METRICS["causal-lm"].keys()


def test_always_the_same_answer_is_worth_nothing() -> None:
    metrics = classification_metrics(np.array([[1.0, 0]] * 4), np.array([0, 0, 1, 1]))
    assert (metrics["accuracy"], metrics["mcc"]) == (0.5, 0.0)


def test_tokens_weigh_the_same_in_long_and_short_rows() -> None:
    metrics = causal_lm_metrics(np.array([[9.0, 9, 3], [3.0, 1, 1]]))
    assert metrics == pytest.approx({"loss": 1.2, "perplexity": math.exp(1.2), "token_accuracy": 0.4})


@pytest.mark.parametrize(("nll", "perplexity"), [(1e6, math.inf), (math.inf, math.inf)])
def test_a_huge_loss_has_an_infinite_perplexity(nll: float, perplexity: float) -> None:
    assert causal_lm_metrics(np.array([[nll, 1, 0]]))["perplexity"] == perplexity


def test_a_loss_that_is_no_number_stays_one() -> None:
    assert math.isnan(causal_lm_metrics(np.array([[math.nan, 1, 0]]))["perplexity"])
