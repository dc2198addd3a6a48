"""A lane: one trial of a stack, with weights, optimizer state and chance of its own.

In: what the lanes of a stack share, a trial's settings. Out: what an attempt asks of whatever trains it. It must not
know the other lanes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file

from finesweep.events import GRAD_NORM, LEARNING_RATE
from finesweep.spec.settings import default_of
from finesweep.spec.sweep import TrainingSpec
from finesweep.training.checkpoints import Checkpoint, Progress
from finesweep.training.gauges import Gauges
from finesweep.training.generation import Sample
from finesweep.training.judging import loss_of_ignorance, start_rows
from finesweep.training.methods import Trainable
from finesweep.training.quota import bytes_to_write
from finesweep.training.schedule import Schedule
from finesweep.training.scoring import Scoring
from finesweep.training.stack.adamw import AdamWSettings, Moments
from finesweep.training.stack.chance import Chance, Order
from finesweep.training.stack.head import Layer, apply_head

_log = logging.getLogger(__name__)

_ROWS_AT_ONCE = 4096  # in scoring: stored vectors and logits of so many rows are small
_WEIGHTS, OPTIMIZER = "model.safetensors", "optimizer.safetensors"


@dataclass(frozen=True, slots=True)
class Rows:
    """Stored features of a split and what is asked of them, row by row."""

    vectors: torch.Tensor  # (rows, features)
    labels: torch.Tensor  # (rows,), or (rows, classes) of several labels


@dataclass(frozen=True, slots=True)
class HeadTask:
    """What the lanes of a stack have in common."""

    layers: Sequence[Layer]
    decayed: frozenset[str]  # the parameters that weight decay is for
    train: Rows
    validation: Rows
    scoring: Scoring
    autocast: torch.dtype | None  # what is computed in, where that is not the precision of the weights

    @property
    def device(self) -> torch.device:
        return self.train.vectors.device

    def precision(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.autocast or torch.bfloat16, enabled=self.autocast is not None)

    def losses(
        self, weights: Mapping[str, torch.Tensor], rows: torch.Tensor, smoothing: float, masks: Sequence[torch.Tensor]
    ) -> torch.Tensor:
        """Return the mean loss of each lane: (lanes,) of weights: (lanes, *shape) and rows: (lanes or 1, batch)."""
        labels = self.train.labels[rows]
        with self.precision():
            logits = apply_head(self.layers, weights, self.train.vectors[rows], masks)  # (lanes, batch, outputs)
            wanted = labels.expand(logits.shape[0], *labels.shape[1:])
            row_losses = self.scoring.kind.row_losses
            assert row_losses is not None, "tasks without losses of rows are not stacked"
            of_rows = row_losses(logits.flatten(0, 1), wanted.flatten(0, 1), smoothing=smoothing)
        return of_rows.view(logits.shape[:2]).sum(1) / self.scoring.kind.n_losses(labels[0])


class Lane:
    """What an attempt asks of a trial, of its lane."""

    samples: Sequence[Sample] = ()  # a head writes nothing

    def __init__(
        self,
        task: HeadTask,
        settings: TrainingSpec,
        schedule: Schedule,
        *,
        shell: Trainable,
        order: Order,
        write_best: Callable[..., Path],
        write_checkpoint: Callable[..., Path],
    ) -> None:
        """Begin with the head of `shell`; `write_best` and `write_checkpoint` are those of the trial's folder."""
        self.task, self.settings, self.schedule = task, settings, schedule
        self.n_trainable, self._n_bytes = shell.n_trainable, shell.n_bytes
        self.weights = {
            name: weight.detach().to(task.device, copy=True)
            for name, weight in shell.model.named_parameters()
            if name in shell.names
        }
        self.moments = Moments.zero(self.weights)
        self.chance = Chance(schedule, order, seed=settings.seed, device=task.device)
        self.optimizer_step = 0
        self.grad_norm: tuple[torch.Tensor, int] | None = None  # those of all lanes, and which is this one's
        self._gauges = Gauges(task.device)
        self.adamw = adamw_settings(settings)
        self.smoothing = float(setting(settings, "label_smoothing_factor"))
        self._rate = _rates(settings, schedule)
        self._write_best, self._write_checkpoint = write_best, write_checkpoint
        self._best: tuple[int, float, dict[str, torch.Tensor]] | None = None

    @property
    def learning_rate(self) -> float:
        """Of the next step."""
        return self.settings.learning_rate * self._rate(self.optimizer_step)

    def model_mib(self) -> float:
        return self._n_bytes / 2**20

    def telemetry(self) -> dict[str, float]:
        found = {**self._gauges.read(), LEARNING_RATE: self.learning_rate}
        if self.grad_norm is None:
            return found
        norms, place = self.grad_norm
        return {**found, GRAD_NORM: float(norms[place])}

    def loss_at_start(self) -> float:
        labels = self.task.train.labels
        rows = torch.tensor(start_rows(len(labels)), device=self.task.device)
        with torch.no_grad():
            loss = float(self.task.losses(_as_stack(self.weights), rows[None], self.smoothing, masks=()))
        return max(loss, loss_of_ignorance(labels[rows].tolist()))

    def score(self) -> dict[str, float]:
        scoring, rows = self.task.scoring, self.task.validation
        statistics = []
        with torch.no_grad(), self.task.precision():
            for vectors, labels in zip(
                rows.vectors.split(_ROWS_AT_ONCE), rows.labels.split(_ROWS_AT_ONCE), strict=True
            ):
                logits = apply_head(self.task.layers, _as_stack(self.weights), vectors[None])[0]
                statistics.append(scoring.kind.row_statistics(logits, labels).cpu())
        prediction = transformers.EvalPrediction(torch.cat(statistics).numpy(), rows.labels.cpu().numpy())
        return scoring.of_rows(prediction)

    def keep_best(self, *, step: int, value: float) -> None:
        """Keep the weights in memory: a lane gets better more often than its folder could be written."""
        self._best = step, value, {name: weight.clone() for name, weight in self.weights.items()}

    def write_checkpoint(self, progress: Progress) -> None:
        self._write_checkpoint(self._fill, progress, n_bytes=bytes_to_write(self.weights, self._optimizer_state()))

    def settle(self) -> None:
        """Write the best weights, if they are not written yet."""
        if self._best is not None:
            (step, value, weights), self._best = self._best, None
            self._write_best(weights, step=step, value=value)

    def go_on_from(self, checkpoint: Checkpoint) -> None:
        device = str(self.task.device)
        self.weights = load_file(checkpoint.path / _WEIGHTS, device=device)
        kept = load_file(checkpoint.path / OPTIMIZER, device=device)
        for name in self.weights:
            self.moments.mean[name], self.moments.square[name] = kept[f"mean.{name}"], kept[f"square.{name}"]
        try:
            self.chance.state = kept["chance"].cpu()
        except (RuntimeError, TypeError):  # one kind of device cannot read another kind's
            _log.warning("dropout draws anew: the trial was begun on another kind of device")
        self.optimizer_step = checkpoint.progress.optimizer_step

    def _fill(self, folder: Path) -> None:
        save_file({name: weight.contiguous() for name, weight in self.weights.items()}, folder / _WEIGHTS)
        save_file(self._optimizer_state(), folder / OPTIMIZER)

    def _optimizer_state(self) -> dict[str, torch.Tensor]:
        means = {f"mean.{name}": mean.contiguous() for name, mean in self.moments.mean.items()}
        squares = {f"square.{name}": square.contiguous() for name, square in self.moments.square.items()}
        return {**means, **squares, "chance": self.chance.state}


def setting(settings: TrainingSpec, name: str) -> Any:  # Any: whatever TrainingArguments take
    """Return what is passed on to transformers under a name, or its default there."""
    return (settings.model_extra or {}).get(name, default_of(name))


def adamw_settings(settings: TrainingSpec) -> AdamWSettings:
    names = ("adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm")
    return AdamWSettings(settings.weight_decay, *(float(setting(settings, name)) for name in names))


def _rates(settings: TrainingSpec, schedule: Schedule) -> Callable[[int], float]:
    """Return what the learning rate is multiplied by at each step, as transformers' scheduler says."""
    scheduler = transformers.get_scheduler(
        setting(settings, "lr_scheduler_type"),
        torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0),
        num_warmup_steps=schedule.warmup_steps,
        num_training_steps=schedule.optimizer_steps,
        scheduler_specific_kwargs=setting(settings, "lr_scheduler_kwargs"),
    )
    assert isinstance(scheduler, torch.optim.lr_scheduler.LambdaLR), "all that the spec does not refuse are"
    rate: Callable[[int], float] = scheduler.lr_lambdas[0]
    return rate


def _as_stack(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: weight[None] for name, weight in weights.items()}
