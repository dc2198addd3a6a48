"""Rows become tokens once; choices are seeded; what a user should know is noted."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers

from finesweep.errors import DataError
from finesweep.spec.sweep import ModelSpec, SweepSpec
from finesweep.training.model_files import resolve_model
from finesweep.training.models import load_tokenizer, max_positions
from finesweep.training.prepare import Prepared, load_split, prepare

MakeSpec = Callable[..., SweepSpec]


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_rows_are_tokenised_once(make_spec: MakeSpec, tmp_path: Path) -> None:
    first = prepare(make_spec(), cache_dir=tmp_path)
    files = {path: path.stat().st_mtime_ns for path in first.folder.rglob("*")}
    assert prepare(make_spec(), cache_dir=tmp_path) == first
    assert {path: path.stat().st_mtime_ns for path in first.folder.rglob("*")} == files
    assert (first.n_train_rows, first.n_validation_rows, first.labels) == (53, 19, ("bone", "heart", "skin"))


def test_tokenised_rows_are_on_the_disk_before_they_count_as_done(
    make_spec: MakeSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced, sync = set(), os.fsync

    def watch(descriptor: int) -> None:
        synced.add(os.fstat(descriptor).st_ino)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    folder = prepare(make_spec(), cache_dir=tmp_path).folder
    assert {path.stat().st_ino for path in [folder, *folder.rglob("*")]} <= synced


def test_rows_hold_the_tokens_of_their_text(make_spec: MakeSpec, tmp_path: Path, tokenizer: Any) -> None:
    spec = make_spec()
    rows = load_split(prepare(spec, cache_dir=tmp_path), "train")
    written = [json.loads(line) for line in Path(spec.data.train).read_text().splitlines()]
    assert rows["input_ids"][:] == [tokenizer(row["text"])["input_ids"] for row in written]
    assert rows["labels"][:] == [["bone", "heart", "skin"].index(row["label"]) for row in written]


@pytest.mark.parametrize(
    "change",
    [{"data": {"max_length": 8}}, {"data": {"max_train_rows": 20}}, {"data": {"max_train_rows": 20, "seed": 1}}],
)
def test_other_choices_are_other_rows(make_spec: MakeSpec, tmp_path: Path, change: dict[str, Any]) -> None:
    assert prepare(make_spec(**change), cache_dir=tmp_path).folder != prepare(make_spec(), cache_dir=tmp_path).folder


def test_changed_files_are_noticed(make_spec: MakeSpec, tmp_path: Path, data_dir: Path) -> None:
    copy = tmp_path / "t.jsonl"
    copy.write_text((data_dir / "train.jsonl").read_text())
    before = prepare(make_spec(data={"train": str(copy)}), cache_dir=tmp_path)
    copy.write_text((data_dir / "train.jsonl").read_text().replace("w1", "w2"))
    after = prepare(make_spec(data={"train": str(copy)}), cache_dir=tmp_path)
    assert before.data_fingerprint != after.data_fingerprint
    assert before.model_fingerprint == after.model_fingerprint


def test_a_limit_takes_a_seeded_choice_in_which_classes_keep_their_shares(make_spec: MakeSpec, tmp_path: Path) -> None:
    def chosen(seed: int) -> list[Any]:
        spec = make_spec(data={"max_train_rows": 21, "max_validation_rows": 9, "seed": seed})
        prepared = prepare(spec, cache_dir=tmp_path / str(seed))
        assert (prepared.n_train_rows, prepared.n_validation_rows) == (21, 9)
        return [load_split(prepared, split)[:] for split in ("train", "validation")]

    train, validation = chosen(0)
    assert set(Counter(train["labels"]).values()) <= {6, 7, 8}  # 18, 18 and 17 of 53 rows
    assert set(Counter(validation["labels"]).values()) <= {2, 3, 4}
    assert chosen(1) != [train, validation]


def test_notes_tell_of_balance_duplicates_and_cut_rows(make_spec: MakeSpec, tmp_path: Path) -> None:
    texts = ["w1 w2", "w3 w4", "w5 w6", " ".join(["w7"] * 9)]
    rows = [{"text": text, "label": "ab"[i // 3]} for i, text in enumerate(texts)]
    data = {"train": write(tmp_path / "t.jsonl", rows), "validation": write(tmp_path / "v.jsonl", rows[:2])}
    notes = prepare(make_spec(data={**data, "max_length": 8}), cache_dir=tmp_path).notes
    assert notes == (
        "2 classes; always answering 'a' would score 1.000 accuracy in validation",
        "classes have from 1 ('b') to 3 ('a') training rows",
        "validation: no row of 1 of the classes: 'b'",
        "2 of 2 validation rows have a text that is also in training",
        "train: 1 of 4 rows are cut at 8 tokens (25.0%)",
    )


def test_a_row_of_just_the_length_is_not_cut(make_spec: MakeSpec, tmp_path: Path) -> None:
    rows = [{"text": " ".join(["w7"] * 8), "label": label} for label in "ab"]
    file = write(tmp_path / "t.jsonl", rows)
    prepared = prepare(make_spec(data={"train": file, "validation": file, "max_length": 8}), cache_dir=tmp_path)
    assert not any("cut" in note for note in prepared.notes)


def test_prompts_bear_no_loss_and_completions_end(make_spec: MakeSpec, tmp_path: Path, tied_llama: Path) -> None:
    file = write(tmp_path / "t.jsonl", [{"prompt": "w0 w1", "completion": "w2"}])
    spec = make_spec(model=tied_llama, task="causal-lm", data={"train": file, "validation": file})
    (row,) = load_split(prepare(spec, cache_dir=tmp_path), "train")
    assert row == {"input_ids": [4, 5, 6, 2], "labels": [-100, -100, 6, 2]}


def test_prompts_that_leave_no_room_are_left_out_and_told(
    make_spec: MakeSpec, tmp_path: Path, tied_llama: Path
) -> None:
    full = {"prompt": " ".join(["w0"] * 8), "completion": "w1"}
    data = {"validation": write(tmp_path / "v.jsonl", [{"prompt": "w0", "completion": "w1"}]), "max_length": 8}
    some = {**data, "train": write(tmp_path / "t.jsonl", [full, {"prompt": "w0", "completion": "w1"}])}
    prepared = prepare(make_spec(model=tied_llama, task="causal-lm", data=some), cache_dir=tmp_path)
    assert prepared.n_train_rows == 1
    assert "train: 1 rows are left out, their prompt alone fills 8 tokens" in prepared.notes
    none = {**data, "train": write(tmp_path / "t.jsonl", [full])}
    with pytest.raises(DataError, match=r"in every row the prompt alone fills data\.max_length \(8 tokens\)"):
        prepare(make_spec(model=tied_llama, task="causal-lm", data=none), cache_dir=tmp_path)


def test_a_fault_leaves_nothing_behind(make_spec: MakeSpec, tmp_path: Path) -> None:
    file = write(tmp_path / "t.jsonl", [{"text": "w1", "label": "a"}, {"text": " ", "label": "b"}])
    with pytest.raises(DataError, match="row 2"):
        prepare(make_spec(data={"train": file}), cache_dir=tmp_path / "cache")
    assert not [path for path in (tmp_path / "cache" / "data").iterdir() if path.is_dir()]


def test_a_file_that_is_not_there(make_spec: MakeSpec, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.validation: /no/such\.jsonl cannot be read"):
        prepare(make_spec(data={"validation": "/no/such.jsonl"}), cache_dir=tmp_path)


def test_rows_longer_than_the_model_can_place_are_refused_before_anything_is_read(
    make_spec: MakeSpec, tmp_path: Path
) -> None:
    prepare(make_spec(data={"max_length": 32}), cache_dir=tmp_path)
    with pytest.raises(DataError, match=r"data\.max_length: 33 tokens are more than .*\(32\)\. Lower it to 32"):
        prepare(make_spec(data={"max_length": 33}), cache_dir=tmp_path)


@pytest.mark.parametrize(
    ("config", "fits"),
    [
        (transformers.RobertaConfig(max_position_embeddings=34, pad_token_id=1), 32),  # counts from 2
        (transformers.GPT2Config(n_positions=48), 48),
        (transformers.T5Config(), None),  # relative positions
        (transformers.XLNetConfig(), None),
        (transformers.DebertaV2Config(max_position_embeddings=40, position_biased_input=False), None),
    ],
    ids=lambda value: value.model_type if isinstance(value, transformers.PretrainedConfig) else "",
)
def test_how_many_tokens_a_model_can_place(tmp_path: Path, config: Any, fits: int | None, tokenizer: Any) -> None:
    config.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    told = load_tokenizer(source := resolve_model(ModelSpec(name=str(tmp_path)), cache_dir=tmp_path))
    told.model_max_length = 32
    assert max_positions(source, told) == fits


def prepare_in_worker(arguments: tuple[SweepSpec, Path]) -> Prepared:
    spec, cache_dir = arguments
    return prepare(spec, cache_dir=cache_dir)


def test_workers_that_start_together_build_once(make_spec: MakeSpec, tmp_path: Path) -> None:
    with multiprocessing.get_context("fork").Pool(3) as pool:
        prepared = pool.map(prepare_in_worker, [(make_spec(), tmp_path)] * 3)
    assert prepared[0] == prepared[1] == prepared[2]
    assert len([path for path in (tmp_path / "data").iterdir() if path.is_dir()]) == 1
