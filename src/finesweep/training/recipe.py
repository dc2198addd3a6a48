"""The recipe of one attempt, from settings to its end. Reads top to bottom.

In: a trial, what trials share, a reporter. Out: reports while it runs, an AttemptResult. It must not know Optuna, Ray
or how decisions are made.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import datasets
import torch
import transformers
from transformers.trainer_pt_utils import LengthGroupedSampler

from finesweep.events import AttemptResult, Decision, Ending, Grid, Report, TrialSpec
from finesweep.spec.settings import settings_for, transformers_arguments
from finesweep.spec.sweep import SweepSpec, TrainingSpec
from finesweep.trainer import Reporter
from finesweep.training.checkpoints import Checkpoint, Progress, TrialFolder
from finesweep.training.encoding import Tokenizer, collator, pad_id_of
from finesweep.training.methods import Trainable, apply_method
from finesweep.training.models import BaseModel, Model
from finesweep.training.schedule import Schedule, end_step, off_grid_step, plan, steps_reached
from finesweep.training.tasks import TaskKind, task_kind

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Shared:
    """What the trials of one worker have in common."""

    tokenizer: Tokenizer
    base_model: BaseModel
    train: datasets.Dataset
    validation: datasets.Dataset


def train(
    trial: TrialSpec, reporter: Reporter, *, spec: SweepSpec, grid: Grid, shared: Shared, folder: TrialFolder
) -> AttemptResult:
    """Train one attempt of a trial, from its newest checkpoint where there is one."""
    folder.begin()
    settings = settings_for(spec.training, trial.configuration)
    kind = task_kind(spec.task)
    passed_on = transformers_arguments(settings)
    schedule = plan(settings, n_rows=len(shared.train), drop_last=passed_on.get("dataloader_drop_last", False))

    model = shared.base_model.copy(settings.seed)
    trainable = apply_method(model, settings, fresh_parameters=shared.base_model.fresh_parameters)
    arguments = training_arguments(settings, schedule, kind, passed_on, folder=folder, use_cpu=on_cpu(spec))
    trainer = SweepTrainer(
        model=model,
        args=arguments,
        kind=kind,
        trainable=trainable,
        train_dataset=shared.train,
        eval_dataset=shared.validation,
        data_collator=collator(pad_id_of(shared.tokenizer)),
    )
    attempt = _Attempt(
        trainer,
        reporter,
        spec=spec,
        grid=grid,
        settings=settings,
        schedule=schedule,
        folder=folder,
        tokenizer=shared.tokenizer,
    )
    trainer.add_callback(attempt)
    trainer.remove_callback(transformers.PrinterCallback)

    checkpoint = folder.newest_checkpoint()
    if checkpoint is not None:
        attempt.go_on_from(checkpoint)
    last_step = end_step(grid, schedule)
    reporter.describe(_facts_at_start(settings, schedule, trainable, trainer, checkpoint, folder, last_step=last_step))
    began_s = time.perf_counter()
    trainer.train(resume_from_checkpoint=str(checkpoint.path) if checkpoint else None)
    reporter.describe(_facts_at_end(schedule, trainer, checkpoint, took_s=time.perf_counter() - began_s))
    return attempt.end()


def training_arguments(
    settings: TrainingSpec,
    schedule: Schedule,
    kind: TaskKind,
    passed_on: Mapping[str, Any],
    *,
    folder: TrialFolder,
    use_cpu: bool,
) -> transformers.TrainingArguments:
    """Restate settings in transformers' words. Reports, checkpoints and logs are ours, so its own are off."""
    return transformers.TrainingArguments(
        **{
            **passed_on,
            "output_dir": str(folder.path),
            "learning_rate": settings.learning_rate,
            "weight_decay": settings.weight_decay,
            "warmup_steps": schedule.warmup_steps,
            "max_steps": schedule.optimizer_steps,
            "per_device_train_batch_size": schedule.device_batch_size,
            "per_device_eval_batch_size": max(schedule.device_batch_size, kind.eval_rows),
            "gradient_accumulation_steps": schedule.accumulation,
            "seed": settings.seed,
            "data_seed": settings.seed,
            "use_cpu": use_cpu,
            "dataloader_pin_memory": passed_on.get("dataloader_pin_memory", True) and not use_cpu,
            "eval_strategy": "no",
            "save_strategy": "no",
            "logging_strategy": "no",
            "logging_nan_inf_filter": False,  # a loss that is not finite is told, not averaged away
            "report_to": "none",
            "disable_tqdm": True,
            "log_level": "error",
        }
    )


def on_cpu(spec: SweepSpec) -> bool:
    return spec.resources.devices == "cpu" or not torch.cuda.is_available()


class SweepTrainer(transformers.Trainer):  # type: ignore[misc]  # transformers is untyped here
    """A Trainer that keeps frozen parts in evaluation mode and sums up the loss of each optimizer step."""

    def __init__(self, *, kind: TaskKind, trainable: Trainable, **options: Any) -> None:
        super().__init__(
            compute_loss_func=self._mean_loss,
            compute_metrics=kind.compute_metrics,
            preprocess_logits_for_metrics=kind.row_statistics,
            **options,
        )
        self.trainable = trainable
        self._kind = kind
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
            metrics: Mapping[str, float] = self.evaluate(metric_key_prefix="eval")
        return {name: metrics[f"eval_{name}"] for name in self._kind.metric_names}

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


class _Attempt(transformers.TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
    """What happens after each optimizer step: reports on the grid, polls, checkpoints, the best weights."""

    def __init__(
        self,
        trainer: SweepTrainer,
        reporter: Reporter,
        *,
        spec: SweepSpec,
        grid: Grid,
        settings: TrainingSpec,
        schedule: Schedule,
        folder: TrialFolder,
        tokenizer: Tokenizer,
    ) -> None:
        self._trainer, self._reporter = trainer, reporter
        self._spec, self._grid, self._schedule = spec, grid, schedule
        self._checkpoint_s = settings.checkpoint_minutes * 60
        self._folder, self._tokenizer = folder, tokenizer
        self._loss_sum, self._loss_steps = 0.0, 0
        self._is_finite = True
        self._last_checkpoint_s = time.monotonic()
        self._decision = Decision.CONTINUE
        best = folder.best()
        self._best_value = best.value if best else None

    def go_on_from(self, checkpoint: Checkpoint) -> None:
        self._loss_sum, self._loss_steps = checkpoint.progress.loss_sum, checkpoint.progress.loss_steps

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        loss = self._trainer.take_loss()
        self._loss_sum += loss
        self._loss_steps += 1
        step = state.global_step
        is_over = step >= self._schedule.optimizer_steps
        reached = steps_reached(self._grid, self._schedule, step)

        if not math.isfinite(loss) and self._is_finite:
            self._is_finite = False  # told once, at once; should it be let go on, the grid will tell the rest
            self._report_divergence(step, loss)
        elif reached or is_over:
            self._report(reached, step, is_over=is_over)

        if self._decision is Decision.CONTINUE and not is_over:
            self._decision = self._reporter.poll()
        is_due = bool(reached) and time.monotonic() - self._last_checkpoint_s >= self._checkpoint_s
        if not is_over and (self._decision is Decision.PAUSE or (self._decision is Decision.CONTINUE and is_due)):
            self._write_checkpoint(step)
        if self._decision is not Decision.CONTINUE:
            control.should_training_stop = True

    def end(self) -> AttemptResult:
        """Tidy the trial's folder and say how the attempt ended."""
        if self._decision is Decision.STOP:
            self._folder.clear()
            return AttemptResult(Ending.STOPPED)
        if self._decision is Decision.PAUSE and self._trainer.state.global_step < self._schedule.optimizer_steps:
            return AttemptResult(Ending.PAUSED)
        best = self._folder.best()
        self._folder.clear(but=best.path if best else None)
        return AttemptResult(Ending.DONE, artifacts={"best": self._folder.relative(best.path)} if best else {})

    def _report(self, reached: tuple[int, ...], optimizer_step: int, *, is_over: bool) -> None:
        """Evaluate once and tell every step of the grid that this optimizer step is the first to reach.

        All of them, also after an answer of PAUSE: the checkpoint then written lies behind them. Only STOP cuts short.
        """
        metrics = self._trainer.score()
        metrics["train_loss"] = self._loss_sum / self._loss_steps
        self._loss_sum, self._loss_steps = 0.0, 0
        steps = (*reached, end_step(self._grid, self._schedule)) if is_over else reached
        for step in steps:  # a trial that has made its last optimizer step is whole: none of these may prune it
            self._tell(step, metrics, optimizer_step, is_final=is_over)
            if self._decision is Decision.STOP:
                return
        self._keep_best(metrics[self._spec.study.objective.metric], step=steps[-1], is_over=is_over)

    def _report_divergence(self, optimizer_step: int, loss: float) -> None:
        """Tell a loss that is not finite without evaluating: the weights are worth nothing now."""
        metrics = dict.fromkeys((*task_kind(self._spec.task).metric_names, "train_loss"), math.nan)
        step = off_grid_step(self._grid, self._schedule, optimizer_step)
        is_final = optimizer_step >= self._schedule.optimizer_steps
        self._tell(step, {**metrics, "loss": loss, "train_loss": loss}, optimizer_step, is_final=is_final)

    def _tell(self, step: int, metrics: Mapping[str, float], optimizer_step: int, *, is_final: bool) -> None:
        examples_seen = self._schedule.examples_at(optimizer_step)
        decision = self._reporter.report(Report(step, metrics, examples_seen, final=is_final))
        said = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
        _log.info("step %d, %d examples seen, %s: %s", step, examples_seen, said, decision)
        if self._decision is not Decision.STOP and decision is not Decision.CONTINUE:
            self._decision = decision

    def _keep_best(self, value: float, *, step: int, is_over: bool) -> None:
        objective = self._spec.study.objective
        if self._spec.artifacts.keep == "none":
            return
        if objective.value == "last":
            if not is_over:
                return
        elif not math.isfinite(value) or not objective.is_better(value, self._best_value):
            return
        self._best_value = value
        self._folder.write_best(
            self._trainer.model,
            self._tokenizer,
            self._trainer.trained_weights(),
            reference=self._spec.model.name,
            task=self._spec.task,
            step=step,
            value=value,
        )

    def _write_checkpoint(self, optimizer_step: int) -> None:
        progress = Progress(optimizer_step, self._loss_sum, self._loss_steps)
        self._folder.write_checkpoint(self._trainer, self._trainer.trained_weights(), progress)
        self._last_checkpoint_s = time.monotonic()


def _facts_at_start(
    settings: TrainingSpec,
    schedule: Schedule,
    trainable: Trainable,
    trainer: SweepTrainer,
    checkpoint: Checkpoint | None,
    folder: TrialFolder,
    *,
    last_step: int,
) -> Mapping[str, Any]:
    device = trainer.args.device
    return {
        "method": settings.method,
        "n_trainable": trainable.n_trainable,
        "n_parameters": trainable.n_total,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "dtype": _dtype(trainer.args),
        "device_batch_size": schedule.device_batch_size,
        "accumulation": schedule.accumulation,
        "examples_per_epoch": schedule.examples_per_epoch,
        "optimizer_steps": schedule.optimizer_steps,
        "last_step": last_step,
        "warmup_steps_asked": schedule.warmup_asked,
        "warmup_steps": schedule.warmup_steps,
        "resumed_from": folder.relative(checkpoint.path) if checkpoint else None,
        "pid": os.getpid(),
    }


def _facts_at_end(
    schedule: Schedule, trainer: SweepTrainer, checkpoint: Checkpoint | None, *, took_s: float
) -> Mapping[str, Any]:
    began_at = schedule.examples_at(checkpoint.progress.optimizer_step) if checkpoint else 0
    n_examples = schedule.examples_at(trainer.state.global_step) - began_at
    on_gpu = trainer.args.device.type == "cuda"
    return {
        "examples_per_second": n_examples / took_s,  # evaluation and waiting for decisions included
        "peak_memory_gib": torch.cuda.max_memory_allocated() / 2**30 if on_gpu else None,
    }


def _dtype(arguments: transformers.TrainingArguments) -> str:
    if arguments.bf16:
        return "bfloat16 autocast"
    return "float16 autocast" if arguments.fp16 else "float32"
