"""transformers' Trainer as sweeps need it: frozen parts stay frozen, the loss is whole steps', the order seeded.

In: a model, arguments, a task. Out: training steps, scores, trained weights. It must not know reports or trials.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import datasets
import torch
import transformers
from transformers.trainer_pt_utils import LengthGroupedSampler

from finesweep.training.methods import Trainable
from finesweep.training.models import Model
from finesweep.training.scoring import Scoring


class SweepTrainer(transformers.Trainer):  # type: ignore[misc]  # transformers is untyped here
    """A Trainer that keeps frozen parts in evaluation mode and sums up the loss of each optimizer step."""

    def __init__(self, *, scoring: Scoring, trainable: Trainable, **options: Any) -> None:
        super().__init__(
            compute_loss_func=self._mean_loss,
            compute_metrics=self._score_rows,
            preprocess_logits_for_metrics=scoring.kind.row_statistics,
            **options,
        )
        self.trainable = trainable
        self._scoring, self._kind = scoring, scoring.kind
        self._scores: dict[str, float] = {}
        self._loss: torch.Tensor | None = None

    def compute_loss(self, model: Model, *args: Any, **options: Any) -> Any:
        for module in self.trainable.frozen_modules:
            module.eval()  # the Trainer puts the whole model in training mode before every batch
        return super().compute_loss(model, *args, **options)

    def _mean_loss(self, outputs: Any, labels: torch.Tensor, *, num_items_in_batch: Any) -> torch.Tensor:
        """Average over the whole optimizer step, however it is split into micro-batches.

        Not left to the models: some (BERT's classifier) average over each micro-batch but count as if they did not, and
        their gradients come out as many times too large as there are micro-batches.
        """
        smoothing = self.args.label_smoothing_factor
        return self._kind.loss_sum(outputs["logits"], labels, smoothing=smoothing) / num_items_in_batch

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> torch.Tensor | None:
        """Count what the loss is the mean of. transformers would count all labels but -100, also of a regression."""
        counts = [self._kind.n_losses(batch["labels"]) for batch in batch_samples]
        return torch.stack(counts).sum().to(device) if counts else None

    def training_step(self, *args: Any, **options: Any) -> torch.Tensor:
        loss: torch.Tensor = super().training_step(*args, **options)
        self._loss = loss if self._loss is None else self._loss + loss
        return loss

    def _get_train_sampler(self, train_dataset: datasets.Dataset | None = None) -> Any:
        """Seed the one sampler that would draw from torch's global state, which a resumed trial cannot wind back."""
        rows = self.train_dataset if train_dataset is None else train_dataset
        if self.args.train_sampling_strategy != "group_by_length":
            return super()._get_train_sampler(rows)
        batch_size = self.args.train_batch_size * self.args.gradient_accumulation_steps
        return _LengthGroups(batch_size, [len(ids) for ids in rows["input_ids"]], seed=self.args.seed)

    def take_loss(self) -> float:
        """Return the loss of the optimizer step just made, over all its micro-batches. Waits for the device."""
        assert self._loss is not None, "asked before a training step"
        loss, self._loss = float(self._loss), None
        return loss

    def score(self) -> dict[str, float]:
        """Evaluate on the validation rows. Leave random states alone: when one looks does not change what is learnt."""
        with torch.random.fork_rng(devices=[]):
            self.evaluate()
        return self._scores

    def _score_rows(self, prediction: transformers.EvalPrediction) -> dict[str, float]:
        """Keep the scores beside the Trainer's own, whose names and averages are others."""
        self._scores = self._scoring.of_rows(prediction)
        return {}

    def trained_weights(self) -> dict[str, torch.Tensor]:
        return {name: p for name, p in self.model.named_parameters() if name in self.trainable.names}


class _LengthGroups(LengthGroupedSampler):  # type: ignore[misc]  # transformers is untyped here
    """Batches of rows of like length, in an order that seed and epoch fix."""

    def __init__(self, batch_size: int, lengths: list[int], *, seed: int) -> None:
        super().__init__(batch_size, lengths=lengths, generator=torch.Generator())
        self._seed, self._epoch = seed, 0

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    def __iter__(self) -> Iterator[int]:
        self.generator.manual_seed(self._seed + self._epoch)
        indices: Iterator[int] = super().__iter__()
        return indices
