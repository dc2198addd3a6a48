"""Losses and row statistics of the tasks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from finesweep.spec.sweep import Task
from finesweep.training.encoding import IGNORED
from finesweep.training.metrics import causal_lm_metrics
from finesweep.training.tasks import head_arguments, task_kind, token_loss_sum, token_statistics

LABELS = {  # of two rows
    "classification": torch.tensor([2, 1]),
    "multi-label-classification": torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]]),
    "regression": torch.tensor([0.5, -100.0]),  # a number like others, though torch's cross entropy would leave it out
    "causal-lm": torch.tensor([[7, 8, 9], [IGNORED, IGNORED, 8]]),
}


@pytest.fixture
def generated() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    labels = torch.tensor([[IGNORED, 1, 2, 3], [IGNORED, IGNORED, 4, IGNORED]])
    return torch.randn(2, 4, 6), labels


def test_statistics_of_tokens_agree_with_the_loss(generated: Any) -> None:
    logits, labels = generated
    statistics = token_statistics(logits, labels)
    assert statistics[:, 1].tolist() == [3, 1]
    total = token_loss_sum(logits, labels, smoothing=0.0)
    torch.testing.assert_close(statistics[:, 0].sum(), total)
    assert causal_lm_metrics(statistics.numpy())["loss"] == pytest.approx(float(total) / 4)


def test_the_loss_of_a_token_is_that_of_its_predecessors_output(generated: Any) -> None:
    logits, labels = generated
    expected = torch.nn.functional.cross_entropy(logits[0, :3], torch.tensor([1, 2, 3]), reduction="sum")
    torch.testing.assert_close(token_loss_sum(logits[:1], labels[:1], smoothing=0.0), expected)


def test_scores_do_not_depend_on_the_batches(generated: Any) -> None:
    logits, labels = generated
    apart = torch.cat([token_statistics(logits[i : i + 1], labels[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(token_statistics(logits, labels), apart)


def test_smoothing_changes_the_loss_that_is_trained_on() -> None:
    logits, labels = torch.tensor([[2.0, 0.0]]), torch.tensor([0])
    loss_sum = task_kind("classification").loss_sum
    assert loss_sum(logits, labels, smoothing=0.1) > loss_sum(logits, labels, smoothing=0.0)


@pytest.fixture(params=LABELS)
def scored(request: pytest.FixtureRequest, tiny_bert: Any, tied_llama: Any) -> Any:
    """A task, its labels, and what a model with its head says of two rows."""
    task: Task = request.param
    folder = tied_llama if task == "causal-lm" else tiny_bert
    torch.manual_seed(0)
    arguments = head_arguments(task, ["a", "b", "c"])
    model = task_kind(task).model_class.from_pretrained(folder, **arguments).eval()
    with torch.no_grad():
        return task, LABELS[task], model(torch.tensor([[7, 8, 9], [9, 7, 8]]), labels=LABELS[task])


def test_the_loss_is_what_a_model_with_that_head_gives(scored: Any) -> None:
    """Its own is the mean over the batch; ours is the sum, and beside it the number of terms."""
    task, labels, output = scored
    kind = task_kind(task)
    mean = kind.loss_sum(output.logits, labels, smoothing=0.0) / kind.n_losses(labels)
    torch.testing.assert_close(mean, output.loss)


def test_statistics_of_rows_give_that_loss_too(scored: Any) -> None:
    task, labels, output = scored
    kind = task_kind(task)
    rows = [kind.row_statistics(output.logits[i : i + 1], labels[i : i + 1]).numpy() for i in range(2)]
    metrics = kind.metrics(np.concatenate(rows), labels.numpy())
    assert metrics["loss"] == pytest.approx(float(output.loss), rel=1e-6)


@pytest.mark.parametrize(
    ("task", "problem"),
    [
        ("classification", "single_label_classification"),
        ("multi-label-classification", "multi_label_classification"),
        ("regression", "regression"),
    ],
)
def test_a_head_of_another_task_is_replaced(task: Task, problem: str, tiny_bert: Any, tmp_path: Any) -> None:
    other: Task = "classification" if task == "regression" else "regression"
    kind, labels = task_kind(task), ["a", "b", "c"]
    kind.model_class.from_pretrained(tiny_bert, **head_arguments(other, labels)).save_pretrained(tmp_path)
    config = kind.model_class.from_pretrained(tmp_path, **head_arguments(task, labels)).config
    assert (config.num_labels, config.problem_type) == (1 if task == "regression" else 3, problem)
    assert task == "regression" or config.id2label == {0: "a", 1: "b", 2: "c"}
