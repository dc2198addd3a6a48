"""Every task learns: a small model trained on rows that can be learnt beats whatever knows nothing of them."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from tests.training.conftest import WORDS, write_rows

from finesweep.events import Ending, Grid
from finesweep.spec.sweep import Task
from finesweep.training.best_weights import load_trained

GRID = Grid("progress", every=25, longest=100)
LEARN = {"learning_rate": 5e-3, "batch_size": 8, "epochs": 15}


def rows_of(bench: Any, split: str) -> Any:
    return getattr(bench.trainer._shared, split)


@pytest.mark.parametrize(
    ("task", "metric", "at_least"),
    [
        ("classification", "accuracy", 0.8),  # of three classes that are as common
        ("multi-label-classification", "micro_f1", 0.87),  # always giving all three labels has 0.8
        ("regression", "r2", 0.5),  # always giving the mean has 0
    ],
)
def test_labelled_rows_are_learnt_and_the_weights_kept_score_the_same(
    bench: Any, cache_dir: Path, task: Task, metric: str, at_least: float
) -> None:
    set_up = bench(task=task, grid=GRID, objective={"metric": metric, "direction": "maximize"})
    result, told = set_up.run(**LEARN)
    assert result.ending is Ending.DONE
    assert told.reports[-1].metrics["loss"] < 0.8 * told.reports[0].metrics["loss"]
    best = max(report.metrics[metric] for report in told.reports)
    assert best >= at_least

    model = load_trained(set_up.artifact_dir / result.artifacts["best"], cache_dir=cache_dir).eval()
    rows = rows_of(set_up, "validation")
    with torch.no_grad():
        logits = [model(torch.tensor([row["input_ids"]])).logits[0].numpy() for row in rows]
    assert by_hand(task, np.array(logits), np.array(rows["labels"][:])) == pytest.approx(best)


def by_hand(task: Task, logits: Any, labels: Any) -> float:
    if task == "classification":
        return float((logits.argmax(-1) == labels).mean())
    if task == "multi-label-classification":
        given, wanted = logits > 0, labels > 0
        return float(2 * (given & wanted).sum() / (given.sum() + wanted.sum()))
    errors = logits[:, 0] - labels
    return float(1 - (errors**2).mean() / labels.var())


TEMPLATE = (
    "{% for m in messages %}{{ m.role }} {{ m.content }} {{ eos_token }} {% endfor %}"
    "{% if add_generation_prompt %}assistant {% endif %}"
)


@pytest.fixture
def chatty_llama(tied_llama: Path, tmp_path: Path) -> Path:
    """The small model, with a tokenizer that knows how a chat is written."""
    folder = tmp_path / "chatty"
    shutil.copytree(tied_llama, folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder


def generative_rows(data_format: str, n: int) -> Iterator[dict[str, Any]]:
    """After each word comes the one ten further on."""
    for i in range(n):
        asked, answer = WORDS[i % 7], f"{WORDS[i % 7 + 10]} {WORDS[i % 7 + 20]}"
        match data_format:
            case "prompt-completion":
                yield {"prompt": asked, "completion": answer}
            case "messages":
                roles = ("user", "assistant", "user", "assistant")
                texts = (asked, answer, asked, answer)
                yield {"messages": [{"role": r, "content": t} for r, t in zip(roles, texts, strict=True)]}
            case "text":
                yield {"text": f"{asked} {answer}"}


@pytest.mark.parametrize("data_format", ["prompt-completion", "messages", "text"])
def test_texts_are_learnt_in_each_of_their_formats(
    bench: Any, chatty_llama: Path, tmp_path: Path, data_format: str
) -> None:
    files = {
        split: str(write_rows(tmp_path / f"{split}.jsonl", list(generative_rows(data_format, n))))
        for split, n in (("train", 160), ("validation", 20))
    }
    generation = {"generation": {"rows": 6, "max_new_tokens": 4}} if data_format != "text" else {}
    data = {**files, "format": data_format, "max_length": 24}
    _, told = bench(model=chatty_llama, task="causal-lm", data=data, evaluation=generation, grid=GRID).run(
        learning_rate=1e-2,
        batch_size=4,
        epochs=20 if data_format == "text" else 3,  # few blocks, many rows
    )
    first, last = told.reports[0].metrics, told.reports[-1].metrics
    assert last["loss"] < 0.5 * min(first["loss"], math.log(64))  # that of a guess among all words
    assert last["token_accuracy"] > 0.6
    if data_format != "text":
        assert last["rouge1"] > 0.5
