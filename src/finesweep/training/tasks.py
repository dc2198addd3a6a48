"""The tasks: which kind of model each takes, what its loss is, and how predictions are scored.

In: logits and labels. Out: tensors, named metrics. It must not know text, trials, reports or files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import transformers

from finesweep.spec.sweep import Task
from finesweep.training.encoding import IGNORED
from finesweep.training.metrics import (
    Array,
    causal_lm_metrics,
    class_probabilities,
    classification_metrics,
    label_probabilities,
    multi_label_metrics,
    regression_metrics,
)


class RowLosses(Protocol):
    def __call__(self, logits: torch.Tensor, labels: torch.Tensor, *, smoothing: float) -> torch.Tensor: ...


@dataclass(frozen=True, slots=True)
class TaskKind:
    model_class: Any
    row_losses: RowLosses | None  # None where a row has no loss of its own but one for each token
    n_losses: Callable[[torch.Tensor], torch.Tensor]  # labels -> what that sum is taken over
    row_statistics: Callable[[Any, torch.Tensor], torch.Tensor]
    metrics: Callable[[Array, Array], Mapping[str, float]]  # of statistics and labels
    predictions: Callable[[Array], Array]  # statistics -> what a metric of the user's own is given
    eval_rows: int  # per evaluation batch on a CPU, at least; the training batch where that is larger

    def loss_sum(self, logits: torch.Tensor, labels: torch.Tensor, *, smoothing: float) -> torch.Tensor:
        """Sum the losses of a batch; over n_losses it is the mean."""
        if self.row_losses is None:
            return token_loss_sum(logits, labels, smoothing=smoothing)
        return self.row_losses(logits, labels, smoothing=smoothing).sum()


def task_kind(task: Task) -> TaskKind:
    return _KINDS[task]


def head_arguments(task: Task, labels: Sequence[str]) -> dict[str, Any]:
    """Tell `from_pretrained` what head the task takes. `labels` name the outputs of a classifier.

    The problem is named too: a model that was trained for another one carries that in its configuration, and whoever
    loads our weights with plain transformers would be given the other one's loss.
    """
    if task == "causal-lm":
        return {}
    replaced = {"ignore_mismatched_sizes": True}  # the head of another task
    if task == "regression":
        return {"num_labels": 1, "problem_type": "regression", **replaced}
    return {
        "num_labels": len(labels),
        "id2label": dict(enumerate(labels)),
        "label2id": {label: i for i, label in enumerate(labels)},
        "problem_type": "single_label_classification" if task == "classification" else "multi_label_classification",
        **replaced,
    }


def class_losses(logits: torch.Tensor, labels: torch.Tensor, *, smoothing: float) -> torch.Tensor:
    """Return the cross entropy of each row of logits: (rows, classes)."""
    return torch.nn.functional.cross_entropy(_full(logits), labels, reduction="none", label_smoothing=smoothing)


def multi_label_losses(logits: torch.Tensor, labels: torch.Tensor, *, smoothing: float) -> torch.Tensor:
    """Return the binary cross entropy of each row of logits: (rows, classes), summed over the classes."""
    assert smoothing == 0, "the spec refuses to smooth labels of this task"
    full = _full(logits)
    losses = torch.nn.functional.binary_cross_entropy_with_logits(full, labels.to(full.dtype), reduction="none")
    return losses.sum(-1)


def squared_errors(logits: torch.Tensor, labels: torch.Tensor, *, smoothing: float) -> torch.Tensor:
    """Return the squared error of each row of logits: (rows, 1)."""
    assert smoothing == 0, "the spec refuses to smooth labels of this task"
    full = _full(logits).squeeze(-1)
    return torch.nn.functional.mse_loss(full, labels.to(full.dtype), reduction="none")


def token_loss_sum(logits: torch.Tensor, labels: torch.Tensor, *, smoothing: float) -> torch.Tensor:
    """Sum the cross entropy of logits: (batch, sequence, vocab) over the tokens that bear loss."""
    targets = torch.nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORED)  # the token at i is predicted at i - 1
    return torch.nn.functional.cross_entropy(
        _full(logits).flatten(0, 1),
        targets.flatten(),
        ignore_index=IGNORED,
        reduction="sum",
        label_smoothing=smoothing,
    )


def n_elements(labels: torch.Tensor) -> torch.Tensor:
    """Count labels that all bear loss: a regression's may be -100 and mean it."""
    return torch.tensor(labels.numel())


def n_predicted_tokens(labels: torch.Tensor) -> torch.Tensor:
    return (labels[:, 1:] != IGNORED).sum()  # nothing stands before the first token to predict it from


def class_statistics(logits: Any, labels: torch.Tensor) -> torch.Tensor:
    """Extend logits: (batch, classes) to (batch, [negative log likelihood, *logits])."""
    logits = _full(_first(logits))
    nll = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    return torch.cat([nll[:, None], logits], dim=-1)


def multi_label_statistics(logits: Any, labels: torch.Tensor) -> torch.Tensor:
    """Extend logits: (batch, classes) to (batch, [mean binary cross entropy, *logits])."""
    logits = _full(_first(logits))
    losses = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction="none")
    return torch.cat([losses.mean(-1, keepdim=True), logits], dim=-1)


def regression_statistics(logits: Any, labels: torch.Tensor) -> torch.Tensor:
    """Return the outputs: (batch, [number]) as they are."""
    return _full(_first(logits))


def token_statistics(logits: Any, labels: torch.Tensor) -> torch.Tensor:
    """Reduce logits: (batch, sequence, vocab) to (batch, [summed nll, tokens, tokens predicted right]).

    Row by row, so that a second copy of the logits in full precision is never held for the whole batch.
    """
    statistics = []
    for row_logits, row_labels in zip(_first(logits), labels, strict=True):
        is_target = row_labels[1:] != IGNORED  # the token at i is predicted from what stands before it
        targets, scores = row_labels[1:][is_target], _full(row_logits[:-1][is_target])
        nll = torch.nn.functional.cross_entropy(scores, targets, reduction="sum")
        right = (scores.argmax(-1) == targets).sum()
        statistics.append(torch.stack([nll, is_target.sum().to(nll), right.to(nll)]))
    return torch.stack(statistics)


def _full(logits: torch.Tensor) -> torch.Tensor:
    """Compute losses in single precision at least."""
    return logits if logits.dtype == torch.float64 else logits.float()


def _first(logits: Any) -> torch.Tensor:
    """Some models return hidden states beside the logits."""
    first: torch.Tensor = logits[0] if isinstance(logits, tuple) else logits
    return first


_KINDS: Mapping[Task, TaskKind] = {
    "classification": TaskKind(
        model_class=transformers.AutoModelForSequenceClassification,
        row_losses=class_losses,
        n_losses=n_elements,
        row_statistics=class_statistics,
        metrics=classification_metrics,
        predictions=class_probabilities,
        eval_rows=32,
    ),
    "multi-label-classification": TaskKind(
        model_class=transformers.AutoModelForSequenceClassification,
        row_losses=multi_label_losses,
        n_losses=n_elements,
        row_statistics=multi_label_statistics,
        metrics=multi_label_metrics,
        predictions=label_probabilities,
        eval_rows=32,
    ),
    "regression": TaskKind(
        model_class=transformers.AutoModelForSequenceClassification,
        row_losses=squared_errors,
        n_losses=n_elements,
        row_statistics=regression_statistics,
        metrics=regression_metrics,
        predictions=lambda statistics: statistics[:, 0],
        eval_rows=32,
    ),
    "causal-lm": TaskKind(
        model_class=transformers.AutoModelForCausalLM,
        row_losses=None,
        n_losses=n_predicted_tokens,
        row_statistics=token_statistics,
        metrics=lambda statistics, _: causal_lm_metrics(statistics),
        predictions=lambda statistics: statistics,
        eval_rows=1,  # logits of a whole vocabulary: no more than training holds at once
    ),
}
