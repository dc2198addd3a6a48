"""The arithmetic of a trial: optimizer steps, examples seen, warm-up, and where its reports fall on the sweep's grid.

In: settings, the number of training rows, the grid. Out: numbers. Pure: it must not know torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from finesweep.errors import FinesweepError
from finesweep.events import Grid
from finesweep.spec.sweep import TrainingSpec


@dataclass(frozen=True, slots=True)
class Schedule:
    """A trial's own full length. Pruning never shortens it, a resumed trial has the same."""

    examples_per_epoch: int
    batch_size: int  # effective: examples per optimizer step
    device_batch_size: int  # divides batch_size: spec.settings sees to that
    accumulation: int
    optimizer_steps: int
    warmup_asked: int  # of a ratio: what it comes to
    warmup_steps: int

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.examples_per_epoch / self.batch_size)

    def examples_at(self, optimizer_step: int) -> int:
        """Count the examples seen; the last batch of an epoch may be a partial one."""
        epochs, steps = divmod(optimizer_step, self.steps_per_epoch)
        return epochs * self.examples_per_epoch + min(steps * self.batch_size, self.examples_per_epoch)


def plan(settings: TrainingSpec, *, n_rows: int, drop_last: bool = False) -> Schedule:
    device_batch_size = min(settings.batch_size, settings.device_batch_size or settings.batch_size)
    examples_per_epoch = n_rows - n_rows % settings.batch_size if drop_last else n_rows
    if examples_per_epoch == 0:
        raise FinesweepError(
            f"training.dataloader_drop_last: {n_rows} training rows do not fill one batch of {settings.batch_size}. "
            "Set it to false or lower batch_size."
        )
    optimizer_steps = math.ceil(settings.epochs * math.ceil(examples_per_epoch / settings.batch_size))
    warmup = settings.warmup_steps
    if settings.warmup_ratio is not None:
        warmup = math.ceil(settings.warmup_ratio * optimizer_steps)
    return Schedule(
        examples_per_epoch=examples_per_epoch,
        batch_size=settings.batch_size,
        device_batch_size=device_batch_size,
        accumulation=settings.batch_size // device_batch_size,
        optimizer_steps=optimizer_steps,
        warmup_asked=warmup,
        warmup_steps=min(warmup, optimizer_steps),
    )


def steps_reached(grid: Grid, schedule: Schedule, optimizer_step: int) -> tuple[int, ...]:
    """Return the nominal steps of the grid that `optimizer_step` is the first to reach, short of the trial's end."""
    before, now = (_position(grid, schedule, step) for step in (optimizer_step - 1, optimizer_step))
    end = _position(grid, schedule, schedule.optimizer_steps)
    first, last = math.floor(before / grid.every) + 1, math.floor(now / grid.every)
    return tuple(nominal for k in range(first, last + 1) if (nominal := k * grid.every) < end)


def end_step(grid: Grid, schedule: Schedule) -> int:
    """Return the step of a trial's last report: it may lie off the grid."""
    return math.ceil(_position(grid, schedule, schedule.optimizer_steps))


def off_grid_step(grid: Grid, schedule: Schedule, optimizer_step: int) -> int:
    """Return a step for a report that cannot wait for the grid: after every step reached before `optimizer_step`."""
    return math.ceil(_position(grid, schedule, optimizer_step))


def _position(grid: Grid, schedule: Schedule, optimizer_step: int) -> float:
    if grid.unit == "progress":
        return 100 * optimizer_step / schedule.optimizer_steps
    return schedule.examples_at(optimizer_step)
