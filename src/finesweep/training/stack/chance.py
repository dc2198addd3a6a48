"""What chance decides for a lane: which rows a step sees, and what its dropouts drop.

The same numbers, drawn in the same order, as transformers' Trainer draws on a CPU for a trial by itself. In: a seed, a
schedule, the order of an epoch's rows. Out: rows and masks, step by step. It must not know weights.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch

from finesweep.training.schedule import Schedule
from finesweep.training.stack.head import Dropout, Layer

Order = Callable[[int], torch.Tensor]  # epoch -> rows in the order in which it sees them


class Chance:
    def __init__(self, schedule: Schedule, order: Order, *, seed: int, device: torch.device) -> None:
        self._schedule, self._order = schedule, order
        self._generator = torch.Generator(device).manual_seed(seed)
        self._epoch = -1
        self._rows = torch.empty(0, dtype=torch.long)

    @property
    def state(self) -> torch.Tensor:
        """What a checkpoint keeps: bytes."""
        return self._generator.get_state()

    @state.setter
    def state(self, state: torch.Tensor) -> None:
        self._generator.set_state(state)

    def fork(self) -> Chance:
        """Return one that goes on from here by itself."""
        other = copy.copy(self)
        other._generator = torch.Generator(self._generator.device)
        other.state = self.state
        return other

    def rows(self, optimizer_step: int) -> torch.Tensor:
        """Return the rows that the step after `optimizer_step` sees: (batch,), fewer at the end of an epoch."""
        epoch, step = divmod(optimizer_step, self._schedule.steps_per_epoch)
        if step == 0:  # a data loader seeds its workers as each epoch begins
            torch.empty((), dtype=torch.int64, device=self._generator.device).random_(generator=self._generator)
        if epoch != self._epoch:
            self._epoch, self._rows = epoch, self._order(epoch)
        begin = step * self._schedule.batch_size
        return self._rows[begin : begin + self._schedule.batch_size]

    def masks(self, layers: Sequence[Layer], n_rows: int, *, dtype: torch.dtype) -> list[torch.Tensor]:
        """Draw for each dropout what it scales its vectors by: (rows, width), 0 where one is dropped.

        Each of the micro-batches that a trial by itself would split the rows into runs through the whole head.
        """
        dropouts = [layer for layer in layers if isinstance(layer, Dropout)]
        if not dropouts:
            return []
        sizes = torch.arange(n_rows).split(self._schedule.device_batch_size)
        drawn = [[self._mask(len(size), dropout, dtype) for dropout in dropouts] for size in sizes]
        return [torch.cat(parts) for parts in zip(*drawn, strict=True)]

    def _mask(self, n_rows: int, dropout: Dropout, dtype: torch.dtype) -> torch.Tensor:
        mask = torch.empty(n_rows, dropout.width, dtype=dtype, device=self._generator.device)
        return mask.bernoulli_(1 - dropout.p, generator=self._generator).div_(1 - dropout.p)
