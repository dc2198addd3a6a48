"""What is told of an attempt beside its reports: effective settings, counts, device.

In: settings and what they came to. Out: JSON values. It must not know how trials are trained.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from finesweep.spec.sweep import ModelSpec, TrainingSpec
from finesweep.training.features.cache import Features, NotCached
from finesweep.training.methods import Trainable
from finesweep.training.schedule import Schedule


def facts_at_start(
    settings: TrainingSpec,
    schedule: Schedule,
    trainable: Trainable,
    *,
    device: torch.device,
    last_step: int,
    resumed_from: str | None,
) -> Mapping[str, Any]:
    return {
        "method": settings.method,
        **_facts_of_cut(settings, trainable),
        "n_trainable": trainable.n_trainable,
        "n_parameters": trainable.n_total,
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "device_batch_size": schedule.device_batch_size,
        "accumulation": schedule.accumulation,
        "examples_per_epoch": schedule.examples_per_epoch,
        "optimizer_steps": schedule.optimizer_steps,
        "last_step": last_step,
        "warmup_steps_asked": schedule.warmup_asked,
        "warmup_steps": schedule.warmup_steps,
        "resumed_from": resumed_from,
        "pid": os.getpid(),
    }


def _facts_of_cut(settings: TrainingSpec, trainable: Trainable) -> Mapping[str, Any]:
    """Name what moves where some of the weights do: an export says so to who cannot look at the model."""
    if settings.method != "feature-extraction":
        return {}
    return {"unfrozen_modules": modules_of(trainable.names), "frozen_modules": list(trainable.frozen_names)}


def modules_of(names: Iterable[str]) -> list[str]:
    """Name the modules that parameters are of, a numbered one in place of all that is in it: `layers.3`, `norm`."""
    return sorted({match[0] if (match := _NUMBERED.match(name)) else name.rpartition(".")[0] for name in names})


_NUMBERED = re.compile(r"(?:[^.]+\.)*?\d+(?=\.)")


def device_name(device: torch.device) -> str:
    return str(torch.cuda.get_device_name(device)) if device.type == "cuda" else device.type


def facts_of_features(found: Features | NotCached | None) -> Mapping[str, Any]:
    """Say whether a trial was spared its frozen part; None where it has none."""
    match found:
        case None:
            return {}
        case NotCached(reason):
            return {"features": f"not cached: {reason}"}
    return {"features": "cached", **({"feature_seconds": found.seconds} if found.seconds else {})}


def dtype_of(model: ModelSpec, *, bf16: bool, fp16: bool) -> str:
    """Say how weights are held where that is not float32, and what is computed in where that is another precision."""
    computed_in = "bfloat16 autocast" if bf16 else "float16 autocast" if fp16 else None
    held_as = model.quantize or (model.dtype if model.dtype != "float32" or computed_in is None else None)
    return ", ".join(part for part in (held_as, computed_in) if part is not None)
