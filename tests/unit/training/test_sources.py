"""Folders of `save_to_disk`: their splits, and slices of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pytest

from finesweep.errors import DataError
from finesweep.spec.sweep import DataSpec
from finesweep.training.sources import Table, source_of


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    splits = {name: datasets.Dataset.from_dict({"text": [f"{name}{i}" for i in range(n)]}) for name, n in SIZES.items()}
    datasets.DatasetDict(splits).save_to_disk(str(tmp_path / "saved"))
    return tmp_path / "saved"


SIZES = {"train": 10, "unseen": 4}


def read(folder: Path, split: str) -> Table:
    return source_of(DataSpec(dataset=str(folder), train=split, validation="x")).table("train", scratch_dir=folder)


@pytest.mark.parametrize(
    ("split", "rows"),
    [
        ("unseen", ["unseen0", "unseen1", "unseen2", "unseen3"]),
        ("train[:2]", ["train0", "train1"]),
        ("train[80%:]", ["train8", "train9"]),
        ("unseen[-1:]+train[:1]", ["unseen3", "train0"]),
    ],
)
def test_splits_and_slices(saved: Path, split: str, rows: list[str]) -> None:
    table = read(saved, split)
    assert table.rows["text"][:] == rows
    assert table.where == f'data.train: split "{split}" of {saved}'


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("test", r'split "test" of .*saved is not to be had: Unknown split "test".* It has: train, unseen\.'),
        ("train[:x]", r'split "train\[:x\]" of .* is not to be had: Unrecognized'),
    ],
)
def test_splits_that_are_not_there(saved: Path, split: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(saved, split)


@pytest.mark.parametrize("split", ["train[5:2]", "train[10:]"])
def test_an_empty_slice(saved: Path, split: str) -> None:
    with pytest.raises(DataError, match=r"holds no rows\. Name a slice .+ There are: train \(10\), unseen \(4\)\."):
        read(saved, split)


def test_a_folder_of_one_data_set_is_one_split(tmp_path: Path) -> None:
    rows = datasets.Dataset.from_dict({"text": ["a"]}, split=datasets.Split("unseen"))
    rows.save_to_disk(str(tmp_path / "named"))
    assert read(tmp_path / "named", "unseen").rows["text"][:] == ["a"]
    datasets.Dataset.from_dict({"text": ["b"]}).save_to_disk(str(tmp_path / "nameless"))
    assert read(tmp_path / "nameless", "train").rows["text"][:] == ["b"]


def test_a_damaged_folder(saved: Path) -> None:
    (saved / "train" / "dataset_info.json").unlink()
    with pytest.raises(DataError, match=r"saved cannot be read: .+ Write it anew with `save_to_disk`"):
        read(saved, "train")


def digest(data: dict[str, Any]) -> str:
    return source_of(DataSpec(**data)).digest("train")


def test_what_contents_are_recognised_by(saved: Path) -> None:
    data = {"dataset": str(saved), "train": "train", "validation": "unseen"}
    before = digest(data)
    assert digest(data) == before
    assert digest({**data, "train": "train[:5]"}) != before
    moved = saved.rename(saved.with_name("moved"))
    assert digest({**data, "dataset": str(moved)}) == before
    datasets.Dataset.from_dict({"text": ["other"]}).save_to_disk(str(moved / "unseen"))
    assert digest({**data, "dataset": str(moved)}) != before
    with pytest.raises(DataError, match=r"data\.dataset: there is no folder .*saved\. Correct the path"):
        digest(data)
