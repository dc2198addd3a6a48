"""How trials are judged: which metrics there are for a task, and what does not go together with it."""

from __future__ import annotations

from typing import Any

import pytest

LABELS = ["study.objective.metric=loss", "study.objective.direction=minimize"]


@pytest.mark.parametrize("task", ["multi-label-classification", "regression"])
def test_labels_are_smoothed_only_where_one_of_several_is_right(files: Any, task: str) -> None:
    overrides = [*LABELS, f"task={task}"]
    assert files.faults(*overrides, "training.label_smoothing_factor=0") == []
    (fault,) = files.faults(*overrides, "training.label_smoothing_factor=0.1")
    assert f"training.label_smoothing_factor: task {task} has no one right label to smooth." in fault
    (fault,) = files.faults(*overrides, "study.parameters.label_smoothing_factor={type: float, low: 0, high: 0.2}")
    assert "study.parameters.label_smoothing_factor" in fault


def test_labels_of_classes_may_be_smoothed(files: Any) -> None:
    assert files.faults("training.label_smoothing_factor=0.1") == []


GENERATION = ["task=causal-lm", "evaluation.generation={rows: 4}"]


def test_metrics_of_the_users_own_may_be_the_objective(files: Any) -> None:
    own = ["study.objective.metric=cost", "study.objective.direction=minimize"]
    assert files.faults(*own, "evaluation.metrics={cost: statistics:mean}") == []
    assert files.faults(*own, *GENERATION, "evaluation.generation.scorers={cost: statistics:mean}") == []
    (fault,) = files.faults(*own)
    assert "is not measured for task classification" in fault


@pytest.mark.parametrize(
    ("overrides", "key", "words"),
    [
        (["evaluation.metrics={mcc: statistics:mean}"], "evaluation.metrics.mcc", "there is already"),
        (["evaluation.metrics={train_loss: statistics:mean}"], "evaluation.metrics.train_loss", "there is already"),
        (
            ["evaluation.metrics={train_seconds: statistics:mean}"],
            "evaluation.metrics.train_seconds",
            "there is already",
        ),
        (["evaluation.metrics={a b: statistics:mean}"], "evaluation.metrics.a b", '"a b" is no name of a metric'),
        (["evaluation.metrics={cost: a.b}"], "evaluation.metrics.cost", "a.b"),
        (["evaluation.generation={rows: 4}"], "evaluation.generation", "task classification generates nothing"),
        (
            [*LABELS, *GENERATION, "data.format=text"],
            "evaluation.generation",
            "plain text has no reference",
        ),
        (
            [*LABELS, *GENERATION, "evaluation.generation.scorers={rougeL: statistics:mean}"],
            "evaluation.generation.scorers.rougeL",
            "there is already",
        ),
        (
            [
                *LABELS,
                *GENERATION,
                "evaluation.metrics={x: statistics:mean}",
                "evaluation.generation.scorers={x: statistics:mean}",
            ],
            "evaluation.generation.scorers.x",
            "there is already",
        ),
    ],
)
def test_what_cannot_be_judged_so(files: Any, overrides: list[str], key: str, words: str) -> None:
    (fault,) = files.faults(*overrides)
    assert f"{key}: " in fault
    assert words in fault
