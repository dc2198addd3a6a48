"""transformers' Trainer as sweeps need it: frozen parts stay frozen, the loss is whole steps', the order seeded.

In: a model, arguments, a task. Out: training steps, scores, trained weights. It must not know reports or trials.
"""

from __future__ import annotations

import logging
import math
import time
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers

from finesweep.errors import ModelError, ResourcesError
from finesweep.events import GRAD_NORM, LEARNING_RATE
from finesweep.training.best_weights import contiguous
from finesweep.training.features.rows import StoredSplit
from finesweep.training.gauges import Gauges
from finesweep.training.generation import Sample, Writing
from finesweep.training.judging import loss_of_ignorance, start_rows
from finesweep.training.memory import give_back_memory, is_out_of_memory
from finesweep.training.methods import Trainable
from finesweep.training.models import Model
from finesweep.training.order import train_sampler
from finesweep.training.scoring import Scoring
from finesweep.training.trainer_state import chance_now, read_state, read_weights, set_chance, write_state

_PROMPTS_AT_ONCE = 8  # without gradients so many take less memory than one row in training

_log = logging.getLogger(__name__)


class SweepTrainer(transformers.Trainer):  # type: ignore[misc]  # transformers is untyped here
    """A Trainer that keeps frozen parts in evaluation mode and sums up the loss of each optimizer step."""

    def __init__(self, *, scoring: Scoring, trainable: Trainable, drop_last: bool = False, **options: Any) -> None:
        super().__init__(
            model=trainable.model,
            compute_loss_func=self._mean_loss,
            compute_metrics=self._score_rows,
            preprocess_logits_for_metrics=scoring.kind.row_statistics,
            **options,
        )
        self.trainable = trainable
        self._drop_last = drop_last
        self._scoring, self._kind = scoring, scoring.kind
        self._scores: dict[str, float] = {}
        self._prompts_at_once = _PROMPTS_AT_ONCE if scoring.writing else 1
        self.samples: list[Sample] = []  # of the last score
        self.generation_s = 0.0  # that the last score took to generate
        self._loss: torch.Tensor | None = None
        self._gauges = Gauges(self.args.device)
        self._norm: torch.Tensor | float | None = None  # of the last step's gradients, before clipping

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
        if not counts:
            return None
        return self._over_processes(torch.stack(counts).sum().to(device)).sum()

    def training_step(self, *args: Any, **options: Any) -> torch.Tensor:
        loss: torch.Tensor = super().training_step(*args, **options)
        self._loss = loss if self._loss is None else self._loss + loss
        return loss

    def _get_train_sampler(self, train_dataset: datasets.Dataset | None = None) -> Any:
        rows = _with_tokens(self.train_dataset if train_dataset is None else train_dataset)
        return train_sampler(rows, self.args, drop_last=self._drop_last) or super()._get_train_sampler(rows)

    def _get_eval_sampler(self, eval_dataset: datasets.Dataset) -> Any:
        return super()._get_eval_sampler(_with_tokens(eval_dataset))

    def take_loss(self) -> float:
        """Return the loss of the optimizer step just made, over all its micro-batches. Waits for the device."""
        assert self._loss is not None, "asked before a training step"
        loss, self._loss = float(self._over_processes(self._loss).mean()), None
        return loss

    def _over_processes(self, value: torch.Tensor) -> torch.Tensor:
        """Gather a number of each of the processes that train together: (processes,)."""
        gathered: torch.Tensor = self.accelerator.gather(value.detach().reshape(1))
        return gathered

    def loss_at_start(self) -> float:
        """Return the mean training loss of some rows before the first update, or what ignorance costs if that is more.

        To be asked once training is set up. Measured apart: the first steps' own losses are noisy where batches are
        small, and the second is already one after an update.
        """
        rows = [self.train_dataset[i] for i in start_rows(len(self.train_dataset))]
        loss = 0.0
        self.model.eval()
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            n_losses = self._get_num_items_in_batch([self.data_collator(rows)], self.args.device)
            for start in range(0, len(rows), self.args.train_batch_size):
                inputs = self._prepare_inputs(self.data_collator(rows[start : start + self.args.train_batch_size]))
                with self.compute_loss_context_manager():
                    loss += float(self.compute_loss(self.model_wrapped, inputs, num_items_in_batch=n_losses))
        return max(loss, loss_of_ignorance([row["labels"] for row in rows]))

    def score(self) -> dict[str, float]:
        """Evaluate on the validation rows, in smaller batches where the device's memory demands it.

        Leave random states alone: when one looks does not change what is learnt.
        """
        while True:
            try:
                with torch.random.fork_rng(devices=[]):
                    self.evaluate()
                    if self._scoring.writing is not None:
                        self._write(self._scoring.writing)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
            else:
                return self._scores
            self._halve_eval_batch()  # not above: the exception holds what filled the memory

    def _clip_grad_norm(self, model: Model) -> Any:
        self._norm = super()._clip_grad_norm(model)
        return self._norm

    def telemetry(self) -> dict[str, float]:
        """Give memory and use of the device, the learning rate of the next step and the last step's gradient norm."""
        found = {**self._gauges.read(), LEARNING_RATE: float(self.lr_scheduler.get_last_lr()[0])}
        return found if self._norm is None else {**found, GRAD_NORM: float(self._norm)}

    def _halve_eval_batch(self) -> None:
        n_rows = self.args.per_device_eval_batch_size
        if n_rows == self._prompts_at_once == 1:
            raise ResourcesError(
                "out of memory: a single validation row does not fit the device beside what training holds there. "
                "Lower data.max_length, or take a device with more memory."
            )
        give_back_memory()
        self.args.per_device_eval_batch_size = max(1, n_rows // 2)
        self._prompts_at_once = max(1, self._prompts_at_once // 2)
        self.__dict__.pop("_eval_dataloaders", None)  # kept where its workers are persistent
        _log.info("out of memory: evaluating %d rows at once instead of %d", max(1, n_rows // 2), n_rows)

    def _write(self, writing: Writing) -> None:
        """Add scores of what the model writes; one whose loss is not finite has nothing to say."""
        if not math.isfinite(self._scores["loss"]):
            self._scores |= dict.fromkeys(writing.metric_names, math.nan)
            self.samples = []
            return
        began_s = time.perf_counter()
        scores, self.samples = writing.judge(self.model, rows_at_once=self._prompts_at_once)
        self.generation_s = time.perf_counter() - began_s
        self._scores |= scores

    def _score_rows(self, prediction: transformers.EvalPrediction) -> dict[str, float]:
        """Keep the scores beside the Trainer's own, whose names and averages are others."""
        self._scores = self._scoring.of_rows(prediction)
        return {}

    def write_state(self, folder: Path) -> None:
        """Write trained weights, optimizer, scheduler, scaler, random states, position in the data."""
        states = {
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.lr_scheduler.state_dict(),
            "chance": chance_now(),
        }
        if self._scaler is not None:
            states["scaler"] = self._scaler.state_dict()
        write_state(folder, states, contiguous(self.trained_weights()))
        self.state.save_to_json(str(folder / "trainer_state.json"))

    # What the Trainer itself would read of a checkpoint, in `train(resume_from_checkpoint=…)`, are pickles.

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Model | None = None) -> None:
        weights = read_weights(Path(resume_from_checkpoint))
        _, unknown = (self.model if model is None else model).load_state_dict(weights, strict=False)
        if unknown:
            raise ModelError(f"{resume_from_checkpoint} is of another model: it has {', '.join(sorted(unknown))}.")

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            self.optimizer.load_state_dict(read_state(Path(checkpoint), "optimizer"))
            self.lr_scheduler.load_state_dict(read_state(Path(checkpoint), "scheduler"))

    def _load_scaler(self, checkpoint: str | None) -> None:
        if checkpoint is not None and self._scaler is not None:
            self._scaler.load_state_dict(read_state(Path(checkpoint), "scaler"))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            set_chance(read_state(Path(checkpoint), "chance"))

    @property
    def _scaler(self) -> torch.amp.GradScaler | None:
        """What fp16 scales gradients with."""
        scaler: torch.amp.GradScaler | None = getattr(self.accelerator, "scaler", None)
        return scaler

    def trained_weights(self) -> dict[str, torch.Tensor]:
        return {name: p for name, p in self.model.named_parameters() if name in self.trainable.names}

    def model_mib(self) -> float:
        """Return what all weights take, as they are held."""
        return self.trainable.n_bytes / 2**20


def _with_tokens(rows: datasets.Dataset | StoredSplit) -> datasets.Dataset:
    """Return the rows themselves: their order goes by their tokens, whatever the model is given of them."""
    return rows.rows if isinstance(rows, StoredSplit) else rows
