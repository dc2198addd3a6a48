"""What a model is scored: the same whatever the evaluation batch, and found though it is not finite."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
import transformers

from finesweep.spec.sweep import Task
from finesweep.training.encoding import IGNORED, collator
from finesweep.training.hf_trainer import SweepTrainer
from finesweep.training.methods import Trainable
from finesweep.training.scoring import Scoring
from finesweep.training.tasks import head_arguments, task_kind

TASKS: tuple[Task, ...] = ("classification", "multi-label-classification", "regression", "causal-lm")


def rows_for(task: Task, n: int) -> datasets.Dataset:
    """Draw rows of many lengths with labels for the task."""
    draw = random.Random(0)
    rows = []
    for _ in range(n):
        ids = [draw.randrange(4, 60) for _ in range(draw.randint(2, 15))]
        labels: Any = {
            "classification": draw.randrange(3),
            "multi-label-classification": [float(draw.randrange(2)) for _ in range(3)],
            "regression": draw.uniform(-2, 2),
            "causal-lm": [IGNORED, *ids[1:]],
        }[task]
        rows.append({"input_ids": ids, "labels": labels})
    return datasets.Dataset.from_list(rows)


def score(
    task: Task, model_dir: Path, folder: Path, *, batch_size: int, broken: int | None = None, **arguments: Any
) -> dict[str, float]:
    """Score a model whose embedding of the token `broken` is not a number."""
    torch.manual_seed(0)
    model = task_kind(task).model_class.from_pretrained(model_dir, **head_arguments(task, ["a", "b", "c"]))
    model.config.pad_token_id = 0
    if broken is not None:
        model.get_input_embeddings().weight.data[broken] = math.nan
    trainer = SweepTrainer(
        args=transformers.TrainingArguments(
            output_dir=str(folder), per_device_eval_batch_size=batch_size, use_cpu=True, report_to="none", **arguments
        ),
        scoring=Scoring(task_kind(task)),
        trainable=Trainable(model, names=frozenset(), n_trainable=0, n_total=0, n_bytes=0, frozen_modules=()),
        eval_dataset=rows_for(task, 11),
        data_collator=collator(0),
    )
    return trainer.score()


@pytest.fixture
def model_dir(request: pytest.FixtureRequest, tiny_bert: Path, tied_llama: Path) -> Path:
    return tied_llama if request.getfixturevalue("task") == "causal-lm" else tiny_bert


@pytest.mark.parametrize("task", TASKS)
def test_scores_do_not_depend_on_the_evaluation_batch(task: Task, model_dir: Path, tmp_path: Path) -> None:
    one, three, eight = (score(task, model_dir, tmp_path, batch_size=size) for size in (1, 3, 8))
    assert one == pytest.approx(three, rel=1e-6, abs=1e-6)
    assert one == pytest.approx(eight, rel=1e-6, abs=1e-6)
    assert math.isfinite(one["loss"])


@pytest.mark.parametrize("task", ["classification", "causal-lm"])
def test_scores_are_of_labels_that_are_not_smoothed(task: Task, model_dir: Path, tmp_path: Path) -> None:
    plain = score(task, model_dir, tmp_path, batch_size=3)
    assert score(task, model_dir, tmp_path, batch_size=3, label_smoothing_factor=0.5) == plain


@pytest.mark.parametrize("task", TASKS)
def test_one_row_without_a_number_is_enough(task: Task, model_dir: Path, tmp_path: Path) -> None:
    token = rows_for(task, 11)[4]["input_ids"][0]
    metrics = score(task, model_dir, tmp_path, batch_size=3, broken=token)
    assert math.isnan(metrics["loss"])
