"""How the trials of a sweep are scored: by the metrics of the task and by functions of the user's own.

In: what a model said of the validation rows. Out: named numbers. It must not know trials or reports.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import transformers

from finesweep.errors import EvaluationError
from finesweep.spec.sweep import TransformersSweep
from finesweep.training.functions import load_function
from finesweep.training.tasks import TaskKind, task_kind


@dataclass(frozen=True, slots=True)
class OwnMetric:
    """A function of the user's own that makes one number of what a model said and what it should have said."""

    name: str
    key: str  # where the sweep names it
    path: str  # package.module:function
    function: Callable[[Any, Any], Any]

    def __call__(self, said: Any, wanted: Any) -> float:
        """Raise EvaluationError where the function raises or returns no number; NaN is one."""
        try:
            value = self.function(said, wanted)
        except Exception as error:
            raise EvaluationError(
                f"{self.key}: {self.path} raised {type(error).__name__}: {error}. Mend the function, or remove the key."
            ) from error
        if getattr(value, "ndim", None) == 0:  # a number in numpy's or torch's clothes
            value = value.item()
        if not isinstance(value, Real):
            raise EvaluationError(
                f"{self.key}: {self.path} returned {value!r:.60} ({type(value).__name__}), not a number. "
                "Have it return one; where there is none to give, float('nan')."
            )
        return float(value)


@dataclass(frozen=True, slots=True)
class Scoring:
    kind: TaskKind
    metrics: Sequence[OwnMetric] = ()

    def of_rows(self, prediction: transformers.EvalPrediction) -> dict[str, float]:
        """Score the statistics of all rows. A model whose loss is not finite has none but those of the task."""
        statistics, labels = prediction.predictions, prediction.label_ids
        scores = dict(self.kind.metrics(statistics, labels))
        is_sound = math.isfinite(scores["loss"])
        for metric in self.metrics:  # each is given arrays of its own: it may change them
            scores[metric.name] = (
                metric(self.kind.predictions(statistics).copy(), labels.copy()) if is_sound else math.nan
            )
        return scores


def load_scoring(spec: TransformersSweep) -> Scoring:
    """Import the functions that a sweep names. Raises FunctionError."""
    own = []
    for name, path in spec.evaluation.metrics.items():
        key = f"evaluation.metrics.{name}"
        own.append(OwnMetric(name, key, path, load_function(path, code_dir=spec.code_dir, key=key)))
    return Scoring(task_kind(spec.task), tuple(own))
