"""From what a sweep says of its data to a trained model: every source, every task, every format."""

from __future__ import annotations

import json
import math
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
import transformers

from finesweep.spec.sweep import TransformersSweep
from finesweep.training.prepare import load_split, prepare

MakeSpec = Callable[..., TransformersSweep]

WORDS = [f"w{i}" for i in range(60)]


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def texts(n: int, *, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(2, 12))) for _ in range(n)]


def labelled(label: Callable[[int], Any]) -> list[dict[str, Any]]:
    pairs = zip(texts(40), texts(40, seed=1), strict=True)
    return [{"text": text, "second": second, "label": label(i)} for i, (text, second) in enumerate(pairs)]


def chat(i: int, text: str) -> list[dict[str, str]]:
    turns = [{"role": "user", "content": WORDS[i]}, {"role": "assistant", "content": text}]
    return turns * (1 + i % 2)


ROWS: dict[str, tuple[str, list[dict[str, Any]], dict[str, Any]]] = {
    "one class": ("classification", labelled(lambda i: "abc"[i % 3]), {}),
    "pairs": ("classification", labelled(lambda i: i % 2), {"text_pair": "second"}),
    "several classes": ("multi-label-classification", labelled(lambda i: ["a", "b", "c"][: i % 4]), {}),
    "numbers": ("regression", labelled(lambda i: i / 10), {"text_pair": "second"}),
    "completions": (
        "causal-lm",
        [{"prompt": WORDS[i], "completion": text} for i, text in enumerate(texts(40))],
        {"format": "prompt-completion"},
    ),
    "chats": ("causal-lm", [{"messages": chat(i, t)} for i, t in enumerate(texts(40))], {"format": "messages"}),
    "text": ("causal-lm", [{"text": text} for text in texts(40)], {"format": "text"}),
}


@pytest.mark.parametrize("kind", ROWS)
def test_every_kind_of_row_trains_in_batches_of_like_length(
    kind: str, bench: Any, tmp_path: Path, tiny_bert: Path, chatting_llama: Path, cache_dir: Path, make_spec: MakeSpec
) -> None:
    task, rows, data = ROWS[kind]
    model = chatting_llama if task == "causal-lm" else tiny_bert
    data = {**data, "train": write(tmp_path / "t.jsonl", rows), "validation": 0.25, "test": 0.1, "max_length": 28}
    options = {"model": model, "task": task, "data": data, "train_sampling_strategy": "group_by_length", "epochs": 1}
    prepared = prepare(make_spec(**options), cache_dir=cache_dir)
    shutil.rmtree(prepared.folder / "test")  # no trial reads it
    _, told = bench(**options).run(batch_size=4)
    assert all(math.isfinite(value) for value in told.reports[-1].metrics.values())
    assert told.facts["tokens_per_epoch"] == sum(map(len, load_split(prepared, "train")["input_ids"][:]))


@pytest.mark.parametrize("kind", ROWS)
def test_rows_are_read_alike_from_files_and_from_a_folder(
    kind: str, tmp_path: Path, tiny_bert: Path, chatting_llama: Path, make_spec: MakeSpec
) -> None:
    task, rows, data = ROWS[kind]
    model = chatting_llama if task == "causal-lm" else tiny_bert
    splits = {"train": rows[:30], "validation": rows[30:]}
    files = {split: write(tmp_path / f"{split}.jsonl", part) for split, part in splits.items()}
    tables = {split: datasets.Dataset.from_list(part) for split, part in splits.items()}
    datasets.DatasetDict(tables).save_to_disk(str(tmp_path / "saved"))
    datasets.Dataset.from_list(rows).save_to_disk(str(tmp_path / "one"))
    sources: list[dict[str, Any]] = [
        files,
        {"dataset": str(tmp_path / "saved"), "train": "train", "validation": "validation"},
        {"dataset": str(tmp_path / "one"), "train": "train[:75%]", "validation": "train[-10:]"},
    ]
    prepared = [
        prepare(make_spec(model=model, task=task, data={**data, **source}), cache_dir=tmp_path / "cache")
        for source in sources
    ]
    assert len({p.folder for p in prepared}) == len({p.data_fingerprint for p in prepared}) == 3
    for split in ("train", "validation"):
        read = [load_split(p, split)[:] for p in prepared]
        assert read[0] == read[1] == read[2]
        assert len(read[0]["input_ids"]) > 0
    assert len({p.labels for p in prepared}) == 1


def test_a_share_is_disjoint_stratified_and_seeded(make_spec: MakeSpec, tmp_path: Path) -> None:
    rows = [{"text": f"w{i % 60} " * (1 + i // 60), "label": "ab"[i % 10 == 0]} for i in range(120)]
    file = write(tmp_path / "t.jsonl", rows)

    def read(**data: Any) -> dict[str, list[tuple[int, ...]]]:
        spec = make_spec(data={"train": file, "validation": 0.25, "test": 0.1, **data})
        prepared = prepare(spec, cache_dir=tmp_path / "cache")
        counts = (prepared.n_train_rows, prepared.n_validation_rows, prepared.n_test_rows)
        assert counts == (78, 30, 12)
        split_rows = {split: load_split(prepared, split)[:] for split in ("train", "validation", "test")}
        assert [sum(rows["labels"]) for rows in split_rows.values()] == [8, 3, 1]
        return {split: [tuple(ids) for ids in rows["input_ids"]] for split, rows in split_rows.items()}

    parts = read()
    assert len({ids for part in parts.values() for ids in part}) == 120
    assert read() == parts != read(seed=1)


def test_the_test_split_changes_nothing_that_trials_see(make_spec: MakeSpec, tmp_path: Path, data_dir: Path) -> None:
    rows = [{"text": text, "label": "skin"} for text in texts(5)]
    without = prepare(make_spec(), cache_dir=tmp_path)
    one = prepare(make_spec(data={"test": write(tmp_path / "1.jsonl", rows)}), cache_dir=tmp_path)
    other = prepare(make_spec(data={"test": write(tmp_path / "2.jsonl", rows[:3])}), cache_dir=tmp_path)
    assert without.data_fingerprint == one.data_fingerprint == other.data_fingerprint
    assert (without.n_test_rows, one.n_test_rows, other.n_test_rows) == (0, 5, 3)
    assert load_split(without, "train")[:] == load_split(one, "train")[:]
    share = prepare(make_spec(data={"test": 0.1}), cache_dir=tmp_path)
    assert share.data_fingerprint != without.data_fingerprint


def test_a_text_file_is_packed_and_its_end_is_set_aside(make_spec: MakeSpec, tmp_path: Path, tied_llama: Path) -> None:
    lines = texts(50)
    (tmp_path / "poem.txt").write_text("\n".join(lines) + "\n")
    data = {"train": str(tmp_path / "poem.txt"), "validation": 0.2, "format": "text"}
    prepared = prepare(make_spec(model=tied_llama, task="causal-lm", data=data), cache_dir=tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tied_llama)
    learnt = [
        tokenizer.decode([token for labels in load_split(prepared, split)["labels"][:] for token in labels[1:]]).split()
        for split in ("train", "validation")
    ]
    assert [words.index("[EOS]") for words in learnt] == [len(words) - 1 for words in learnt]
    assert [*learnt[0][:-1], *learnt[1][:-1]] == " ".join(lines).split()
    assert lines[-1].split() == learnt[1][:-1][-len(lines[-1].split()) :]
    assert 0.2 <= len(learnt[1]) / len([*learnt[0], *learnt[1]]) < 0.25
    assert f"train: {prepared.n_train_rows} blocks of at most 16 tokens, made of 1 text" in prepared.notes


def test_limits_of_packed_text_count_blocks(make_spec: MakeSpec, tmp_path: Path, tied_llama: Path) -> None:
    file = write(tmp_path / "t.jsonl", [{"text": text} for text in texts(200)])
    data = {"train": file, "validation": 0.2, "format": "text", "max_train_rows": 7, "max_validation_rows": 3}
    prepared = [
        prepare(make_spec(model=tied_llama, task="causal-lm", data={**data, "seed": seed}), cache_dir=tmp_path)
        for seed in (0, 1)
    ]
    assert [(p.n_train_rows, p.n_validation_rows, p.n_train_tokens) for p in prepared] == [(7, 3, 7 * 16)] * 2
    assert load_split(prepared[0], "train")[:] != load_split(prepared[1], "train")[:]


@pytest.mark.parametrize(
    "change",
    [
        {"incomplete": "leave-out"},
        {"text_pair": "second"},
        {"test": 0.2},
        {"validation": 0.3},
        {"label": "second"},
    ],
)
def test_all_that_changes_rows_is_told_apart(make_spec: MakeSpec, tmp_path: Path, change: dict[str, Any]) -> None:
    rows = [{"text": text, "second": "xy"[i % 2], "label": "ab"[i % 2]} for i, text in enumerate(texts(40))]
    data = {"train": write(tmp_path / "t.jsonl", rows), "validation": 0.2}
    plain = prepare(make_spec(data=data), cache_dir=tmp_path)
    changed = prepare(make_spec(data={**data, **change}), cache_dir=tmp_path)
    assert plain.data_fingerprint != changed.data_fingerprint
    assert plain.folder != changed.folder


def test_another_chat_template_is_another_encoding(make_spec: MakeSpec, tmp_path: Path, chatting_llama: Path) -> None:
    other = shutil.copytree(chatting_llama, tmp_path / "other")
    tokenizer = transformers.AutoTokenizer.from_pretrained(other)
    tokenizer.chat_template = tokenizer.chat_template.replace(" : ", " w0 ")
    tokenizer.save_pretrained(other)
    _, rows, data = ROWS["chats"]
    data = {**data, "train": write(tmp_path / "t.jsonl", rows), "validation": 0.2}
    first, second = (
        prepare(make_spec(model=model, task="causal-lm", data=data), cache_dir=tmp_path)
        for model in (chatting_llama, other)
    )
    assert first.data_fingerprint == second.data_fingerprint
    assert first.folder != second.folder
