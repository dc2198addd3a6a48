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
