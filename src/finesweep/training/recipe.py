"""The recipe of one attempt, from settings to its end. Reads top to bottom.

In: a trial, what trials share, a reporter. Out: reports while it runs, an AttemptResult. It must not know Optuna, Ray
or how decisions are made.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import torch
import transformers

from finesweep.errors import ResourcesError
from finesweep.events import AttemptResult, Grid, TrialSpec
from finesweep.spec.settings import settings_for, transformers_arguments
from finesweep.spec.sweep import TrainingSpec, TransformersSweep
from finesweep.trainer import Reporter
from finesweep.training.attempt import NOTHING_TOLD, Attempt
from finesweep.training.checkpoints import Checkpoint, TrialFolder
from finesweep.training.encoding import Tokenizer, collator, pad_id_of
from finesweep.training.facts import device_name, dtype_of, facts_at_start, facts_of_features
from finesweep.training.features.cache import FeatureCache, Features, NotCached
from finesweep.training.features.rows import feature_collator
from finesweep.training.hf_trainer import SweepTrainer
from finesweep.training.memory import Fitting, forget_trial, is_out_of_memory, with_smaller_batch
from finesweep.training.methods import apply_method
from finesweep.training.models import BaseModel
from finesweep.training.one_model import TrainedModel, Watching
from finesweep.training.schedule import Schedule, end_step, plan
from finesweep.training.scoring import Scoring
from finesweep.training.tasks import TaskKind
from finesweep.training.trainer_state import STATE

# A GPU is not busy with as few rows as a CPU is; without gradients a row takes a fraction of what training takes.
_MORE_ON_GPU = 8

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Shared:
    """What the trials of one worker have in common."""

    tokenizer: Tokenizer
    base_model: BaseModel
    train: datasets.Dataset
    validation: datasets.Dataset
    scoring: Scoring
    n_train_tokens: int
    features: FeatureCache | None = None  # None: every trial computes all of its model
    n_processes: int = 1  # that train a trial together, each its part of a batch; in a sweep always one


def train(
    trial: TrialSpec,
    reporter: Reporter,
    *,
    spec: TransformersSweep,
    grid: Grid,
    shared: Shared,
    folder: TrialFolder,
    watchers: Sequence[transformers.TrainerCallback] = (),
) -> AttemptResult:
    """Train one attempt of a trial, from its newest checkpoint where there is one.

    Where the device's memory runs out, go on in the same way with a smaller device batch. Raises ResourcesError where
    not a single row fits. `watchers` are called after what is due has been reported.
    """
    began_cpu_s = time.process_time()
    folder.begin()
    device = device_of(spec)
    fitting = Fitting.of_sweep(folder.artifact_dir)
    settings = fitting.settle(settings_for(spec.training, trial.configuration), device=device)
    told_up_to, n_oom = NOTHING_TOLD, 0
    while True:
        end = _train(
            settings,
            reporter,
            fitting,
            spec=spec,
            grid=grid,
            shared=shared,
            folder=folder,
            told_up_to=told_up_to,
            watchers=watchers,
        )
        if isinstance(end, AttemptResult):
            reporter.describe({"cpu_seconds": time.process_time() - began_cpu_s})  # of the attempt, on all threads
            return end
        forget_trial()
        settings = with_smaller_batch(settings, max_length=spec.data.max_length)
        fitting.note(settings, device=device)
        told_up_to, n_oom = end.told_up_to, n_oom + 1
        reporter.describe({"n_oom": n_oom})
        _log.info("out of memory: going on with %d rows at once", settings.device_batch_size)


@dataclass(frozen=True, slots=True)
class _OutOfMemory:
    """The device's memory ran out."""

    told_up_to: int  # the last step that was reported


def _train(
    settings: TrainingSpec,
    reporter: Reporter,
    fitting: Fitting,
    *,
    spec: TransformersSweep,
    grid: Grid,
    shared: Shared,
    folder: TrialFolder,
    told_up_to: int,
    watchers: Sequence[transformers.TrainerCallback],
) -> AttemptResult | _OutOfMemory:
    schedule = plan(settings, n_rows=len(shared.train), drop_last=drops_last(settings))
    use_cpu = on_cpu(spec)
    device = device_of(spec)
    most = rows_to_evaluate(shared.scoring.kind, schedule, use_cpu=use_cpu)
    eval_rows = fitting.settle_evaluation(settings, device=device, most=most)
    trainer, found = set_up(settings, schedule, spec=spec, shared=shared, folder=folder, eval_rows=eval_rows)
    attempt = Attempt(
        TrainedModel(trainer, settings, spec=spec, folder=folder, tokenizer=shared.tokenizer),
        poll=reporter.poll,
        describe=reporter.describe,
        spec=spec,
        grid=grid,
        settings=settings,
        schedule=schedule,
        folder=folder,
        told_up_to=told_up_to,
    )
    for callback in (Watching(trainer, attempt, reporter.report), *watchers):
        trainer.add_callback(callback)
    checkpoint = folder.newest_checkpoint(holding=STATE)
    if checkpoint is not None:
        attempt.go_on_from(checkpoint)
    facts = facts_at_start(
        settings,
        schedule,
        trainer.trainable,
        device=trainer.args.device,
        last_step=end_step(grid, schedule),
        resumed_from=folder.relative(checkpoint.path) if checkpoint else None,
    )
    dtype = dtype_of(spec.model, bf16=trainer.args.bf16, fp16=trainer.args.fp16)
    reporter.describe({**facts, **facts_of_features(found), "dtype": dtype, "tokens_per_epoch": shared.n_train_tokens})
    _log.info(
        "method %s trains %d of %d parameters; batches of %d (%d x %d) in %d optimizer steps, %d of %d warm-up steps",
        *(settings.method, trainer.trainable.n_trainable, trainer.trainable.n_total),
        *(schedule.batch_size, schedule.device_batch_size, schedule.accumulation),
        *(schedule.optimizer_steps, schedule.warmup_steps, schedule.warmup_asked),
    )
    began_s = time.perf_counter()
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint.path) if checkpoint else None)
    except RuntimeError as error:
        if not is_out_of_memory(error) or shared.n_processes > 1:  # the others would wait for this one
            raise
        return _OutOfMemory(attempt.told_up_to)  # and nothing of the exception: it holds what fills the memory
    if trainer.args.per_device_eval_batch_size < eval_rows:
        fitting.note_evaluation(settings, device=device, n_rows=trainer.args.per_device_eval_batch_size)
    reporter.describe(_facts_at_end(schedule, trainer, checkpoint, took_s=time.perf_counter() - began_s))
    return attempt.end()


def set_up(
    settings: TrainingSpec,
    schedule: Schedule,
    *,
    spec: TransformersSweep,
    shared: Shared,
    folder: TrialFolder,
    eval_rows: int,
) -> tuple[SweepTrainer, Features | NotCached | None]:
    """Make the trainer of a trial: a fresh model with the method's weights set to move, and data.

    Where what is frozen computes the same for all rows again and again, the data is what it computes, and the model
    what is left; say so. Raises ResourcesError where the device does not hold the model.
    """
    arguments = training_arguments(
        settings,
        schedule,
        eval_rows=eval_rows,
        folder=folder,
        use_cpu=on_cpu(spec),
        n_processes=shared.n_processes,
    )
    cache = shared.features if settings.method == "feature-extraction" else None
    found = None if cache is None else cache.find(settings)
    pad_id = pad_id_of(shared.tokenizer)
    if cache is not None and isinstance(found, Features):
        trainable = cache.shell(settings)
        data = {"train_dataset": found.train, "eval_dataset": found.validation}
        data_collator = feature_collator(pad_id)
    else:
        model, fresh = shared.base_model.copy(settings.seed), shared.base_model.fresh_parameters
        trainable = apply_method(model, settings, task=spec.task, fresh_parameters=fresh)
        data = {"train_dataset": shared.train, "eval_dataset": shared.validation}
        data_collator = collator(pad_id)
    try:
        trainer = SweepTrainer(
            args=arguments,
            scoring=shared.scoring,
            trainable=trainable,
            drop_last=drops_last(settings),
            data_collator=data_collator,
            **data,
        )
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise ResourcesError(
            "out of memory: the model alone does not fit the device. Set model.dtype to bfloat16, or take a device "
            "with more memory, or one that nobody else uses, or a larger share of it (resources.gpus_per_trial)."
        ) from error
    trainer.remove_callback(transformers.PrinterCallback)
    return trainer, found


def drops_last(settings: TrainingSpec) -> bool:
    """Tell whether an epoch leaves out the rows that do not fill a batch."""
    return bool(transformers_arguments(settings).get("dataloader_drop_last", False))


def rows_to_evaluate(kind: TaskKind, schedule: Schedule, *, use_cpu: bool) -> int:
    """Choose how many rows to evaluate at once; on a GPU many, and fewer where these turn out not to fit."""
    return max(schedule.device_batch_size, rows_without_gradients(kind, use_cpu=use_cpu))


def rows_without_gradients(kind: TaskKind, *, use_cpu: bool) -> int:
    return kind.eval_rows * (1 if use_cpu else _MORE_ON_GPU)


def training_arguments(
    settings: TrainingSpec,
    schedule: Schedule,
    *,
    eval_rows: int,
    folder: TrialFolder,
    use_cpu: bool,
    n_processes: int = 1,
) -> transformers.TrainingArguments:
    """Restate settings in transformers' words. Reports, checkpoints and logs are ours, so its own are off.

    The accumulation of the schedule counts the micro-batches of a step over all processes, which divide it.
    """
    passed_on = transformers_arguments(settings)
    return transformers.TrainingArguments(
        **{
            **passed_on,
            "output_dir": str(folder.path),
            "learning_rate": settings.learning_rate,
            "weight_decay": settings.weight_decay,
            "warmup_steps": schedule.warmup_steps,
            "max_steps": schedule.optimizer_steps,
            "per_device_train_batch_size": schedule.device_batch_size,
            "per_device_eval_batch_size": eval_rows,
            "gradient_accumulation_steps": schedule.accumulation // n_processes,
            "seed": settings.seed,
            "data_seed": settings.seed,
            "use_cpu": use_cpu,
            "dataloader_pin_memory": passed_on.get("dataloader_pin_memory", True) and not use_cpu,
            "dataloader_drop_last": False,  # it would drop validation rows as well
            "remove_unused_columns": False,  # it goes by the model's signature; the collator takes what it needs
            "label_names": ["labels"],
            "eval_strategy": "no",
            "save_strategy": "no",
            "logging_strategy": "no",
            "logging_nan_inf_filter": False,  # a loss that is not finite is told, not averaged away
            "report_to": "none",
            "disable_tqdm": True,
            "log_level": "error",
        }
    )


def device_of(spec: TransformersSweep) -> str:
    """Name the device that trials compute on, as their facts do."""
    return device_name(torch.device("cpu" if on_cpu(spec) else "cuda"))


def on_cpu(spec: TransformersSweep) -> bool:
    return spec.resources.devices == "cpu" or not torch.cuda.is_available()


def _facts_at_end(
    schedule: Schedule, trainer: SweepTrainer, checkpoint: Checkpoint | None, *, took_s: float
) -> Mapping[str, Any]:
    began_at = schedule.examples_at(checkpoint.progress.optimizer_step) if checkpoint else 0
    n_examples = schedule.examples_at(trainer.state.global_step) - began_at
    on_gpu = trainer.args.device.type == "cuda"
    return {
        "eval_batch_size": trainer.args.per_device_eval_batch_size,
        "examples_per_second": n_examples / took_s,  # evaluation and waiting for decisions included
        "peak_memory_gib": torch.cuda.max_memory_allocated() / 2**30 if on_gpu else None,
    }
