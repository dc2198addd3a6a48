"""Try a sweep on a small scale: one training step and one evaluation at the largest shape that its space allows.

In: the resolved sweep. Out: what they took in seconds and memory, from which the cost of the sweep can be estimated. It
must not know budgets or schedulers.
"""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers

from finesweep.errors import ResourcesError
from finesweep.spec.grid import extremes, largest
from finesweep.spec.settings import settings_for, transformers_arguments
from finesweep.spec.sweep import SweepSpec, TrainingSpec
from finesweep.training.checkpoints import TrialFolder
from finesweep.training.encoding import collator, is_per_token, pad_id_of
from finesweep.training.hf_trainer import SweepTrainer
from finesweep.training.methods import apply_method
from finesweep.training.prepare import prepare
from finesweep.training.recipe import Shared, on_cpu, training_arguments
from finesweep.training.schedule import plan
from finesweep.training.transformers_trainer import check_devices, forget_trial, load_shared

_STEPS = 2  # the first also pays for what is done once, such as choosing kernels; the last is timed


@dataclass(frozen=True, slots=True)
class SmokeResult:
    """Rows are filled to `max_length` tokens, so that real ones cost less."""

    device: str
    method: str
    batch_size: int
    device_batch_size: int
    max_length: int
    n_trainable: int
    n_parameters: int
    n_train_rows: int
    n_validation_rows: int
    train_s_per_example: float
    eval_s_per_example: float
    peak_memory_gib: float  # of the device; on a CPU of the whole process


def smoke(spec: SweepSpec, *, cache_dir: Path) -> SmokeResult:
    """Load model and data, make a step and an evaluation. Raises DataError, ModelError or ResourcesError."""
    check_devices(spec)
    shared = load_shared(spec, prepare(spec, cache_dir=cache_dir), cache_dir=cache_dir)
    settings = settings_for(spec.training, largest_settings(spec))
    try:
        with tempfile.TemporaryDirectory() as scratch:
            return _try(spec, settings, shared, Path(scratch))
    except torch.OutOfMemoryError as error:
        n_at_once = min(settings.batch_size, settings.device_batch_size or settings.batch_size)
        raise ResourcesError(
            f"batch_size {settings.batch_size} (method {settings.method}, data.max_length {spec.data.max_length}) does "
            f"not fit the device's memory with {n_at_once} rows at once. Set training.device_batch_size to a divisor "
            f"of the batch sizes below {n_at_once}, or lower data.max_length."
        ) from error
    finally:
        forget_trial()


def largest_settings(spec: SweepSpec) -> Mapping[str, Any]:
    """Return the values, among those the space allows, that cost most memory."""
    parameters = spec.study.parameters
    most: dict[str, Any] = {}
    for name in ("batch_size", "unfrozen_layers"):
        if name in parameters:
            most[name] = int(largest(spec, name))
    if "method" in parameters:
        methods = extremes(parameters["method"])
        most["method"] = "full" if "full" in methods else methods[0]
    return most


def _try(spec: SweepSpec, settings: TrainingSpec, shared: Shared, scratch: Path) -> SmokeResult:
    kind = shared.scoring.kind
    train_rows = _full_rows(shared.train, settings.batch_size, spec.data.max_length)
    schedule = plan(settings.model_copy(update={"epochs": _STEPS}), n_rows=settings.batch_size)
    model = shared.base_model.copy(settings.seed)
    trainable = apply_method(model, settings, fresh_parameters=shared.base_model.fresh_parameters)
    folder = TrialFolder(scratch, number=0, attempt=1)
    passed_on = transformers_arguments(settings)
    arguments = training_arguments(settings, schedule, kind, passed_on, folder=folder, use_cpu=on_cpu(spec))
    eval_rows = _full_rows(shared.validation, arguments.per_device_eval_batch_size, spec.data.max_length)
    trainer = SweepTrainer(
        model=model,
        args=arguments,
        scoring=shared.scoring,
        trainable=trainable,
        train_dataset=train_rows,
        eval_dataset=eval_rows,
        data_collator=collator(pad_id_of(shared.tokenizer)),
    )
    trainer.remove_callback(transformers.PrinterCallback)
    clock = _StepClock(trainer)
    trainer.add_callback(clock)
    trainer.train()
    began_s = time.perf_counter()
    trainer.score()
    eval_s = time.perf_counter() - began_s
    device = trainer.args.device
    return SmokeResult(
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        method=settings.method,
        batch_size=settings.batch_size,
        device_batch_size=schedule.device_batch_size,
        max_length=spec.data.max_length,
        n_trainable=trainable.n_trainable,
        n_parameters=trainable.n_total,
        n_train_rows=len(shared.train),
        n_validation_rows=len(shared.validation),
        train_s_per_example=clock.step_s / settings.batch_size,
        eval_s_per_example=eval_s / len(eval_rows),
        peak_memory_gib=_peak_memory_gib(device),
    )


class _StepClock(transformers.TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
    """Keeps the seconds of the last optimizer step."""

    def __init__(self, trainer: SweepTrainer) -> None:
        self._trainer = trainer
        self._began_s = self.step_s = 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._began_s = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._trainer.take_loss()  # waits for the device
        self.step_s = time.perf_counter() - self._began_s


def _full_rows(rows: datasets.Dataset, n: int, max_length: int) -> datasets.Dataset:
    """Repeat rows until there are `n`, and the tokens of each until it is full."""

    def fill(values: Any) -> Any:
        return (values * (max_length // len(values) + 1))[:max_length] if is_per_token(values) else values

    chosen = [rows[i % len(rows)] for i in range(n)]
    return datasets.Dataset.from_list([{key: fill(value) for key, value in row.items()} for row in chosen])


def _peak_memory_gib(device: torch.device) -> float:
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated() / 2**30)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # Linux counts it in KiB
