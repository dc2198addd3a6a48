"""Metrics of the user's own: what they are given, and what becomes of what they give back."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from transformers import EvalPrediction

from finesweep.errors import EvaluationError
from finesweep.spec.sweep import Task
from finesweep.training.own_metrics import OwnMetric
from finesweep.training.scoring import Scoring
from finesweep.training.tasks import task_kind

LOGITS = np.array([[0.2, 1.0, -3.0], [4.0, 0.0, 0.5]], dtype=np.float32)
SHARES = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=-1, keepdims=True)
LOSSES = np.array([[0.5], [0.25]], dtype=np.float32)


def own(function: Callable[[Any, Any], Any]) -> OwnMetric:
    return OwnMetric("cost", "evaluation.metrics.cost", "shop.metrics:cost", function)


@pytest.mark.parametrize(
    ("task", "statistics", "labels", "predictions"),
    [
        ("classification", np.hstack([LOSSES, LOGITS]), np.array([1, 0]), SHARES),
        ("multi-label-classification", np.hstack([LOSSES, LOGITS]), np.eye(3)[:2], 1 / (1 + np.exp(-LOGITS))),
        ("regression", np.array([[0.5], [2.0]]), np.array([1.0, 2.0]), np.array([0.5, 2.0])),
        ("causal-lm", np.array([[9.0, 9, 3], [3.0, 1, 1]]), np.array([[5, 6], [-100, 6]]), [[9, 9, 3], [3, 1, 1]]),
    ],
)
def test_what_a_function_is_given(task: Task, statistics: Any, labels: Any, predictions: Any) -> None:
    given: list[Any] = []

    def note(said: Any, wanted: Any) -> int:
        given[:] = said.copy(), wanted.copy()
        said[:], wanted[:] = 0, 0  # its arrays are its own
        return len(wanted)

    scoring = Scoring(task_kind(task), [own(note), own(note)])
    scores = scoring.of_rows(EvalPrediction(statistics, labels))
    assert scores["cost"] == 2.0
    np.testing.assert_allclose(given[0], predictions, rtol=1e-6)
    np.testing.assert_array_equal(given[1], labels)
    assert scores.keys() == {*task_kind(task).metrics(statistics, labels), "cost"}


@pytest.mark.parametrize(
    "value", [3, 3.0, True, np.float32(3), np.int64(3), np.array(3.0), torch.tensor(3.0), math.inf, math.nan]
)
def test_whatever_is_a_number_counts(value: Any) -> None:
    score = own(lambda said, wanted: value)([], [])
    assert type(score) is float
    assert score == pytest.approx(float(value), nan_ok=True)


@pytest.mark.parametrize("value", [None, "3", [3.0], np.array([3.0]), {"cost": 3}, 3j])
def test_what_is_no_number_is_refused(value: Any) -> None:
    with pytest.raises(EvaluationError, match=r"evaluation\.metrics\.cost: shop\.metrics:cost returned .*not a number"):
        own(lambda said, wanted: value)([], [])


def test_a_function_that_raises_is_named() -> None:
    words = r"evaluation\.metrics\.cost: shop\.metrics:cost raised ZeroDivisionError: division by zero"
    with pytest.raises(EvaluationError, match=words):
        own(lambda said, wanted: 1 / 0)([], [])


def test_a_model_that_says_no_numbers_is_not_shown_to_a_function() -> None:
    """It would rather raise than judge, and a trial that diverged would look like a broken function."""
    scoring = Scoring(task_kind("regression"), [own(lambda said, wanted: 1 / 0)])
    scores = scoring.of_rows(EvalPrediction(np.array([[math.nan], [1.0]]), np.array([0.0, 1.0])))
    assert math.isnan(scores["cost"]) and math.isnan(scores["loss"])
