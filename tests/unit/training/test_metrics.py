"""Metrics from rows that were scored one by one."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import (
    accuracy_score,
    f1_score,
    matthews_corrcoef,
    mean_absolute_error,
    r2_score,
    root_mean_squared_error,
)

from finesweep.spec.sweep import METRICS
from finesweep.training.metrics import (
    causal_lm_metrics,
    classification_metrics,
    multi_label_metrics,
    regression_metrics,
)


def scored(logits: Any, losses: Any) -> Any:
    return np.column_stack([losses, logits]).astype(np.float32)


def test_classification() -> None:
    logits = [[2, 1, 0], [0, 1, 0], [0, 3, 1], [0, 1, 2]]
    metrics = classification_metrics(scored(logits, [0.1, 0.3, 2.0, 0.4]), np.array([0, 1, 2, 2]))
    assert metrics == pytest.approx({"loss": 0.7, "accuracy": 0.75, "macro_f1": 7 / 9, "mcc": 0.7})


@pytest.mark.filterwarnings("ignore:A single label was found")  # scikit-learn's, of rows of one class
@pytest.mark.parametrize("seed", range(60))
def test_classification_is_scored_exactly_as_by_scikit_learn(seed: int) -> None:
    """Few and many rows, classes that are never met or never predicted, rows of one class, good and bad models."""
    draw = np.random.default_rng(seed)
    n_rows, n_classes = int(draw.choice([1, 2, 7, 250, 3000])), int(draw.integers(2, 12))
    labels = draw.integers(0, draw.integers(1, n_classes, endpoint=True), size=n_rows)
    logits = draw.normal(size=(n_rows, n_classes))
    logits[np.arange(n_rows), labels] += draw.choice([-3, 0, 1, 9])
    logits[:, draw.integers(n_classes)] -= draw.choice([0, 99])
    metrics = classification_metrics(scored(logits, np.ones(n_rows)), labels)
    predicted = scored(logits, np.ones(n_rows))[:, 1:].argmax(axis=-1)
    assert metrics["accuracy"] == accuracy_score(labels, predicted)
    assert metrics["macro_f1"] == f1_score(labels, predicted, average="macro", zero_division=0)
    assert metrics["mcc"] == matthews_corrcoef(labels, predicted)


def test_labels_of_a_row_are_judged_one_by_one_and_together() -> None:
    logits = [[1, -1, 3], [1, 1, -2], [-1, -1, -1], [2, -1, -3]]
    labels = np.array([[1, 0, 1], [1, 0, 0], [0, 0, 0], [0, 0, 1]], dtype=np.float32)
    metrics = multi_label_metrics(scored(logits, [0.1, 0.2, 0.3, 0.4]), labels)
    # right: 3 labels; wrongly given: 2; missed: 1. By class: F1 of 4/5, 0 and 2/3
    expected = {"loss": 0.25, "macro_f1": (4 / 5 + 0 + 2 / 3) / 3, "micro_f1": 6 / 9, "subset_accuracy": 0.5}
    assert metrics == pytest.approx(expected)


def test_f1_of_labels_is_that_of_scikit_learn() -> None:
    draw = np.random.default_rng(0)
    logits, labels = draw.normal(size=(50, 4)), draw.integers(0, 2, size=(50, 4))
    metrics = multi_label_metrics(scored(logits, draw.random(50)), labels.astype(np.float32))
    for average in ("macro", "micro"):
        assert metrics[f"{average}_f1"] == pytest.approx(f1_score(labels, logits > 0, average=average))


def test_one_label_alone_may_be_given_or_not() -> None:
    metrics = multi_label_metrics(scored([[1.0], [1.0], [-1.0]], [0.1] * 3), np.array([[1.0], [0.0], [0.0]]))
    assert metrics["macro_f1"] == metrics["micro_f1"] == pytest.approx(2 / 3)


def test_a_label_that_nobody_has_and_nobody_gives_counts_nothing() -> None:
    metrics = multi_label_metrics(scored([[3, -3]] * 2, [0.1, 0.1]), np.array([[1.0, 0.0]] * 2))
    assert (metrics["macro_f1"], metrics["micro_f1"], metrics["subset_accuracy"]) == (0.5, 1.0, 1.0)


def test_regression() -> None:
    metrics = regression_metrics(np.array([[1.0], [3.0], [2.0]]), np.array([1.0, 2.0, 4.0]))
    expected = {"loss": 5 / 3, "mae": 1.0, "rmse": math.sqrt(5 / 3), "r2": 1 - 5 / (14 / 3), "spearman": 0.5}
    assert metrics == pytest.approx(expected)


def test_regression_is_that_of_scikit_learn_and_scipy() -> None:
    draw = np.random.default_rng(0)
    labels = draw.normal(size=40).round(1)  # with ties
    outputs = labels + draw.normal(size=40).round(1)
    expected = {
        "loss": root_mean_squared_error(labels, outputs) ** 2,
        "mae": mean_absolute_error(labels, outputs),
        "rmse": root_mean_squared_error(labels, outputs),
        "r2": r2_score(labels, outputs),
        "spearman": spearmanr(outputs, labels).statistic,
    }
    assert regression_metrics(outputs[:, None], labels) == pytest.approx(expected)


def test_a_correlation_with_what_never_changes_is_undefined() -> None:
    constant, rising = np.array([2.0, 2.0, 2.0]), np.array([1.0, 2.0, 3.0])
    outputs_alike = regression_metrics(constant[:, None], rising)
    assert math.isnan(outputs_alike["spearman"])
    assert outputs_alike["r2"] == 0
    labels_alike = regression_metrics(rising[:, None], constant)
    assert math.isnan(labels_alike["spearman"]) and math.isnan(labels_alike["r2"])
    assert labels_alike["mae"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("output", [math.nan, math.inf, -math.inf])
def test_outputs_that_are_no_numbers_show(output: float) -> None:
    metrics = regression_metrics(np.array([[output], [1.0], [2.0]]), np.array([0.0, 1.0, 2.0]))
    assert not any(math.isfinite(metrics[name]) for name in ("loss", "mae", "rmse", "r2"))
    logits = [[output, 0.0], [1.0, 0.0]]
    assert math.isnan(multi_label_metrics(scored(logits, [math.nan, 0.1]), np.array([[1, 0], [1, 0]]))["loss"])


def test_what_a_study_may_name_is_what_is_measured() -> None:
    rows = scored([[1.0, 0.0], [0.0, 1.0]], [1.0, 1.0])
    assert classification_metrics(rows, np.array([0, 1])).keys() == METRICS["classification"].keys()
    assert multi_label_metrics(rows, np.eye(2)).keys() == METRICS["multi-label-classification"].keys()
    assert regression_metrics(rows[:, :1], np.array([0, 1])).keys() == METRICS["regression"].keys()
    assert causal_lm_metrics(np.array([[1.0, 1, 1]])).keys() == METRICS["causal-lm"].keys()


def test_always_the_same_answer_is_worth_nothing() -> None:
    metrics = classification_metrics(scored([[1.0, 0.0]] * 4, [1.0] * 4), np.array([0, 0, 1, 1]))
    assert (metrics["accuracy"], metrics["mcc"]) == (0.5, 0.0)


def test_tokens_weigh_the_same_in_long_and_short_rows() -> None:
    metrics = causal_lm_metrics(np.array([[9.0, 9, 3], [3.0, 1, 1]]))
    assert metrics == pytest.approx({"loss": 1.2, "perplexity": math.exp(1.2), "token_accuracy": 0.4})


@pytest.mark.parametrize(("nll", "perplexity"), [(1e6, math.inf), (math.inf, math.inf)])
def test_a_huge_loss_has_an_infinite_perplexity(nll: float, perplexity: float) -> None:
    assert causal_lm_metrics(np.array([[nll, 1, 0]]))["perplexity"] == perplexity


def test_a_loss_that_is_no_number_stays_one() -> None:
    assert math.isnan(causal_lm_metrics(np.array([[math.nan, 1, 0]]))["perplexity"])
