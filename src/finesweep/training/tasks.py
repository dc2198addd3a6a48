"""The two tasks: which columns they read, how rows become tokens and batches, and how predictions are scored.

In: rows of text, logits. Out: token ids, tensors, named metrics. It must not know trials, reports or files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import transformers

from finesweep.spec.sweep import METRICS, DataSpec, Task
from finesweep.training.metrics import causal_lm_metrics, classification_metrics

IGNORED = -100  # the label that torch's cross entropy leaves out

Tokenizer = Any  # transformers.PreTrainedTokenizerBase, which is untyped here


@dataclass(frozen=True, slots=True)
class EncodedRow:
    input_ids: list[int]
    labels: int | list[int]
    is_truncated: bool


@dataclass(frozen=True, slots=True)
class TaskKind:
    metric_names: tuple[str, ...]
    columns: Callable[[DataSpec], tuple[str, str]]  # input, target
    model_class: Any
    encode: Callable[..., list[EncodedRow | None]]
    loss_sum: Callable[..., torch.Tensor]
    row_statistics: Callable[[Any, torch.Tensor], torch.Tensor]
    compute_metrics: Callable[[Any], Mapping[str, float]]
    eval_rows: int  # per evaluation batch, at least; the training batch where that is larger


def task_kind(task: Task) -> TaskKind:
    return _KINDS[task]


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
        per_token = isinstance(rows[0]["labels"], list)
        labels = torch.full_like(input_ids, IGNORED) if per_token else torch.tensor([row["labels"] for row in rows])
        for i, row in enumerate(rows):
            n = len(row["input_ids"])
            input_ids[i, :n] = torch.tensor(row["input_ids"])
            attention_mask[i, :n] = 1
            if per_token:
                labels[i, :n] = torch.tensor(row["labels"])
        return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}

    return collate


def pad_id_of(tokenizer: Tokenizer) -> int:
    return int(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id or 0)


def class_loss_sum(logits: torch.Tensor, labels: torch.Tensor, *, smoothing: float) -> torch.Tensor:
    """Sum the cross entropy of logits: (batch, classes) over the batch."""
    return torch.nn.functional.cross_entropy(logits.float(), labels, reduction="sum", label_smoothing=smoothing)


def token_loss_sum(logits: torch.Tensor, labels: torch.Tensor, *, smoothing: float) -> torch.Tensor:
    """Sum the cross entropy of logits: (batch, sequence, vocab) over the tokens that bear loss."""
    targets = torch.nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORED)  # the token at i is predicted at i - 1
    return torch.nn.functional.cross_entropy(
        logits.flatten(0, 1).float(),
        targets.flatten(),
        ignore_index=IGNORED,
        reduction="sum",
        label_smoothing=smoothing,
    )


def class_statistics(logits: Any, labels: torch.Tensor) -> torch.Tensor:
    """Reduce logits: (batch, classes) to (batch, [negative log likelihood, predicted class])."""
    logits = _first(logits).float()
    nll = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    return torch.stack([nll, logits.argmax(-1).float()], dim=-1)


def token_statistics(logits: Any, labels: torch.Tensor) -> torch.Tensor:
    """Reduce logits: (batch, sequence, vocab) to (batch, [summed nll, tokens, tokens predicted right]).

    Row by row, so that a second copy of the logits in full precision is never held for the whole batch.
    """
    statistics = []
    for row_logits, row_labels in zip(_first(logits), labels, strict=True):
        is_target = row_labels[1:] != IGNORED  # the token at i is predicted from what stands before it
        targets, scores = row_labels[1:][is_target], row_logits[:-1][is_target].float()
        nll = torch.nn.functional.cross_entropy(scores, targets, reduction="sum")
        right = (scores.argmax(-1) == targets).sum()
        statistics.append(torch.stack([nll, is_target.sum().to(nll), right.to(nll)]))
    return torch.stack(statistics)


def _is_cut(batch: Any, row: int, length: int, max_length: int) -> bool:
    if length < max_length:
        return False
    encodings = batch.encodings  # only of tokenizers written in Rust; others cannot tell
    return bool(encodings[row].overflowing) if encodings else True


def _first(logits: Any) -> torch.Tensor:
    """Some models return hidden states beside the logits."""
    first: torch.Tensor = logits[0] if isinstance(logits, tuple) else logits
    return first


_KINDS: Mapping[Task, TaskKind] = {
    "classification": TaskKind(
        metric_names=tuple(METRICS["classification"]),
        columns=lambda data: (data.text, data.label),
        model_class=transformers.AutoModelForSequenceClassification,
        encode=encode_labelled,
        loss_sum=class_loss_sum,
        row_statistics=class_statistics,
        compute_metrics=lambda prediction: classification_metrics(prediction.predictions, prediction.label_ids),
        eval_rows=32,
    ),
    "causal-lm": TaskKind(
        metric_names=tuple(METRICS["causal-lm"]),
        columns=lambda data: (data.prompt, data.completion),
        model_class=transformers.AutoModelForCausalLM,
        encode=encode_completion,
        loss_sum=token_loss_sum,
        row_statistics=token_statistics,
        compute_metrics=lambda prediction: causal_lm_metrics(prediction.predictions),
        eval_rows=1,  # logits of a whole vocabulary: no more than training holds at once
    ),
}
