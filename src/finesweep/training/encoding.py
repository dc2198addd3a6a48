"""How rows become token ids, and token ids a batch.

In: texts and targets, a tokenizer. Out: token ids with their labels, padded tensors. It must not know files or trials.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

IGNORED = -100  # the label that torch's cross entropy leaves out

Labels = int | float | list[float] | list[int]  # a class, a number, 0.0 or 1.0 for each class, a token at each place
Tokenizer = Any  # transformers.PreTrainedTokenizerBase, which is untyped here


@dataclass(frozen=True, slots=True)
class EncodedRow:
    input_ids: list[int]
    labels: Labels
    is_truncated: bool


def encode_labelled(
    tokenizer: Tokenizer, texts: Sequence[str], targets: Sequence[int], *, max_length: int
) -> list[EncodedRow | None]:
    """Tokenise texts, cut at `max_length`; a target is the number of its class."""
    batch = tokenizer(list(texts), truncation=True, max_length=max_length)
    return [
        EncodedRow(input_ids=ids, labels=target, is_truncated=_is_cut(batch, row, len(ids), max_length))
        for row, (ids, target) in enumerate(zip(batch["input_ids"], targets, strict=True))
    ]


def encode_completion(
    tokenizer: Tokenizer, prompts: Sequence[str], completions: Sequence[str], *, max_length: int
) -> list[EncodedRow | None]:
    """Join prompt, completion and end-of-text token; the prompt bears no loss.

    A row is None when its prompt alone fills `max_length` and nothing is left to learn from.
    """
    prompt_ids = tokenizer(list(prompts))["input_ids"]
    completion_ids = tokenizer(list(completions), add_special_tokens=False)["input_ids"]
    rows: list[EncodedRow | None] = []
    for before, after in zip(prompt_ids, completion_ids, strict=True):
        ids = [*before, *after, tokenizer.eos_token_id]
        labels = [IGNORED] * len(before) + ids[len(before) :]
        if len(before) >= max_length:
            rows.append(None)
        else:
            rows.append(EncodedRow(ids[:max_length], labels[:max_length], is_truncated=len(ids) > max_length))
    return rows


def collator(pad_id: int) -> Callable[[Sequence[Mapping[str, Any]]], dict[str, torch.Tensor]]:
    """Return the function that pads rows on the right to the longest of them; the mask goes by length, not by id."""

    def collate(rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        longest = max(len(row["input_ids"]) for row in rows)
        input_ids = torch.full((len(rows), longest), pad_id)  # (batch, sequence)
        attention_mask = torch.zeros_like(input_ids)
        per_token = is_per_token(rows[0]["labels"])
        labels = torch.full_like(input_ids, IGNORED) if per_token else torch.tensor([row["labels"] for row in rows])
        for i, row in enumerate(rows):
            n = len(row["input_ids"])
            input_ids[i, :n] = torch.tensor(row["input_ids"])
            attention_mask[i, :n] = 1
            if per_token:
                labels[i, :n] = torch.tensor(row["labels"])
        return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}

    return collate


def is_per_token(labels: Labels) -> bool:
    return isinstance(labels, list) and isinstance(labels[0], int)


def pad_id_of(tokenizer: Tokenizer) -> int:
    return int(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id or 0)


def _is_cut(batch: Any, row: int, length: int, max_length: int) -> bool:
    if length < max_length:
        return False
    encodings = batch.encodings  # only of tokenizers written in Rust; others cannot tell
    return bool(encodings[row].overflowing) if encodings else True
