"""How the trials of a sweep are scored: by the metrics of the task, functions of the user's own, and what is generated.

In: what a model said of the validation rows. Out: named numbers. It must not know trials or reports.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import transformers

from finesweep.spec.sweep import TransformersSweep
from finesweep.training.encoding import Tokenizer
from finesweep.training.functions import load_function
from finesweep.training.generation import Writing, load_writing
from finesweep.training.own_metrics import OwnMetric
from finesweep.training.tasks import TaskKind, task_kind


@dataclass(frozen=True, slots=True)
class Scoring:
    kind: TaskKind
    metrics: Sequence[OwnMetric] = ()
    writing: Writing | None = None

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


def load_scoring(
    spec: TransformersSweep, tokenizer: Tokenizer, *, prepared_dir: Path, max_positions: int | None
) -> Scoring:
    """Import the functions that a sweep names and choose what its models are asked.

    Raises FunctionError, EvaluationError or DataError.
    """
    evaluation = spec.evaluation
    metrics = _load(evaluation.metrics, "evaluation.metrics", spec.code_dir)
    if evaluation.generation is None:
        return Scoring(task_kind(spec.task), metrics)
    writing = load_writing(
        evaluation.generation,
        _load(evaluation.generation.scorers, "evaluation.generation.scorers", spec.code_dir),
        data=spec.data,
        folder=prepared_dir,
        tokenizer=tokenizer,
        max_positions=max_positions,
    )
    return Scoring(task_kind(spec.task), metrics, writing)


def _load(paths: Mapping[str, str], section: str, code_dir: str | None) -> list[OwnMetric]:
    keys = {name: f"{section}.{name}" for name in paths}
    return [
        OwnMetric(name, keys[name], path, load_function(path, code_dir=code_dir, key=keys[name]))
        for name, path in paths.items()
    ]
