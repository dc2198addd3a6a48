"""The tasks: which kind of model each takes, what its loss is, and how predictions are scored.

In: logits and labels. Out: tensors, named metrics. It must not know text, trials, reports or files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import transformers

from finesweep.spec.sweep import METRICS, Task
from finesweep.training.encoding import IGNORED
from finesweep.training.metrics import causal_lm_metrics, classification_metrics


@dataclass(frozen=True, slots=True)
class TaskKind:
    metric_names: tuple[str, ...]
    model_class: Any
    loss_sum: Callable[..., torch.Tensor]
    row_statistics: Callable[[Any, torch.Tensor], torch.Tensor]
    compute_metrics: Callable[[Any], Mapping[str, float]]
    eval_rows: int  # per evaluation batch, at least; the training batch where that is larger


def task_kind(task: Task) -> TaskKind:
    return _KINDS[task]


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


def _first(logits: Any) -> torch.Tensor:
    """Some models return hidden states beside the logits."""
    first: torch.Tensor = logits[0] if isinstance(logits, tuple) else logits
    return first


_KINDS: Mapping[Task, TaskKind] = {
    "classification": TaskKind(
        metric_names=tuple(METRICS["classification"]),
        model_class=transformers.AutoModelForSequenceClassification,
        loss_sum=class_loss_sum,
        row_statistics=class_statistics,
        compute_metrics=lambda prediction: classification_metrics(prediction.predictions, prediction.label_ids),
        eval_rows=32,
    ),
    "causal-lm": TaskKind(
        metric_names=tuple(METRICS["causal-lm"]),
        model_class=transformers.AutoModelForCausalLM,
        loss_sum=token_loss_sum,
        row_statistics=token_statistics,
        compute_metrics=lambda prediction: causal_lm_metrics(prediction.predictions),
        eval_rows=1,  # logits of a whole vocabulary: no more than training holds at once
    ),
}
