"""What a sweep may cost without pruning, estimated from one measured step."""

from __future__ import annotations

from typing import Protocol

from finesweep.errors import ResourcesError
from finesweep.scheduling.slots import Slots
from finesweep.spec.grid import largest, plan_grid
from finesweep.spec.sweep import SweepSpec

_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


class Measured(Protocol):
    """What a trial run of one step tells; training.smoke.SmokeResult."""

    @property
    def n_train_rows(self) -> int: ...
    @property
    def n_validation_rows(self) -> int: ...
    @property
    def train_s_per_example(self) -> float: ...
    @property
    def eval_s_per_example(self) -> float: ...
    @property
    def generation_s(self) -> float: ...
    @property
    def may_be_stored(self) -> bool: ...
    @property
    def peak_memory_gib(self) -> float: ...
    @property
    def n_trainable(self) -> int: ...


def forecast(spec: SweepSpec, measured: Measured, slots: Slots | None) -> list[str]:
    """Say in lines what trial and sweep may take without pruning: memory, time, and device-hours.

    Where frozen layers are computed once, trials take less than is said: how much less, the first of them shows.

    Rows were filled to `max_length` when it was measured, which makes it high; small batches and slots that share a
    device's power make it low. `slots` is None on a cluster. Raises ResourcesError where the quota of disk does not
    hold the weights of a single trial.
    """
    grid = plan_grid(spec, n_train_rows=measured.n_train_rows)
    examples = largest(spec, "epochs") * measured.n_train_rows
    n_reports = 100 / grid.every if grid.unit == "progress" else examples / grid.every
    report_s = measured.n_validation_rows * measured.eval_s_per_example + measured.generation_s
    trial_s = examples * measured.train_s_per_example + (n_reports + 1) * report_s
    lines = [f"memory: {measured.peak_memory_gib:.2f} GiB", _disk(spec, measured), f"longest trial: {_time(trial_s)}"]
    if measured.may_be_stored:
        n_rows = measured.n_train_rows + measured.n_validation_rows
        pass_s = n_rows * measured.eval_s_per_example
        lines.append(f"frozen layers: computed once, in about {_time(pass_s)}; trials then take less than is said here")
    total_s = spec.budget.trials * trial_s
    if slots is None:
        return [*lines, f"whole sweep: about {total_s / 3600:.2f} slot-hours without pruning"]
    lines.append(f"whole sweep: about {_time(total_s / slots.n_slots)} on {slots.n_slots} slots, without pruning")
    if slots.devices:
        lines.append(f"GPU-hours: about {total_s * slots.gpus_per_trial / 3600:.2f}")
    return lines


def _disk(spec: SweepSpec, measured: Measured) -> str:
    """Say what a trial takes there: AdamW's two moments, as most optimizers', are as large as what is trained."""
    dtype = "float32" if spec.model is None else spec.model.dtype
    weights_gib = measured.n_trainable * _BYTES[dtype] / 2**30
    quota = spec.artifacts.quota_gib
    if quota is not None and weights_gib > quota and spec.artifacts.keep != "none":
        raise ResourcesError(
            f"artifacts.quota_gib: {quota:g} GiB do not hold the weights of one trial ({weights_gib:.3g} GiB). Raise "
            "it, or keep: none."
        )
    return (
        f"disk: about {weights_gib:.2g} GiB for kept weights, {3 * weights_gib:.2g} GiB for each of a trial's two "
        "checkpoints"
    )


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
