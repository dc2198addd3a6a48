"""Models of a realistic size with random weights, rows that can be learnt, trials and sweeps on the first GPU.

All of it is made here: no model hub is asked. Without a GPU every test of this folder is skipped and says so.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import yaml
from tests.integration.conftest import Workplace, save_tokenizer
from tests.training.conftest import Bench, write_rows

from finesweep.events import Grid
from finesweep.spec.sweep import TransformersSweep, read_sweep
from finesweep.training.transformers_trainer import TransformersTrainerFactory

CLASSES = ("bone", "heart", "skin", "lung")
N_WORDS = 60  # of the tokenizer; a class prefers every fourth
MAX_LENGTH = 128
N_TRAIN, N_VALIDATION = 1024, 256
SHAPE = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
# 222 million parameters, of a vocabulary that logits take memory for
LARGE = {"hidden_size": 1024, "num_hidden_layers": 16, "num_attention_heads": 16, "intermediate_size": 2816}
VOCABULARY = 8192
FIRST_GPU = {"devices": [0]}  # named, for a GPU of which this process holds some memory is not free


def pytest_runtest_setup(item: pytest.Item) -> None:
    if not torch.cuda.is_available():
        pytest.skip(f"torch {torch.__version__} sees no GPU here: these are the tests for a GPU")


@pytest.fixture(autouse=True)
def _memory() -> Iterator[None]:
    """Begin and end each test with nothing held and no limit."""
    torch.cuda.empty_cache()
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a function that makes `encoder`, a BERT of 11 million parameters, or `decoder`, a Llama of 222 million."""

    @cache
    def make(kind: str, *, dropout: float = 0.0) -> Path:
        folder = tmp_path_factory.mktemp(kind)
        tokenizer = save_tokenizer(folder, eos_token="[EOS]")
        torch.manual_seed(1)
        if kind == "encoder":
            dropouts = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
            config = transformers.BertConfig(vocab_size=len(tokenizer), **SHAPE, **dropouts, initializer_range=0.05)
            transformers.BertModel(config).save_pretrained(folder)
        else:
            ids = {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": None, "pad_token_id": None}
            config = transformers.LlamaConfig(
                vocab_size=VOCABULARY, **LARGE, **ids, max_position_embeddings=256, attention_dropout=dropout
            )
            transformers.LlamaForCausalLM(config).save_pretrained(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def rows_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts of 25 to 65 words, most of them of their class; beside them prompts and answers."""
    folder, draw = tmp_path_factory.mktemp("rows"), random.Random(0)
    words = [f"w{i}" for i in range(N_WORDS)]
    for split, n in (("train", N_TRAIN), ("validation", N_VALIDATION)):
        texts, answers = [], []
        for i in range(n):
            label = i % len(CLASSES)
            text = " ".join(draw.choices(words[label::4], k=draw.randint(10, 50)) + draw.choices(words, k=15))
            texts.append({"text": text, "label": CLASSES[label]})
            answers.append({"prompt": text, "completion": " ".join(text.split()[:40])})
        write_rows(folder / f"{split}.jsonl", texts)
        write_rows(folder / f"answers_{split}.jsonl", answers)
    return folder


def sweep_of(
    folder: Path, rows_dir: Path, *, task: str = "classification", name: str = "gpu", **sections: Any
) -> dict[str, Any]:
    """Make the content of a sweep file; sections are added to those here."""
    prefix = "" if task == "classification" else "answers_"
    data = {split: str(rows_dir / f"{prefix}{split}.jsonl") for split in ("train", "validation")}
    content: dict[str, Any] = {
        "name": name,
        "study": {
            "objective": {"metric": "loss", "direction": "minimize"},
            "sampler": {"type": "random", "seed": 1},
            "parameters": {"learning_rate": {"type": "float", "low": 1e-5, "high": 1e-3, "log": True}},
        },
        "model": {"name": str(folder)},
        "task": task,
        "data": {**data, "max_length": MAX_LENGTH},
        "training": {"batch_size": 16, "epochs": 1, "eval_every": 256, "seed": 3},
        "try_defaults": False,
        "budget": {"trials": 1},
        "resources": FIRST_GPU,
        "evaluation": {},
        "artifacts": {},
    }
    for key, value in sections.items():
        content[key] = {**content[key], **value} if isinstance(value, Mapping) and key in content else value
    return content


@pytest.fixture
def make_spec(models: Callable[..., Path], rows_dir: Path) -> Callable[..., TransformersSweep]:
    """Return a function that makes a resolved sweep: sections by name, everything else is a training setting."""
    sections = ("task", "study", "model", "data", "budget", "resources", "evaluation", "artifacts")

    def make(*, kind: str = "encoder", dropout: float = 0.0, **options: Any) -> TransformersSweep:
        given = {key: options.pop(key) for key in sections if key in options}
        folder = models(kind, dropout=dropout)
        task = "classification" if kind == "encoder" else "causal-lm"
        return read_sweep(sweep_of(folder, rows_dir, **{"task": task, **given}, training=options))

    return make


@pytest.fixture
def bench(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, make_spec: Callable[..., TransformersSweep]
) -> Callable[..., Bench]:
    """Return a function that sets up a worker's trainer; its arguments are those of make_spec."""

    def set_up(*, spec: TransformersSweep | None = None, folder: str = "artifacts", **options: Any) -> Bench:
        factory = TransformersTrainerFactory(
            spec=spec or make_spec(**options),
            grid=Grid("examples", every=256, longest=100_000),
            artifact_dir=tmp_path / folder,
            cache_dir=tmp_path_factory.getbasetemp() / "cache",
        )
        return Bench(factory(), tmp_path / folder)

    return set_up


@pytest.fixture
def workplace(tmp_path: Path, models: Callable[..., Path], rows_dir: Path) -> Callable[..., Workplace]:
    """Return a function that writes a sweep file, to be run in processes of its own."""

    def make(*, kind: str = "encoder", dropout: float = 0.0, **sections: Any) -> Workplace:
        task = "classification" if kind == "encoder" else "causal-lm"
        content = sweep_of(models(kind, dropout=dropout), rows_dir, **{"task": task, **sections})
        (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(content))
        return Workplace(tmp_path)

    return make


def limit_memory(gib: float) -> None:
    """Let this process reserve no more than so much of the GPU; torch then says that the device is out of memory."""
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(gib * 2**30 / torch.cuda.get_device_properties(0).total_memory)


def used_gib() -> float:
    """Tell what all processes together hold of the GPU."""
    free, total = torch.cuda.mem_get_info()
    return (total - free) / 2**30


def facts_by_trial(workplace: Workplace, sweep: str) -> dict[int, Mapping[str, Any]]:
    """Give the facts of each trial's last attempt."""
    attempts = workplace.results.attempts(sweep).sort_values("attempt")
    return {int(number): facts for number, facts in zip(attempts["number"], attempts["facts"], strict=True)}


def note(name: str, **values: Any) -> None:
    """Add what was measured to the file that FINESWEEP_GPU_NOTES names, if it does: a line of JSON."""
    if path := os.environ.get("FINESWEEP_GPU_NOTES"):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"measured": name, **values}) + "\n")
