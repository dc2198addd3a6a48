"""Metrics from statistics that each row carries on its own, so that the evaluation batch size does not matter.

In: one array row per example. Out: named numbers. It must not know models or data sets.

A number that is not finite passes through. A metric that the rows leave undefined is NaN, without a warning.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.special import expit, softmax
from scipy.stats import spearmanr

Array = np.ndarray[Any, Any]


def classification_metrics(statistics: Array, labels: Array) -> Mapping[str, float]:
    """Score `statistics`: (rows, [negative log likelihood, *logits]) against `labels`: (rows,), classes from 0.

    The numbers are scikit-learn's: the macro F1 is that of the classes that are in the rows or predicted, and a
    correlation (mcc) that is 0 / 0 is 0. From one table of counts they cost a hundredth of its checks.
    """
    predicted = statistics[:, 1:].argmax(axis=-1)
    n_classes = max(statistics.shape[1] - 1, int(labels.max()) + 1)
    pairs = np.bincount(labels.astype(np.int64) * n_classes + predicted, minlength=n_classes**2)
    confusion = pairs.reshape(n_classes, n_classes).astype(np.float64)  # (class, predicted class)
    n_right, n_labels, n_predicted = confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)  # (classes,)
    n_either = n_labels + n_predicted
    is_met = n_either > 0
    return {
        "loss": float(statistics[:, 0].mean(dtype=np.float64)),
        "accuracy": float(n_right.sum() / len(labels)),
        "macro_f1": float((2 * n_right[is_met] / n_either[is_met]).mean()),
        "mcc": _matthews(n_right, n_labels, n_predicted),
    }


def multi_label_metrics(statistics: Array, labels: Array) -> Mapping[str, float]:
    """Score `statistics`: (rows, [mean binary cross entropy, *logits]) against `labels`: (rows, classes) of 0 and 1.

    A class is predicted where its probability is above 0.5. The macro F1 counts a class that neither stands in the
    rows nor is predicted as 0, as scikit-learn does, whose own function takes a single class for two.
    """
    wanted, given = labels > 0, statistics[:, 1:] > 0
    right, wrong = (wanted & given).sum(axis=0), (wanted != given).sum(axis=0)  # (classes,)
    return {
        "loss": float(statistics[:, 0].mean(dtype=np.float64)),
        "macro_f1": float(_f1(right, wrong).mean()),
        "micro_f1": float(_f1(right.sum(), wrong.sum())),
        "subset_accuracy": float((wanted == given).all(axis=-1).mean()),
    }


def regression_metrics(statistics: Array, labels: Array) -> Mapping[str, float]:
    """Score `statistics`: (rows, [output]) against `labels`: (rows,)."""
    outputs, labels = statistics[:, 0].astype(np.float64), labels.astype(np.float64)
    errors = outputs - labels
    mean_square = float((errors**2).mean())
    spread = float(((labels - labels.mean()) ** 2).mean())
    return {
        "loss": mean_square,
        "mae": float(np.abs(errors).mean()),
        "rmse": float(np.sqrt(mean_square)),
        "r2": 1 - mean_square / spread if spread else np.nan,
        "spearman": _spearman(outputs, labels),
    }


def causal_lm_metrics(statistics: Array) -> Mapping[str, float]:
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


def class_probabilities(statistics: Array) -> Array:
    """Turn (rows, [loss, *logits]) into the probabilities of each row's classes: (rows, classes)."""
    probabilities: Array = softmax(statistics[:, 1:].astype(np.float64), axis=-1)
    return probabilities


def label_probabilities(statistics: Array) -> Array:
    """Turn (rows, [loss, *logits]) into the probability of each label: (rows, classes)."""
    probabilities: Array = expit(statistics[:, 1:].astype(np.float64))
    return probabilities


def _matthews(n_right: Array, n_labels: Array, n_predicted: Array) -> float:
    """Correlate labels and predictions from counts by class; 0 where that is 0 / 0. (Gorodkin 2004.)"""
    n_rows = n_labels.sum()
    both = n_right.sum() * n_rows - n_labels @ n_predicted
    spread = (n_rows**2 - n_predicted @ n_predicted) * (n_rows**2 - n_labels @ n_labels)
    return float(both / np.sqrt(spread)) if spread else 0.0


def _f1(right: Array, wrong: Array) -> Array:
    """Return 2 TP / (2 TP + FP + FN), 0 where that is 0 / 0."""
    f1: Array = 2 * right / np.maximum(2 * right + wrong, 1)
    return f1


def _spearman(outputs: Array, labels: Array) -> float:
    """Correlate ranks; undefined where all values on one side are equal or one is no number."""
    is_constant = (outputs == outputs[0]).all() or (labels == labels[0]).all()
    if is_constant or np.isnan(outputs).any():
        return np.nan
    return float(spearmanr(outputs, labels).statistic)
