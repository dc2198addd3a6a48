"""What to do when a device's memory runs out: recognise it, give memory back, halve the batch, remember what fitted.

In: an exception, settings, the sweep's artifact folder. Out: a smaller batch. It must not know how trials are trained.
"""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate.state import AcceleratorState, GradientState
from filelock import FileLock

from finesweep.durable import write_whole
from finesweep.errors import ResourcesError
from finesweep.layout import fitting_path
from finesweep.spec.settings import has_effect, largest_divisor
from finesweep.spec.sweep import TrainingSpec

# How allocators say it that have no exception of their own: torch's for the CPU, cuBLAS's.
_SAID = ("out of memory", "can't allocate memory", "not enough memory", "ALLOC_FAILED")

# The settings that decide how many rows a device holds, beside what is the same for all trials of a sweep.
_SHAPE = (
    *("method", "unfrozen_layers", "lora_rank", "lora_target_modules", "optim", "bf16", "fp16"),
    *("activation_checkpointing", "gradient_checkpointing", "torch_compile", "use_liger_kernel"),
)


_OF_CUDA_BYTES = 2**29  # what a process takes of a GPU beside torch's memory: context, kernels, workspaces


def keep_to_share(share: float) -> None:
    """Have this process run out of memory at a share of its GPU: what is beyond is its neighbours'."""
    if share < 1 and torch.cuda.is_available():
        total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
        torch.cuda.set_per_process_memory_fraction(max(share / 2, share - _OF_CUDA_BYTES / total))


def is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _SAID)


def give_back_memory() -> None:
    """Free what nobody holds any more: models lie in reference cycles."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def forget_trial() -> None:
    """Give back what a trial held: accelerate keeps process-wide state, torch.compile a few graphs of each function.

    Kept, they would fill up with those of other methods and shapes, and later trials would run uncompiled.
    """
    GradientState._reset_state()
    AcceleratorState._reset_state(reset_partial_state=True)
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()
    give_back_memory()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def with_smaller_batch(settings: TrainingSpec, *, max_length: int) -> TrainingSpec:
    """Halve the device batch, or take the next divisor of `batch_size` below. Raises ResourcesError below one row."""
    n_rows = min(settings.batch_size, settings.device_batch_size or settings.batch_size)
    if n_rows == 1:
        raise ResourcesError(
            f"out of memory: a single row of up to {max_length} tokens does not fit the device with method "
            f"{settings.method}. Lower data.max_length, set training.activation_checkpointing to true, choose a method "
            "that trains less, or take a device with more memory, or a larger share of it (resources.gpus_per_trial)."
        )
    return settings.model_copy(update={"device_batch_size": largest_divisor(settings.batch_size, most=n_rows // 2)})


@dataclass(frozen=True, slots=True)
class Fitting:
    """How many rows at once have fitted the device, by shape of trial: shared by the workers of a sweep."""

    path: Path

    @classmethod
    def of_sweep(cls, artifact_dir: Path) -> Fitting:
        return cls(fitting_path(artifact_dir))

    def settle(self, settings: TrainingSpec, *, device: str) -> TrainingSpec:
        """Lower the device batch of a trial to what has fitted others of its shape."""
        known = self._read().get(_shape(settings, device))
        if known is None:
            return settings
        most = min(known, settings.device_batch_size or known)
        return settings.model_copy(update={"device_batch_size": largest_divisor(settings.batch_size, most=most)})

    def note(self, settings: TrainingSpec, *, device: str) -> None:
        """Remember that the trial's device batch is the most to try from now on."""
        assert settings.device_batch_size is not None, "it was lowered"
        self._note(_shape(settings, device), settings.device_batch_size)

    def settle_evaluation(self, settings: TrainingSpec, *, device: str, most: int) -> int:
        """Lower the rows that are evaluated at once to what has fitted others of the trial's shape."""
        return min(most, self._read().get(_shape(settings, device, evaluating=True), most))

    def note_evaluation(self, settings: TrainingSpec, *, device: str, n_rows: int) -> None:
        """Remember that more rows than these did not fit in an evaluation."""
        self._note(_shape(settings, device, evaluating=True), n_rows)

    def _note(self, shape: str, n_rows: int) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self.path.with_suffix(".lock")):
            known = self._read()
            known[shape] = min(n_rows, known.get(shape, n_rows))
            write_whole(self.path, json.dumps(known, indent=1).encode(), synced=False)

    def _read(self) -> dict[str, int]:
        try:
            known: Mapping[str, int] = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        return dict(known)


def _shape(settings: TrainingSpec, device: str, *, evaluating: bool = False) -> str:
    values = settings.model_dump()
    decisive = {name: values.get(name) for name in _SHAPE if has_effect(name, method=settings.method)}
    return json.dumps({"device": device, **decisive, **({"evaluating": True} if evaluating else {})}, sort_keys=True)
