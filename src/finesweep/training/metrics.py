"""Metrics from statistics that each row carries on its own, so that the evaluation batch size does not matter.

In: one array row per example. Out: named numbers. It must not know models or data sets.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef


def classification_metrics(statistics: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> Mapping[str, float]:
    """Score `statistics`: (rows, [negative log likelihood, predicted class]) against `labels`: (rows,)."""
    predicted = statistics[:, 1].astype(int)
    return {
        "loss": float(statistics[:, 0].mean(dtype=np.float64)),
        "accuracy": float(accuracy_score(labels, predicted)),
        "macro_f1": float(f1_score(labels, predicted, average="macro", zero_division=0)),
        "mcc": float(matthews_corrcoef(labels, predicted)),
    }


def causal_lm_metrics(statistics: np.ndarray[Any, Any]) -> Mapping[str, float]:
    """Score `statistics`: (rows, [summed negative log likelihood, tokens, tokens predicted right])."""
    nll, n_tokens, n_right = statistics.sum(axis=0, dtype=np.float64)
    loss = nll / n_tokens
    with np.errstate(over="ignore"):
        perplexity = np.exp(loss)  # infinite where that is more than a double holds
    return {
        "loss": float(loss),
        "perplexity": float(perplexity),
        "token_accuracy": float(n_right / n_tokens),
    }
