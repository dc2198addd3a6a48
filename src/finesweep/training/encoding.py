"""How rows become token ids, and token ids a batch.

In: texts and targets, a tokenizer. Out: token ids with their labels, padded tensors. It must not know files or trials.
Chats and packed text have modules of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

IGNORED = -100  # the label that torch's cross entropy leaves out

Labels = int | float | list[float] | list[int]  # a class, a number, 0.0 or 1.0 for each class, a token at each place
Tokenizer = Any  # transformers.PreTrainedTokenizerBase, which is untyped here

_CHUNK = 1000  # rows tokenised at a time


@dataclass(frozen=True, slots=True)
class Encoded:
    table: pa.Table  # input_ids, labels, for pairs of texts token_type_ids: what a model is given, row by row
    n_cut: int = 0  # rows that are longer than max_length
    n_left_out: int = 0  # rows of which nothing that bears loss comes before max_length


def encode_labelled(
    tokenizer: Tokenizer,
    texts: Sequence[str],
    pairs: Sequence[str] | None,
    targets: Sequence[int | float | list[float]],
    *,
    max_length: int,
) -> Encoded:
    """Tokenise texts, or pairs of them, cut at `max_length`; of a pair the longer one is cut."""
    tables, n_cut = [], 0
    for chunk in chunks(len(texts)):
        second = None if pairs is None else list(pairs[chunk])
        types = None if pairs is not None else False  # None: as the model wants it; of one text they are all 0
        batch = tokenizer(
            list(texts[chunk]),
            second,
            truncation=True,
            max_length=max_length,
            return_attention_mask=False,
            return_token_type_ids=types,
        )
        n_cut += sum(_is_cut(batch, row, len(ids), max_length) for row, ids in enumerate(batch["input_ids"]))
        columns = {name: token_lists(batch[name]) for name in ("input_ids", "token_type_ids") if name in batch}
        tables.append(pa.table({**columns, "labels": pa.array(targets[chunk])}))
    return Encoded(pa.concat_tables(tables), n_cut)


def encode_completions(
    tokenizer: Tokenizer, prompts: Sequence[str], completions: Sequence[str], *, max_length: int
) -> Encoded:
    """Join prompt, completion and end-of-text token; the prompt bears no loss."""
    end = [tokenizer.eos_token_id]
    tables, n_cut, n_left_out = [], 0, 0
    for chunk in chunks(len(prompts)):
        prompt_ids = encode_prompts(tokenizer, prompts[chunk])
        answers = tokenizer(list(completions[chunk]), add_special_tokens=False, return_attention_mask=False)
        rows = []
        for before, answer in zip(prompt_ids, answers["input_ids"], strict=True):
            rows.append(([*before, *answer, *end], [IGNORED] * len(before) + answer + end))
        table, n_long, n_empty = cut_rows(rows, max_length=max_length)
        tables.append(table)
        n_cut, n_left_out = n_cut + n_long, n_left_out + n_empty
    return Encoded(pa.concat_tables(tables), n_cut, n_left_out)


def encode_prompts(tokenizer: Tokenizer, prompts: Sequence[str]) -> list[list[int]]:
    """Tokenise prompts to be gone on from: some tokenizers end every text by themselves."""
    encoded = tokenizer(list(prompts), return_attention_mask=False)["input_ids"]
    return [ids[:-1] if ids[-1:] == [tokenizer.eos_token_id] else ids for ids in encoded]


def chunks(n_rows: int) -> Iterable[slice]:
    return (slice(start, start + _CHUNK) for start in range(0, n_rows, _CHUNK))


def cut_rows(rows: Iterable[tuple[list[int], list[int]]], *, max_length: int) -> tuple[pa.Table, int, int]:
    """Cut ids and labels at `max_length`; count the rows cut, and those left out because no loss-bearing token is left.

    The first token of a row bears none: nothing stands before it.
    """
    given = list(rows)
    kept = [(ids, labels) for ids, labels in given if any(label != IGNORED for label in labels[1:max_length])]
    columns = {
        "input_ids": token_lists([ids[:max_length] for ids, _ in kept]),
        "labels": token_lists([labels[:max_length] for _, labels in kept]),
    }
    return pa.table(columns), sum(len(ids) > max_length for ids, _ in kept), len(given) - len(kept)


def token_lists(rows: Sequence[Sequence[int]]) -> pa.ListArray:
    """Lay rows of small integers end to end: Arrow's own conversion of nested lists takes several times as long."""
    offsets = np.cumsum([0, *map(len, rows)], dtype=np.int32)
    values = np.fromiter(chain.from_iterable(rows), dtype=np.int32, count=int(offsets[-1]))
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))


def row_lengths(rows: datasets.Dataset) -> list[int]:
    """Return the tokens in each row, without reading them all."""
    lengths: list[int] = pc.list_value_length(rows.with_format("arrow")["input_ids"][:]).to_pylist()
    return lengths


def collator(pad_id: int) -> Callable[[Sequence[Mapping[str, Any]]], dict[str, torch.Tensor]]:
    """Return the function that pads rows on the right to the longest of them; the mask goes by length, not by id."""

    def collate(rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        longest = max(len(row["input_ids"]) for row in rows)
        input_ids = torch.full((len(rows), longest), pad_id)  # (batch, sequence)
        attention_mask = torch.zeros_like(input_ids)
        token_type_ids = torch.zeros_like(input_ids)
        of_pairs = "token_type_ids" in rows[0]
        per_token = is_per_token(rows[0]["labels"])
        labels = torch.full_like(input_ids, IGNORED) if per_token else torch.tensor([row["labels"] for row in rows])
        for i, row in enumerate(rows):
            n = len(row["input_ids"])
            input_ids[i, :n] = torch.tensor(row["input_ids"])
            attention_mask[i, :n] = 1
            if of_pairs:
                token_type_ids[i, :n] = torch.tensor(row["token_type_ids"])
            if per_token:
                labels[i, :n] = torch.tensor(row["labels"])
        batch = {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}
        return {**batch, "token_type_ids": token_type_ids} if of_pairs else batch

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
