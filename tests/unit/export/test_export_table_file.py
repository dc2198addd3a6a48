from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from finesweep.errors import ExportError
from finesweep.export.table_file import export_table
from finesweep.results.columns import typed_frame


@pytest.fixture
def frame() -> pd.DataFrame:
    columns = {"sweep": "string", "number": "Int64", "learning_rate": "float64", "started_at": "datetime64[ns, UTC]"}
    return typed_frame(columns, [("a|b", 1, 0.1 + 0.2, 0.0), ("c\nd", None, None, None)])


def test_csv_keeps_every_digit(frame: pd.DataFrame, tmp_path: Path) -> None:
    export_table(frame, tmp_path / "t.csv")
    read = pd.read_csv(tmp_path / "t.csv")
    assert list(read.columns) == list(frame.columns)
    assert read["learning_rate"][0] == 0.1 + 0.2


def test_json_is_a_list_of_rows(frame: pd.DataFrame, tmp_path: Path) -> None:
    export_table(frame, tmp_path / "t.json")
    assert json.loads((tmp_path / "t.json").read_text()) == [
        {"sweep": "a|b", "number": 1, "learning_rate": 0.1 + 0.2, "started_at": "1970-01-01T00:00:00+00:00"},
        {"sweep": "c\nd", "number": None, "learning_rate": None, "started_at": None},
    ]


def test_parquet_keeps_the_types(frame: pd.DataFrame, tmp_path: Path) -> None:
    export_table(frame, tmp_path / "t.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "t.parquet"), frame)


def test_markdown_is_one_line_a_row(frame: pd.DataFrame, tmp_path: Path) -> None:
    export_table(frame, tmp_path / "t.MD")
    assert (tmp_path / "t.MD").read_text() == (
        "| sweep | number | learning_rate | started_at |\n"
        "| --- | ---: | ---: | --- |\n"
        "| a\\|b | 1 | 0.3 | 1970-01-01T00:00:00+00:00 |\n"
        "| c d |  |  |  |\n"
    )


def test_unknown_endings_and_existing_files_are_refused(frame: pd.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(
        ExportError, match=r"ending '\.xlsx' is unknown\. Known: \.csv, \.json, \.parquet, \.md, \.html\."
    ):
        export_table(frame, tmp_path / "t.xlsx")
    export_table(frame, tmp_path / "t.csv")
    with pytest.raises(ExportError, match="already there"):
        export_table(frame, tmp_path / "t.csv")
    export_table(frame, tmp_path / "t.csv", force=True)


def test_a_page_needs_nothing_else_and_runs_nothing_that_stands_in_the_trials(tmp_path: Path) -> None:
    frame = pd.DataFrame({"number": [1, 2], "reason": ["<script>alert(1)</script>", "a & b"]})
    export_table(frame, tmp_path / "t.html")
    page = (tmp_path / "t.html").read_text(encoding="utf-8")
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<script" not in page
    assert "http" not in page
    assert page.count("<tr>") == 3
