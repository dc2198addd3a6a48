"""Which rows an epoch sees and in which order: fixed by seed and epoch alone, so that a resumed trial sees the same.

In: rows, settings of the order. Out: a sampler, or None where transformers' own will do; an epoch's rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import islice
from typing import Any

import datasets
import torch
import transformers
from accelerate.data_loader import SeedableRandomSampler
from torch.utils.data import Sampler, SequentialSampler
from transformers.trainer_pt_utils import LengthGroupedSampler

from finesweep.training.encoding import row_lengths


def train_sampler(
    rows: datasets.Dataset, arguments: transformers.TrainingArguments, *, drop_last: bool
) -> Sampler | None:
    strategy = arguments.train_sampling_strategy
    if strategy != "group_by_length" and not drop_last:
        return None
    batch_size = arguments.train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size
    return make_sampler(rows, strategy, batch_size=batch_size, seed=arguments.seed, drop_last=drop_last)


def make_sampler(rows: datasets.Dataset, strategy: str, *, batch_size: int, seed: int, drop_last: bool) -> Sampler:
    """Make the sampler whose `set_epoch` chooses the order; with `drop_last`, of the rows that fill whole batches."""
    if strategy == "group_by_length":
        sampler: Any = _LengthGroups(batch_size, row_lengths(rows), seed=seed)
    elif strategy == "sequential":
        sampler = SequentialSampler(rows)
    else:  # what accelerate makes of transformers' own
        sampler = SeedableRandomSampler(rows, data_seed=seed)
    return _First(len(rows) - len(rows) % batch_size, sampler) if drop_last else sampler


def epoch_order(sampler: Sampler) -> Callable[[int], torch.Tensor]:
    """Return the function from an epoch to its rows: (rows,). The latest epochs asked for are remembered."""

    @lru_cache(maxsize=2)
    def order(epoch: int) -> torch.Tensor:
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(epoch)
        return torch.tensor(list(sampler))

    return order


class _LengthGroups(LengthGroupedSampler):  # type: ignore[misc]  # transformers is untyped here
    """Batches of rows of like length. transformers would draw their order from torch's global state."""

    def __init__(self, batch_size: int, lengths: list[int], *, seed: int) -> None:
        super().__init__(batch_size, lengths=lengths, generator=torch.Generator())
        self._seed, self._epoch = seed, 0

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    def __iter__(self) -> Iterator[int]:
        self.generator.manual_seed(self._seed + self._epoch)
        indices: Iterator[int] = super().__iter__()
        return indices


class _First(Sampler):  # type: ignore[misc]  # torch is not followed
    """The first rows of an epoch, which fill whole batches: the last one is dropped however it is split on a device."""

    def __init__(self, n_rows: int, order: Any) -> None:
        self._n_rows, self._order = n_rows, order

    def set_epoch(self, epoch: int) -> None:
        if hasattr(self._order, "set_epoch"):
            self._order.set_epoch(epoch)

    def __len__(self) -> int:
        return self._n_rows

    def __iter__(self) -> Iterator[int]:
        return islice(self._order, self._n_rows)
