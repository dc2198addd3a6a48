"""`check --load` finds what is wrong with data before any device is used, and tells what is worth knowing of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
import pytest
import yaml
from tests.commandline import invoke

TEXTS = ["w1 w2", "w3 w4 w5", "w6", "w7 w8", "w9 w10", "w11"]
LABELLED = [{"text": text, "label": "ab"[i % 2]} for i, text in enumerate(TEXTS)]
NUMBERS = [{"text": text, "label": i / 2} for i, text in enumerate(TEXTS)]
PAIRS = [{"prompt": text, "completion": "w12"} for text in TEXTS]


@pytest.fixture
def check(
    tmp_path: Path, tiny_bert: Path, tied_llama: Path, chatting_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Any]:
    """Return a function that writes a sweep and its files, given by split as rows or as text, and checks it."""
    monkeypatch.setenv("FINESWEEP_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)

    def run(data: dict[str, Any], *, task: str = "classification", load: bool = True, chats: bool = True) -> Any:
        generator = chatting_llama if chats else tied_llama
        section = {"validation": 0.5, "max_length": 16, **data}
        for split in ("train", "validation", "test"):
            if isinstance(section.get(split), list):
                lines = "".join(json.dumps(row) + "\n" for row in section[split])
                (tmp_path / f"{split}.jsonl").write_text(lines)
                section[split] = f"{split}.jsonl"
        sweep = {
            "name": "tiny",
            "study": {
                "objective": {"metric": "loss", "direction": "minimize"},
                "parameters": {"learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2}},
            },
            "model": str(generator if task == "causal-lm" else tiny_bert),
            "task": task,
            "data": section,
            "budget": {"trials": 20},
        }
        (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(sweep))
        return invoke("check", "sweep.yaml", *(["--load"] if load else []))

    return run


def test_the_report(check: Any) -> None:
    long = {"text": " ".join(["w1"] * 20), "label": "b"}
    told = check({"train": [*LABELLED, long], "validation": LABELLED[:3], "test": [*LABELLED[:1], long]})
    assert (told.exit_code, told.stdout) == (0, "sweep.yaml: no faults.\n")
    lines = told.stderr.splitlines()
    assert lines == [
        "7 training and 3 validation rows and 2 test rows that no trial sees, classification. An epoch is 27 tokens.",
        "note: 2 classes; always answering 'a' would score 0.667 accuracy in validation",
        "note: classes have from 3 ('a') to 4 ('b') training rows",
        "note: 3 of 3 validation rows have a text that is also in training",
        "note: 2 of 2 test rows have a text that is also in training",
        "note: 1 of 2 test rows have a text that is also in validation",
        "note: train: 1 of 7 rows are cut at 16 tokens (14.3%)",
        "note: test: 1 of 2 rows are cut at 16 tokens (50.0%)",
    ]


def test_the_report_on_numbers(check: Any) -> None:
    told = check({"train": NUMBERS, "validation": NUMBERS[:2]}, task="regression")
    assert told.exit_code == 0
    assert (
        "note: the training rows ask for 0 to 2.5, 1.25 on average; always answering that would score rmse 1.031 and "
        "mae 1 in validation" in told.stderr.splitlines()
    )


def test_the_report_on_several_labels(check: Any) -> None:
    rows = [{"text": text, "label": ["a", "b"][: i % 3]} for i, text in enumerate(TEXTS)]
    told = check({"train": rows, "validation": rows[:3]}, task="multi-label-classification")
    assert told.exit_code == 0
    assert told.stderr.splitlines()[1:5] == [
        "note: 2 classes; a training row has 1.00 of them on average, 2 of 6 have none",
        "note: always answering none would score 0.333 subset_accuracy in validation",
        "note: classes have from 2 ('b') to 4 ('a') training rows",
        "note: 3 of 3 validation rows have a text that is also in training",
    ]


def test_the_report_on_completions(check: Any) -> None:
    told = check(
        {"train": [*PAIRS, {"prompt": "w1", "completion": "w2 w3 w4"}], "validation": PAIRS[:1]}, task="causal-lm"
    )
    assert told.exit_code == 0
    assert (
        "note: train: 16 of 28 tokens are to be learnt, 2 to 4 a row (2 in the middle)" in told.stderr.splitlines()
    ), told.stderr


CHAT = [{"role": "user", "content": "w1"}, {"role": "assistant", "content": "w2"}]

WRONG: dict[str, tuple[str, dict[str, Any], str]] = {
    "wrong column": (
        "classification",
        {"train": LABELLED, "label": "lable"},
        'train.jsonl has no column "lable" (data.label). Did you mean "label"? It has: text, label.',
    ),
    "unlabelled rows": (
        "classification",
        {"train": [*LABELLED, {"text": "w1", "label": None}]},
        'train.jsonl: 1 of 7 rows are incomplete: row 7, column "label" holds no label (None). Fill or remove them, or',
    ),
    "a label in validation only": (
        "classification",
        {"train": LABELLED, "validation": [{"text": "w1", "label": "c"}]},
        "validation.jsonl, row 1, column \"label\": the class 'c' is in no training row",
    ),
    "a label in test only": (
        "classification",
        {"train": LABELLED, "test": [{"text": "w1", "label": "c"}]},
        "test.jsonl, row 1, column \"label\": the class 'c' is in no training row",
    ),
    "one class": (
        "classification",
        {"train": [{**row, "label": "a"} for row in LABELLED]},
        "column \"label\" has one class only ('a'). A classifier needs at least two",
    ),
    "empty text": (
        "classification",
        {"train": [{"text": " ", "label": "a"}, *LABELLED]},
        "1 of 7 rows are incomplete: row 1, column \"text\" holds empty text (' ').",
    ),
    "0 rows after filtering": (
        "classification",
        {"train": [{**row, "label": None} for row in LABELLED], "incomplete": "leave-out"},
        'train.jsonl: all 6 rows are incomplete: row 1, column "label" holds no label (None); row 2',
    ),
    "wrong types": (
        "regression",
        {"train": LABELLED},
        "train.jsonl, row 1, column \"label\" holds 'a' (str), not a number. Write it as a number.",
    ),
    "a class too small for a share": (
        "classification",
        {"train": [*LABELLED, {"text": "w1", "label": "rare"}]},
        "train.jsonl: the class 'rare' has too few rows (row 7) to be in training and in what data.validation (0.5)",
    ),
    "a share of no row": (
        "regression",
        {"train": NUMBERS, "validation": 0.01},
        "data.validation: a share of 0.01 of the 6 rows of",
    ),
    "an empty slice": (
        "classification",
        {"dataset": "saved", "train": "train", "validation": "train[6:]"},
        'data.validation: split "train[6:]" of',
    ),
    "no assistant": (
        "causal-lm",
        {"train": [{"messages": CHAT[:1]}, {"messages": CHAT}], "format": "messages"},
        '1 of 2 rows are incomplete: row 1, column "messages" holds a chat in which the assistant says nothing',
    ),
    "an unknown role": (
        "causal-lm",
        {"train": [{"messages": [{**CHAT[0], "role": "human"}, CHAT[1]]}], "format": "messages"},
        "row 1, column \"messages\" holds message 1 of the role 'human'. Known: system, developer, user,",
    ),
    "a hub that cannot be reached": (
        "classification",
        {"dataset": "nobody/nothing", "train": "train", "validation": "test"},
        'data.dataset: "nobody/nothing" is not in the local cache, and https://huggingface.co cannot be reached',
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_wrong_with_the_rows(kind: str, check: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    datasets.DatasetDict({"train": datasets.Dataset.from_list(LABELLED)}).save_to_disk(str(tmp_path / "saved"))
    task, data, message = WRONG[kind]
    assert check(data, task=task, load=False).exit_code == 0
    told = check(data, task=task)
    assert (told.exit_code, told.stdout) == (2, "")
    assert message in told.stderr
    assert "Traceback" not in told.stderr


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            {"dataset": "saved", "train": "trian"},
            'data.train: {0}/saved holds no such split: "trian" is unknown; did',
        ),
        (
            {"dataset": "empty", "train": "train"},
            'data.dataset: "empty" is a folder ({0}/empty), but none that `',
        ),
        (
            {"train": "saved"},
            'data.train: "saved" is a folder of `save_to_disk`. Name it as data.dataset',
        ),
        (
            {"train": [], "revision": "v1"},
            "data.revision: revision is one of a data set of the hub. Name that",
        ),
        (
            {"dataset": "saved", "train": "train", "config": "x"},
            "data.config: {0}/saved is a folder: only a data",
        ),
        (
            {"train": [], "test": 0.5},
            "data.test: validation (0.5) and test (0.5) leave no rows to train on.",
        ),
        ({"train": [], "validation": 1.5}, "data.validation: "),
        ({"train": "poem.txt"}, "data.train: plain text has no columns. Use task causal-lm with data.format text"),
    ],
)
def test_what_the_sweep_alone_can_tell_is_told_without_loading(
    data: dict[str, Any], message: str, check: Any, tmp_path: Path
) -> None:
    datasets.DatasetDict({"train": datasets.Dataset.from_list(LABELLED)}).save_to_disk(str(tmp_path / "saved"))
    (tmp_path / "empty").mkdir()
    (tmp_path / "poem.txt").write_text("one\n")
    told = check(data, load=False)
    assert told.exit_code == 2
    assert message.format(tmp_path) in told.stderr, told.stderr
