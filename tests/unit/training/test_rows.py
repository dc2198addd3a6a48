"""Every fault of a data file is named with file, row, column, value and the way out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from finesweep.errors import DataError
from finesweep.spec.inputs import DATA_SUFFIXES
from finesweep.spec.sweep import DataSpec
from finesweep.training.rows import Rows, class_labels, read_split

GOOD = [{"text": "one", "label": "a"}, {"text": "two", "label": "b"}]


def read(path: Path, *, task: Any = "classification", columns: tuple[str, str] = ("text", "label")) -> Rows:
    data = DataSpec(train=str(path), validation=str(path))
    return read_split(data, "train", task=task, columns=columns, scratch_dir=path.parent)


def lines(tmp_path: Path, *rows: Any) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return path


def test_formats_give_the_same_rows(tmp_path: Path) -> None:
    frame = pd.DataFrame(GOOD)
    frame.to_csv(tmp_path / "rows.csv", index=False)
    frame.to_parquet(tmp_path / "rows.parquet")
    (tmp_path / "rows.json").write_text(json.dumps(GOOD))
    for path in (lines(tmp_path, *GOOD), *(tmp_path / f"rows.{ending}" for ending in ("csv", "parquet", "json"))):
        rows = read(path)
        assert (list(rows.inputs), list(rows.targets)) == (["one", "two"], ["a", "b"])


def test_csv_text_that_looks_like_something_else_stays_text(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text,label\nNA,1\n12,2\n")
    rows = read(tmp_path / "rows.csv")
    assert (list(rows.inputs), list(rows.targets)) == (["NA", "12"], ["1", "2"])


def test_a_csv_file_from_excel_begins_with_its_first_column(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text,label\nein Überbein,a\ntwo,b\n", encoding="utf-8-sig")
    rows = read(tmp_path / "rows.csv")
    assert (list(rows.inputs), list(rows.targets)) == (["ein Überbein", "two"], ["a", "b"])


def test_nothing_is_left_beside_the_file(tmp_path: Path) -> None:
    read(path := lines(tmp_path, *GOOD))
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["{broken"], r"row 1 is no JSON \(Expecting property name.*\): '\{broken'"),
        ([GOOD[0], "[1, 2]"], r"row 2 is no JSON object: \[1, 2\]"),
        (
            [GOOD[0], {"text": "two", "label": {"deep": 1}}],
            r"""row 2, column "label" holds \{'deep': 1\} \(dict\); a label is text or""",
        ),
        ([{"txt": "one", "label": "a"}], r'no column "text" \(data\.text\)\. Did you mean "txt"\? It has: txt, label'),
        ([{"text": "one", "class": "a"}], r'no column "label" \(data\.label\)\. It has: text, class'),
        ([{"text": 5, "label": "a"}], r'row 1, column "text" holds 5 \(int\), not text'),
        ([GOOD[0], {"text": None, "label": "a"}], r'row 2, column "text" holds None \(NoneType\), not text'),
        (
            [GOOD[0], {"text": "  ", "label": "a"}],
            r"""row 2, column "text" holds empty text \('  '\)\. Remove the row""",
        ),
        (
            [GOOD[0], {"text": "two", "label": None}],
            r'row 2, column "label" holds None \(NoneType\); a label is text or',
        ),
        ([{"text": "one", "label": 0.5}], r'row 1, column "label" holds 0\.5 \(float\); a label is text or a whole'),
        ([{"text": "one", "label": ""}], r"""row 1, column "label" holds an empty label \(''\)"""),
        ([], r"holds no rows\. Give a file with at least one"),
    ],
)
def test_faults_of_rows(rows: list[Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read(lines(tmp_path, *rows))
    assert str(caught.value).startswith(f"data.train: {tmp_path / 'rows.jsonl'}")


def test_empty_completions_are_named(tmp_path: Path) -> None:
    path = lines(tmp_path, {"prompt": "one", "completion": ""})
    with pytest.raises(DataError, match=r'row 1, column "completion" holds empty text'):
        read(path, task="causal-lm", columns=("prompt", "completion"))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.jsonl is not there\. Correct the path"):
        read(tmp_path / "none.jsonl")


def test_a_file_of_unknown_kind(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf'the ending "\.xlsx" is unknown\. Known: {", ".join(DATA_SUFFIXES)}\.'):
        read(tmp_path / "rows.xlsx")


def test_a_table_without_rows(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text,label\n")
    pd.DataFrame({"text": [], "label": []}).to_parquet(tmp_path / "rows.parquet")
    for ending in ("csv", "parquet"):
        with pytest.raises(DataError, match="holds no rows"):
            read(tmp_path / f"rows.{ending}")


@pytest.mark.parametrize("ending", ["parquet", "csv", "json"])
def test_a_file_that_is_something_else(tmp_path: Path, ending: str) -> None:
    (tmp_path / f"rows.{ending}").write_bytes(bytes(range(128, 256)))
    with pytest.raises(DataError, match=rf"rows\.{ending} cannot be read: .+\. Mend the file"):
        read(tmp_path / f"rows.{ending}")


def labels(train: list[Any], validation: list[Any]) -> list[Any]:
    data = DataSpec(train="t.jsonl", validation="v.jsonl")
    return class_labels(Rows(["x"] * len(train), train), Rows(["x"] * len(validation), validation), data)


def test_labels_are_in_order() -> None:
    assert labels(["b", "a", "b"], ["a"]) == ["a", "b"]
    assert labels([10, 9, 2], [9]) == [2, 9, 10]


@pytest.mark.parametrize(
    ("train", "validation", "message"),
    [
        (
            ["a", "b"],
            ["a", "c"],
            r"data\.validation: v\.jsonl, row 2, column \"label\": the class 'c' is in no training",
        ),
        (["a", "a"], ["a"], r"data\.train: t\.jsonl, column \"label\" has one class only \('a'\)"),
        (["1", "2"], [1], r"text in some rows and whole numbers in others \(t\.jsonl, v\.jsonl\)"),
    ],
)
def test_faults_of_labels(train: list[Any], validation: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        labels(train, validation)
