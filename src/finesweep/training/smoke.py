"""Try a sweep on a small scale: one training step and one evaluation at the largest shape that its space allows.

In: the resolved sweep. Out: what they took in seconds and memory, from which the cost of the sweep can be estimated. It
must not know budgets or schedulers.
"""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers

from finesweep.spec.grid import extremes, largest
from finesweep.spec.settings import settings_for
from finesweep.spec.sweep import Method, TrainingSpec, TransformersSweep
from finesweep.training.checkpoints import TrialFolder
from finesweep.training.encoding import is_per_token
from finesweep.training.facts import device_name
from finesweep.training.features.eligible import why_uncached
from finesweep.training.hf_trainer import SweepTrainer
from finesweep.training.memory import forget_trial, is_out_of_memory, keep_to_share, with_smaller_batch
from finesweep.training.prepare import prepare
from finesweep.training.recipe import Shared, on_cpu, rows_to_evaluate, set_up
from finesweep.training.schedule import plan
from finesweep.training.transformers_trainer import check_devices, load_shared

_BY_MEMORY: tuple[Method, ...] = ("full", "lora", "feature-extraction")  # what they take, most first
_STEPS = 2  # the first also pays for what is done once, such as choosing kernels; the last is timed


@dataclass(frozen=True, slots=True)
class SmokeResult:
    """Rows are filled to `max_length` tokens, so that real ones cost less."""

    device: str
    method: str
    batch_size: int
    device_batch_size: int  # what fits
    max_length: int
    n_trainable: int
    n_parameters: int
    n_train_rows: int
    n_validation_rows: int
    train_s_per_example: float
    eval_s_per_example: float
    generation_s: float  # of each evaluation, where what the model writes is judged
    may_be_stored: bool  # what frozen layers compute, so that trials do not compute it again
    peak_memory_gib: float  # of the device; on a CPU of the whole process


def smoke(spec: TransformersSweep, *, cache_dir: Path) -> SmokeResult:
    """Load model and data, make a step and an evaluation. Raises DataError, ModelError or ResourcesError.

    As in a trial, a batch that does not fit the device's memory is split until it does.
    """
    check_devices(spec)
    if not on_cpu(spec):
        keep_to_share(spec.resources.gpus_per_trial)
    shared = load_shared(spec, prepare(spec, cache_dir=cache_dir), cache_dir=cache_dir)
    settings = settings_for(spec.training, largest_settings(spec))
    with tempfile.TemporaryDirectory() as scratch:
        while True:
            try:
                return _try(spec, settings, shared, TrialFolder(Path(scratch), number=0, attempt=1))
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
            finally:
                forget_trial()
            settings = with_smaller_batch(settings, max_length=spec.data.max_length)


def largest_settings(spec: TransformersSweep) -> Mapping[str, Any]:
    """Return the values, among those the space allows, that cost most memory."""
    parameters = spec.study.parameters
    most: dict[str, Any] = {
        name: int(largest(spec, name)) for name in ("batch_size", "unfrozen_layers", "lora_rank") if name in parameters
    }
    if "method" in parameters:
        methods = extremes(parameters["method"])
        most["method"] = next(method for method in _BY_MEMORY if method in methods)
    return most


def _try(spec: TransformersSweep, settings: TrainingSpec, shared: Shared, folder: TrialFolder) -> SmokeResult:
    schedule = plan(settings.model_copy(update={"epochs": _STEPS}), n_rows=settings.batch_size)
    n_eval_rows = rows_to_evaluate(shared.scoring.kind, schedule, use_cpu=on_cpu(spec))
    full = replace(
        shared,
        train=_full_rows(shared.train, settings.batch_size, spec.data.max_length),
        validation=_full_rows(shared.validation, n_eval_rows, spec.data.max_length),
        scoring=replace(shared.scoring, metrics=()),  # the user's own may want more rows than these
        features=None,
    )
    trainer, _ = set_up(settings, schedule, spec=spec, shared=full, folder=folder, eval_rows=n_eval_rows)
    clock = _StepClock(trainer)
    trainer.add_callback(clock)
    trainer.train()
    began_s = time.perf_counter()
    trainer.score()
    eval_s = time.perf_counter() - began_s
    return SmokeResult(
        device=device_name(trainer.args.device),
        method=settings.method,
        batch_size=settings.batch_size,
        device_batch_size=schedule.device_batch_size,
        max_length=spec.data.max_length,
        n_trainable=trainer.trainable.n_trainable,
        n_parameters=trainer.trainable.n_total,
        n_train_rows=len(shared.train),
        n_validation_rows=len(shared.validation),
        train_s_per_example=clock.step_s / settings.batch_size,
        eval_s_per_example=(eval_s - trainer.generation_s) / n_eval_rows,
        generation_s=trainer.generation_s,
        may_be_stored=why_uncached(spec, settings) is None,
        peak_memory_gib=_peak_memory_gib(trainer.args.device),
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
