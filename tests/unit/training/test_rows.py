"""Every fault of a row is named with split, row, column, value and the way out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pytest

from finesweep.errors import DataError
from finesweep.spec.inputs import DATA_SUFFIXES
from finesweep.spec.sweep import DataSpec
from finesweep.training.rows import Rows, read_rows
from finesweep.training.sources import Table, source_of

GOOD = [{"text": "one", "label": "a"}, {"text": "two", "label": "b"}]
CHAT = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}]


def read(path: Path, *, task: Any = "classification", **data: Any) -> Rows:
    spec = DataSpec(train=str(path), validation=str(path), **data)
    rows, _ = read_rows(source_of(spec).table("train", scratch_dir=path.parent), spec, task)
    return rows


def lines(tmp_path: Path, *rows: Any) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return path


def read_values(tmp_path: Path, key: str, values: Sequence[Any], *, task: Any, **data: Any) -> list[Any]:
    others = {"text": "x"} if key == "label" else {}
    path = lines(tmp_path, *({**others, key: value} for value in values))
    return list(read(path, task=task, **data).columns[key])


# --- files -------------------------------------------------------------------------------------------------------


def test_formats_give_the_same_rows(tmp_path: Path) -> None:
    frame = pd.DataFrame(GOOD)
    frame.to_csv(tmp_path / "rows.csv", index=False)
    frame.to_parquet(tmp_path / "rows.parquet")
    frame.to_feather(tmp_path / "rows.arrow")
    (tmp_path / "rows.json").write_text(json.dumps(GOOD))
    datasets.Dataset.from_list(GOOD).save_to_disk(str(tmp_path / "saved"))
    (stream,) = (tmp_path / "saved").glob("*.arrow")
    formats = ("csv", "parquet", "json", "arrow")
    for path in (lines(tmp_path, *GOOD), stream, *(tmp_path / f"rows.{ending}" for ending in formats)):
        rows = read(path)
        assert {key: list(values) for key, values in rows.columns.items()} == {
            "text": ["one", "two"],
            "label": ["a", "b"],
        }


def test_columns_of_categories_are_their_words(tmp_path: Path) -> None:
    frame = pd.DataFrame(GOOD).astype({"label": "category"})
    frame.to_parquet(tmp_path / "rows.parquet")
    frame.to_feather(tmp_path / "rows.arrow")
    for ending in ("parquet", "arrow"):
        assert list(read(tmp_path / f"rows.{ending}").columns["label"]) == ["a", "b"]


def test_csv_text_that_looks_like_something_else_stays_text(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text,label\nNA,1\n12,2\n")
    rows = read(tmp_path / "rows.csv")
    assert (list(rows.columns["text"]), list(rows.columns["label"])) == (["NA", "12"], ["1", "2"])


def test_a_csv_file_from_excel_begins_with_its_first_column(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text,label\nein Überbein,a\ntwo,b\n", encoding="utf-8-sig")
    assert list(read(tmp_path / "rows.csv").columns["text"]) == ["ein Überbein", "two"]


def test_a_text_file_is_one_row_that_keeps_its_line_breaks(tmp_path: Path) -> None:
    (tmp_path / "poem.txt").write_bytes("\ufeffone,\r\ntwo\n\nthree\n".encode())
    rows = read(tmp_path / "poem.txt", task="causal-lm", format="text", text="body")
    assert list(rows.columns["text"]) == ["one,\ntwo\n\nthree\n"]


def test_nothing_is_left_beside_the_file(tmp_path: Path) -> None:
    read(path := lines(tmp_path, *GOOD))
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.jsonl is not there\. Correct the path"):
        read(tmp_path / "none.jsonl")


def test_a_file_of_unknown_kind(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf'the ending "\.xlsx" is unknown\. Known: {", ".join(DATA_SUFFIXES)}\.'):
        read(tmp_path / "rows.xlsx")


def test_a_table_without_rows(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text,label\n")
    empty = pd.DataFrame({"text": [], "label": []})
    empty.to_parquet(tmp_path / "rows.parquet")
    empty.to_feather(tmp_path / "rows.arrow")
    (tmp_path / "rows.txt").write_text("\n")
    for ending in ("csv", "parquet", "arrow", "txt"):
        with pytest.raises(DataError, match="holds no rows"):
            read(tmp_path / f"rows.{ending}")


@pytest.mark.parametrize("ending", ["parquet", "json", "jsonl", "arrow"])
def test_a_file_that_is_something_else(tmp_path: Path, ending: str) -> None:
    (tmp_path / f"rows.{ending}").write_bytes(bytes(range(128, 256)))
    with pytest.raises(DataError, match=rf"rows\.{ending} cannot be read: .+\. Mend the file"):
        read(tmp_path / f"rows.{ending}")


@pytest.mark.parametrize(
    ("ending", "content", "message"),
    [
        ("csv", "text,label\nschön,a\n", r"rows\.csv is no UTF-8 text: b'\\xf6n,a\\n'\. Save it as UTF-8"),
        ("txt", "schön", r"rows\.txt is no UTF-8 text: b'\\xf6n'\. Save it as UTF-8"),
        (
            "jsonl",
            '{"text": "one", "label": "a"}\n{"text": "schön", "label": "b"}\n',
            r"rows\.jsonl cannot be read: row 2 is no UTF-8 text: b'\{\"text\": \"sch\\xf6n\", .*\. Mend the file",
        ),
    ],
)
def test_text_in_another_encoding(tmp_path: Path, ending: str, content: str, message: str) -> None:
    (tmp_path / f"rows.{ending}").write_text(content, encoding="latin-1")
    with pytest.raises(DataError, match=message):
        read(tmp_path / f"rows.{ending}")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b,c\n", r"row 1 has 3 cells and the header 2: 'a,b,c'; text with a comma in it stands in quotes"),
        ("a,b\nc\n", r"row 2 has 1 cells and the header 2: 'c'"),
        ('a,b\n"c,d\n', r"line 3: unexpected end of data"),
        ('"a"b,c\n', r"line 2: ',' expected after '\"'"),
    ],
)
def test_cells_that_are_not_those_of_the_header(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "rows.csv").write_text(f"text,label\n{content}")
    with pytest.raises(DataError, match=rf"rows\.csv cannot be read: {message}.* Mend the file"):
        read(tmp_path / "rows.csv")


def test_a_header_that_names_a_column_twice(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text,label,text\na,b,c\n")
    with pytest.raises(DataError, match=r"its header names 'text' twice"):
        read(tmp_path / "rows.csv")


def test_quotes_blank_lines_and_long_cells_of_csv(tmp_path: Path) -> None:
    long = "x" * 200_000
    (tmp_path / "rows.csv").write_text(f'text,label\n"two\nlines, ""quoted""",a\n\n{long},b\n')
    rows = read(tmp_path / "rows.csv")
    assert (list(rows.columns["text"]), list(rows.columns["label"])) == (['two\nlines, "quoted"', long], ["a", "b"])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["{broken"], r"row 1 is no JSON \(Expecting property name.*\): '\{broken'"),
        ([GOOD[0], "[1, 2]"], r"row 2 is no JSON object: \[1, 2\]"),
        ([{"txt": "one", "label": "a"}], r'no column "text" \(data\.text\)\. Did you mean "txt"\? It has: txt, label'),
        ([{"text": "one", "class": "a"}], r'no column "label" \(data\.label\)\. It has: text, class'),
        ([], r"holds no rows\. Give a file with at least one"),
    ],
)
def test_faults_of_files(rows: list[Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read(lines(tmp_path, *rows))
    assert str(caught.value).startswith(f"data.train: {tmp_path / 'rows.jsonl'}")


# --- values ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "two", "label": {"deep": 1}}, r"""column "label" holds \{'deep': 1\} \(dict\); a label is text or"""),
        ({"text": 5, "label": "a"}, r'column "text" holds 5 \(int\), not text\. Write it as text\.'),
        ({"text": "one", "label": 0.5}, r'column "label" holds 0\.5 \(float\); a label is text or a whole number'),
        ({"text": "one", "label": True}, r'column "label" holds True \(bool\); a label is text or a whole number'),
    ],
)
def test_values_of_the_wrong_type_are_refused(row: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"rows\.jsonl, row 1, {message}"):
        read(lines(tmp_path, row), incomplete="leave-out")


INCOMPLETE = [
    ({"text": None, "label": "a"}, r'column "text" holds no text \(None\)'),
    ({"text": "  ", "label": "a"}, r"""column "text" holds empty text \('  '\)"""),
    ({"text": "two", "label": None}, r'column "label" holds no label \(None\)'),
    ({"text": "one", "label": ""}, r"""column "label" holds an empty label \(''\)"""),
]


@pytest.mark.parametrize(("row", "message"), INCOMPLETE)
def test_incomplete_rows_are_refused(row: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=rf"1 of 3 rows are incomplete: row 2, {message}\. Fill or remove them, or set "
    ):
        read(lines(tmp_path, GOOD[0], row, GOOD[1]))


def test_incomplete_rows_are_left_out_where_the_sweep_says_so(tmp_path: Path) -> None:
    path = lines(tmp_path, GOOD[0], *(row for row, _ in INCOMPLETE), GOOD[1])
    spec = DataSpec(train=str(path), validation=str(path), incomplete="leave-out")
    rows, notes = read_rows(source_of(spec).table("train", scratch_dir=tmp_path), spec, "classification")
    assert (list(rows.columns["text"]), list(rows.columns["label"])) == (["one", "two"], ["a", "b"])
    assert list(rows.numbers) == [1, 6]  # messages name the row of the file
    assert notes == [
        '4 of 6 rows are incomplete and left out: row 2, column "text" holds no text (None); '
        'row 3, column "text" holds empty text (\'  \'); row 4, column "label" holds no label (None); ...'
    ]


@pytest.mark.parametrize("incomplete", ["refuse", "leave-out"])
def test_rows_that_are_all_unlabelled_are_refused(incomplete: str, tmp_path: Path) -> None:
    path = lines(tmp_path, {"text": "one", "label": None}, {"text": "two", "label": None})
    with pytest.raises(
        DataError, match=r'all 2 rows are incomplete: row 1, column "label" holds no label \(None\); row'
    ):
        read(path, incomplete=incomplete)


def table(columns: Mapping[str, Any], features: Mapping[str, Any]) -> Table:
    return Table(datasets.Dataset.from_dict(dict(columns), datasets.Features(dict(features))), where="data.train: d")


SPEC = DataSpec(train="d", validation="d")
NAMES = datasets.ClassLabel(names=["poor", "fair", "good"])
TEXT = datasets.Value("string")


def test_classes_of_a_data_set_keep_their_names_and_order() -> None:
    rows, _ = read_rows(
        table({"text": ["x", "y"], "label": [2, 0]}, {"text": TEXT, "label": NAMES}), SPEC, "classification"
    )
    assert (rows.columns["label"], rows.class_names) == (["good", "poor"], ("poor", "fair", "good"))
    several = table({"text": ["x", "y"], "label": [[2, 0], []]}, {"text": TEXT, "label": datasets.List(NAMES)})
    rows, _ = read_rows(several, SPEC, "multi-label-classification")
    assert rows.columns["label"] == [("good", "poor"), ()]


def test_minus_one_is_how_a_data_set_marks_unlabelled_rows() -> None:
    unlabelled = table({"text": ["x", "y"], "label": [2, -1]}, {"text": TEXT, "label": NAMES})
    with pytest.raises(DataError, match=r'1 of 2 rows are incomplete: row 2, column "label" holds no label'):
        read_rows(unlabelled, SPEC, "classification")


# --- several labels, numbers -------------------------------------------------------------------------------------

MULTI = "multi-label-classification"


def test_several_labels_a_row_or_none(tmp_path: Path) -> None:
    given = [["b", "a", "b"], [], ["a"]]
    assert read_values(tmp_path, "label", given, task=MULTI) == [("b", "a"), (), ("a",)]


def test_several_labels_in_csv(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text('text,label\nx,b | a\nx,\nx,"a, b"\n')
    assert list(read(tmp_path / "rows.csv", task=MULTI).columns["label"]) == [("b", "a"), (), ("a, b",)]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["a"], r"row 1, column \"label\" holds 'a' \(str\), not a list of labels\. Write \['a'\]\."),
        ([["a"], None], r'row 2, column "label" holds no list of labels \(None\); one without any is \[\]'),
        ([["a", None]], r'row 1, column "label" holds no label \(None\) in a list of labels'),
        ([[0.5]], r'row 1, column "label" holds 0\.5 \(float\); a label is text or'),
    ],
)
def test_faults_of_several_labels(values: list[Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        read_values(tmp_path, "label", values, task=MULTI)


def test_a_list_written_into_csv_is_refused(tmp_path: Path) -> None:
    pd.DataFrame({"text": ["x"], "label": [["a", "b"]]}).to_csv(tmp_path / "rows.csv", index=False)
    with pytest.raises(DataError, match=r"holds \"\['a', 'b'\]\"; in CSV several labels are written a\|b"):
        read(tmp_path / "rows.csv", task=MULTI)


def test_numbers(tmp_path: Path) -> None:
    assert read_values(tmp_path, "label", [1, 2.5, -3e-4], task="regression") == [1.0, 2.5, -3e-4]
    (tmp_path / "rows.csv").write_text("text,label\nx,1\nx, 2.5\nx,-3e-4\n")
    assert list(read(tmp_path / "rows.csv", task="regression").columns["label"]) == [1.0, 2.5, -3e-4]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["3.5"], r"row 1, column \"label\" holds '3\.5' \(str\), not a number"),
        ([True], r'row 1, column "label" holds True \(bool\), not a number'),
        ([1.5, None], r'row 2, column "label" holds no number \(None\)'),
    ],
)
def test_faults_of_numbers(values: list[Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        read_values(tmp_path, "label", values, task="regression")


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("2;5", r"row 1, column \"label\" holds '2;5', which is no number\. Write it with a decimal point"),
        ("inf", r'row 1, column "label" holds inf, which is not finite'),
        ("-1e999", r'row 1, column "label" holds -inf, which is not finite'),
        ("nan", r'row 1, column "label" holds no number \(nan\)'),
        ("", r"row 1, column \"label\" holds no number \(''\)"),
    ],
)
def test_faults_of_numbers_in_csv(cell: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(f"text,label\nx,{cell}\n")
    with pytest.raises(DataError, match=message):
        read(tmp_path / "rows.csv", task="regression")


# --- generation --------------------------------------------------------------------------------------------------


def test_empty_completions_are_named(tmp_path: Path) -> None:
    path = lines(tmp_path, {"prompt": "one", "completion": ""})
    with pytest.raises(DataError, match=r'row 1, column "completion" holds empty text'):
        read(path, task="causal-lm")


def test_chats(tmp_path: Path) -> None:
    told = [{"role": "system", "content": ""}, *CHAT]
    with_more = [{**message, "name": "someone"} for message in CHAT]
    values = read_values(tmp_path, "messages", [told, with_more], task="causal-lm", format="messages")
    assert values == [told, CHAT]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], r"row 1, column \"messages\" holds no messages \(\[\]\)"),
        ("hello", r"row 1, column \"messages\" holds 'hello' \(str\), not a list of messages\. Write \[\{\"role\""),
        (CHAT[:1], r'row 1, column "messages" holds a chat in which the assistant says nothing'),
        (
            [{**CHAT[0], "role": "human"}, CHAT[1]],
            r"holds message 1 of the role 'human'\. Known: system, developer, user",
        ),
        ([{"from": "user", "value": "x"}], r'holds message 1 without "role" \(it has: from, value\)\. Write \[\{'),
        ([CHAT[0], {**CHAT[1], "content": " "}], r"holds message 2 \(of the assistant\) without text \(' '\)"),
        ([CHAT[0], {**CHAT[1], "content": None}], r"holds message 2 \(of the assistant\) without text \(None\)"),
        ([{"role": "assistant", "content": ["x"]}], r"holds message 1 with the content \['x'\] \(list\), not text"),
    ],
)
def test_faults_of_chats(value: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        read_values(tmp_path, "messages", [value], task="causal-lm", format="messages")
