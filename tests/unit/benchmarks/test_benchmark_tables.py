"""What benchmarks say of their numbers: extrapolation, aims, tables, and the page made of them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import document
import pytest
from tables import Aim, Report, Spent, Table, extrapolate, number, ratio, read_report

ROOT = Path(__file__).parents[3]


def test_only_what_trials_cost_is_multiplied() -> None:
    """Four trials took 40 of 50 CPU-seconds: sixteen take 160, and the start is still paid once."""
    four = Spent(trials=4, training_cpu_s=30.0, cpu_s=50.0, wall_s=25.0)
    sixteen = extrapolate(four, 16, cpu_s_of_trials=40.0, wall_s_of_trials=20.0)
    assert sixteen == Spent(16, training_cpu_s=120.0, cpu_s=170.0, wall_s=85.0, is_extrapolated=True)


def test_what_was_measured_is_not_extrapolated() -> None:
    measured = Spent(trials=4, training_cpu_s=None, cpu_s=50.0, wall_s=25.0)
    assert extrapolate(measured, 4, cpu_s_of_trials=40.0, wall_s_of_trials=20.0) is measured


def test_seconds_of_training_that_nobody_told_stay_unknown() -> None:
    untold = Spent(trials=2, training_cpu_s=None, cpu_s=50.0, wall_s=25.0)
    assert extrapolate(untold, 4, cpu_s_of_trials=40.0, wall_s_of_trials=20.0).training_cpu_s is None
    assert ratio(10.0, None) is None
    assert number(None) == "–"


@pytest.mark.parametrize(
    ("got", "at_most", "is_met"), [(1.5, True, True), (1.6, True, False), (1.5, False, True), (None, True, None)]
)
def test_an_aim_is_met_at_its_bound(got: float | None, at_most: bool, is_met: bool | None) -> None:
    assert Aim("growth", 1.5, got, at_most=at_most).is_met is is_met


def test_a_missed_aim_says_so_in_the_document() -> None:
    assert "- rate: 9.00, aim at least 20.0: MISSED" in a_report().markdown()


def test_a_report_comes_back_from_json_as_it_was() -> None:
    report = a_report()
    assert read_report(json.loads(json.dumps(report.values()))) == report


def test_a_table_is_markdown_that_renders() -> None:
    lines = a_report().tables[0].markdown().splitlines()[2:]
    assert lines == ["| arm | s | ratio |", "| --- | ---: | ---: |", "| finesweep | 0.100 | 1.00 |"]


def test_the_page_takes_a_block_in_its_place_and_forgets_the_one_before() -> None:
    page = "# Page\n\n<!-- speed -->\nold\n<!-- end of speed -->\nby hand\n\n<!-- size -->\n<!-- end of size -->\n"
    once = document.fill(page, {"speed": "new"})
    assert "old" not in once
    assert "\nnew\n" in once
    assert "by hand" in once
    assert document.NOT_RUN in once
    assert document.fill(once, {"speed": "new"}) == once


def test_a_block_without_a_place_is_not_lost_silently() -> None:
    with pytest.raises(ValueError, match="no place for speed"):
        document.fill("# Page\n", {"speed": "new"})


def test_the_page_shows_what_the_results_say() -> None:
    """docs/benchmarks.md is made of results/*.json: neither is edited without the other."""
    kept = sorted((ROOT / "benchmarks" / "results").glob("*.json"))
    reports = [read_report(json.loads(path.read_text(encoding="utf-8"))) for path in kept]
    page = document.PAGE.read_text(encoding="utf-8")
    assert document.fill(page, {report.name: report.markdown() for report in reports}) == page


def test_the_page_names_every_benchmark() -> None:
    page = document.PAGE.read_text(encoding="utf-8")
    scripts = {path.name for path in (ROOT / "benchmarks").glob("*.py") if "harness.serve(" in path.read_text()}
    assert set(re.findall(r"python benchmarks/(\w+\.py)", page)) - {"document.py"} == scripts


def a_report() -> Report:
    return Report(
        name="speed",
        command="python benchmarks/speed.py",
        machine=("2 cores", "Python 3.11"),
        tables=(Table("Speed", ("arm", "s", "ratio"), (("finesweep", "0.100", "1.00"),)),),
        aims=(Aim("rate", 20, 9.0),),
        notes=("seed 0",),
        measured={"finesweep": {"cost": 0.1}},
    )
