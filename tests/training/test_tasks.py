"""Losses and row statistics of the tasks."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from finesweep.training.encoding import IGNORED
from finesweep.training.metrics import causal_lm_metrics
from finesweep.training.tasks import class_loss_sum, token_loss_sum, token_statistics


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
    assert class_loss_sum(logits, labels, smoothing=0.1) > class_loss_sum(logits, labels, smoothing=0.0)
