"""A tiny model, a learnable data set and the files of a sweep over them; the command line in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result

from finesweep.results.frames import Results, open_results
from tests.commandline import invoke

CLASSES = ("bone", "heart", "skin")
WORDS = [f"w{i}" for i in range(60)]


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of 3 layers with random weights, and its tokenizer."""
    import torch
    import transformers

    folder = tmp_path_factory.mktemp("model")
    tokenizer = save_tokenizer(folder)
    torch.manual_seed(1)
    config = transformers.BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=32,
    )
    transformers.BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_generator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of 2 layers with random weights, and its tokenizer."""
    import torch
    import transformers

    folder = tmp_path_factory.mktemp("generator")
    tokenizer = save_tokenizer(folder, eos_token="[EOS]")
    torch.manual_seed(1)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=32,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=None,
        bos_token_id=None,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def save_tokenizer(folder: Path, **more: str) -> Any:
    """Write a tokenizer that knows a word a token, and special tokens beyond padding and the unknown one."""
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    known = ["[PAD]", "[UNK]", *WORDS, *more.values()]
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(known)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", **more}
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **special)
    tokenizer.save_pretrained(folder)
    return tokenizer


@dataclass(frozen=True)
class Workplace:
    """A folder with a sweep in it."""

    folder: Path

    @property
    def results(self) -> Results:
        return open_results(self.folder / "finesweep.db")

    def write(self, changes: Mapping[str, Any], *, study: Mapping[str, Any] | None = None) -> Path:
        """Write the sweep file with some sections changed."""
        sweep = yaml.safe_load((self.folder / "sweep.yaml").read_text())
        for key, value in changes.items():
            sweep[key] = {**sweep[key], **value} if isinstance(value, Mapping) else value
        (self.folder / "sweep.yaml").write_text(yaml.safe_dump(sweep))
        if study:
            known = yaml.safe_load((self.folder / "study.yaml").read_text())
            (self.folder / "study.yaml").write_text(yaml.safe_dump({**known, **study}))
        return self.folder / "sweep.yaml"

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start the command line in a session of its own."""
        environment = {**os.environ, "PYTHONWARNINGS": "default", "FINESWEEP_CACHE": str(self.folder / "cache")}
        environment.pop("FINESWEEP_RESULTS", None)
        environment["OMP_NUM_THREADS"] = "1"  # Ray sets it for its workers; two threads on a busy core spin
        return subprocess.Popen(
            [sys.executable, "-m", "finesweep", *arguments],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run the command line to its end and check the exit code."""
        process = self.start(*arguments)
        out, err = process.communicate(timeout=240)
        assert process.returncode == code, f"exit {process.returncode}\n{out}\n{err}"
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def say(self, *arguments: str, code: int = 0) -> Result:
        """Run the command line in this process, which has the heavy libraries loaded, and check the exit code."""
        with contextlib.chdir(self.folder), pytest.MonkeyPatch.context() as patch:
            patch.setenv("FINESWEEP_CACHE", str(self.folder / "cache"))
            patch.delenv("FINESWEEP_RESULTS", raising=False)
            result = invoke(*arguments)
        assert result.exit_code == code, f"exit {result.exit_code}\n{result.output}\n{result.exception}"
        return result

    def wait_for(self, condition: Callable[[Results], bool], *, timeout_s: float = 120) -> None:
        """Wait until the database shows something; the sweep may not be in it yet."""
        from finesweep.errors import FinesweepError

        end_s = time.monotonic() + timeout_s
        while time.monotonic() < end_s:
            try:
                if condition(self.results):
                    return
            except FinesweepError:
                pass
            time.sleep(0.1)
        raise AssertionError("waited in vain")


@pytest.fixture
def workplace(tmp_path: Path, tiny_model: Path) -> Iterator[Workplace]:
    """A sweep of 6 short trials that is pruned at rungs."""
    draw = random.Random(0)
    for split, n_rows in (("train", 240), ("validation", 60)):
        rows = []
        for i in range(n_rows):
            label = i % len(CLASSES)
            words = draw.choices(WORDS[20 * label : 20 * label + 20], k=6) + draw.choices(WORDS, k=4)
            rows.append(json.dumps({"text": " ".join(words), "label": CLASSES[label]}))
        (tmp_path / f"{split}.jsonl").write_text("\n".join(rows) + "\n")
    study = {
        "objective": {"metric": "accuracy", "direction": "maximize"},
        "sampler": {"type": "random", "seed": 1},
        "pruner": {"type": "asha", "first_rung": 120},
        "parameters": {
            "learning_rate": {"type": "float", "low": 1e-5, "high": 1e-2, "log": True},
            "batch_size": {"type": "categorical", "choices": [8, 16]},
        },
    }
    sweep = {
        "name": "tiny",
        "study": "study.yaml",
        "model": str(tiny_model),
        "task": "classification",
        "data": {"train": "train.jsonl", "validation": "validation.jsonl", "max_length": 16},
        "training": {"eval_every": 120, "epochs": 2},
        "budget": {"trials": 6},
        "resources": {"devices": "cpu"},
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(sweep))
    yield Workplace(tmp_path)
