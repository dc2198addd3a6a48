"""Rows of stored features, and how they become a batch.

In: a split of the data with its vectors. Out: what a Trainer iterates over. It must not know models.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import datasets
import torch
from torch.utils.data import Dataset

from finesweep.training.encoding import collator


class StoredSplit(Dataset):  # type: ignore[misc]  # torch is not followed
    """The rows of a split, each with what its frozen part computes. Mapped into memory, not read."""

    def __init__(self, rows: datasets.Dataset, values: torch.Tensor, firsts: Sequence[int] | None) -> None:
        """`values` are (rows, hidden), or, with the place of each row's first one, (tokens, hidden)."""
        self.rows = rows  # tokens and labels
        self.labels: list[Any] = rows["labels"][:] if firsts is None else []  # of sequences they come with the tokens
        self._values, self._firsts = values, firsts

    @property
    def vectors(self) -> torch.Tensor | None:
        """All rows' vectors: (rows, hidden); None where sequences of states are stored."""
        return self._values if self._firsts is None else None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> dict[str, Any]:
        if self._firsts is None:
            return {"labels": self.labels[row], "features": self._values[row]}  # (hidden)
        tokens = self.rows[row]
        first = self._firsts[row]
        return {**tokens, "features": self._values[first : first + len(tokens["input_ids"])]}  # (tokens, hidden)


def feature_collator(pad_id: int) -> Callable[[Sequence[Mapping[str, Any]]], dict[str, torch.Tensor]]:
    """Return the function that stacks vectors, or pads sequences as their tokens are."""
    of_tokens = collator(pad_id)

    def collate(rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        features = [row["features"] for row in rows]
        if features[0].ndim == 1:
            labels = torch.tensor([row["labels"] for row in rows])
            return {"features": torch.stack(features), "labels": labels}
        return {**of_tokens(rows), "features": torch.nn.utils.rnn.pad_sequence(features, batch_first=True)}

    return collate
