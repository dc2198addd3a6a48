"""Batches and row statistics of the tasks."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from finesweep.training.metrics import causal_lm_metrics
from finesweep.training.tasks import IGNORED, class_loss_sum, collator, token_loss_sum, token_statistics


def test_the_mask_goes_by_length_even_where_padding_is_a_word() -> None:
    batch = collator(7)([{"input_ids": [7, 5, 7], "labels": [IGNORED, 5, 7]}, {"input_ids": [7], "labels": [7]}])
    assert batch["input_ids"].tolist() == [[7, 5, 7], [7, 7, 7]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["labels"].tolist() == [[IGNORED, 5, 7], [7, IGNORED, IGNORED]]


def test_classes_stay_one_a_row() -> None:
    batch = collator(0)([{"input_ids": [1, 2], "labels": 2}, {"input_ids": [3], "labels": 0}])
    assert batch["labels"].tolist() == [2, 0]


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
