"""The one pass over the rows: what crosses the boundary is computed and handed to a writer.

In: a whole model, tokenised rows. Out: writes. It must not know where to.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import datasets
import torch

from finesweep.training.encoding import collator, row_lengths
from finesweep.training.features.boundary import Batch, Boundary, read_output, run_to
from finesweep.training.features.probing import Autocast
from finesweep.training.features.store import Writer
from finesweep.training.memory import give_back_memory, is_out_of_memory
from finesweep.training.models import Model

_TOKENS_AT_ONCE = {"cpu": 4096, "cuda": 65536}

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Split:
    """Rows with the places of their vectors in a store."""

    rows: datasets.Dataset
    lengths: Sequence[int]  # tokens
    firsts: Sequence[int]  # place of a row's first vector

    @property
    def n_vectors(self) -> int:
        return len(self.firsts) if self.is_vectors else sum(self.lengths)

    is_vectors: bool = True


def split_of(rows: datasets.Dataset, boundary: Boundary) -> Split:
    lengths = row_lengths(rows)
    if boundary.is_vector:
        return Split(rows, lengths, range(len(lengths)))
    return Split(rows, lengths, [0, *accumulate(lengths[:-1])], is_vectors=False)


def token_batch(rows: Sequence[Mapping[str, Any]], *, pad_id: int, device: str) -> Batch:
    """Pad rows as a trial does, without their labels."""
    batch = collator(pad_id)(rows)
    return {name: tensor.to(device) for name, tensor in batch.items() if name != "labels"}


def pass_over(
    model: Model, boundary: Boundary, splits: Mapping[str, Split], writer: Writer, *, pad_id: int, autocast: Autocast
) -> None:
    """Compute all rows, longest first: should memory run out, it does so at once, and fewer are taken together."""
    device = model.device.type
    tokens_at_once = _TOKENS_AT_ONCE[device]
    model.eval()
    for name, split in splits.items():
        todo = sorted(range(len(split.lengths)), key=lambda row: -split.lengths[row])
        while todo:
            n_rows = max(1, tokens_at_once // split.lengths[todo[0]])
            rows = todo[:n_rows]
            try:
                with torch.no_grad(), autocast():
                    batch = token_batch([split.rows[row] for row in rows], pad_id=pad_id, device=device)
                    output = run_to(model, boundary.path, batch)
                    states = read_output(output, boundary.reading, batch["attention_mask"])
            except RuntimeError as error:
                if not is_out_of_memory(error) or n_rows == 1:
                    raise
            else:
                assert states is not None, "it was, of the probe's rows"
                for row, vectors in zip(rows, _by_row(states, batch), strict=True):
                    writer.put(name, split.firsts[row], vectors)
                todo = todo[n_rows:]
                continue
            give_back_memory()  # not above: the exception holds what filled the memory
            tokens_at_once //= 2


def _by_row(states: torch.Tensor, batch: Batch) -> Iterator[torch.Tensor]:
    """Give the vectors of each row: (1, hidden), or (tokens, hidden) without padding."""
    states = states.cpu()
    if states.ndim == 2:
        yield from states.unsqueeze(1)
    else:
        yield from (row[:n] for row, n in zip(states, batch["attention_mask"].sum(1).tolist(), strict=True))
