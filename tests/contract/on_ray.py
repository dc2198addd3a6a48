"""The Ray backend on a Ray that a fixture has started."""

from __future__ import annotations

from pathlib import Path

from finesweep.scheduling.ray_tune import RayBackend
from finesweep.scheduling.slots import Slots
from finesweep.scheduling.stacking import ALONE, Stacking
from finesweep.spec.sweep import Resources
from finesweep.trainer import TrainerFactory


def backend_on_ray(
    trainer_factory: TrainerFactory,
    *,
    log_dir: Path,
    n_slots: int,
    gpus_per_trial: float = 0.0,
    stacking: Stacking = ALONE,
    stall_minutes: float | None = None,
) -> RayBackend:
    """Make a backend of one CPU a trial."""
    slots = Slots(devices=(), gpus_per_trial=gpus_per_trial, cpus_per_trial=1, n_slots=n_slots)
    return RayBackend(
        trainer_factory, Resources(), slots, log_dir=log_dir, stacking=stacking, stall_minutes=stall_minutes
    )
