from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from finesweep.errors import ResultsError, SweepNameError
from finesweep.events import Event, Grid, TrialState
from finesweep.results.columns import TRIAL_COLUMNS, json_rows
from finesweep.results.frames import open_results
from finesweep.results.writer import ResultsWriter, open_writer
from finesweep.spec.sweep import SweepSpec
from finesweep.views.compare import BEST_COLUMNS, compare, comparison_tables
from finesweep.views.printing import plain_text
from finesweep.views.selection import Selection

GRID = Grid("examples", 100, 1000)
Specs = Callable[..., SweepSpec]
Events = Callable[..., list[Event]]


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[ResultsWriter]:
    with open_writer(tmp_path / "r.db", clock=lambda: 1000.0) as writer:
        yield writer


@pytest.fixture
def fill(writer: ResultsWriter, make_spec: Specs, trial_events: Events) -> Callable[..., None]:
    def fill(name: str, *values: float, **spec: object) -> None:
        writer.create_sweep(make_spec(name, **spec), grid=GRID, provenance={})
        for number, value in enumerate(values):
            writer.listener(name)(trial_events(number, [value]))

    return fill


def test_trials_of_several_sweeps_are_ordered_together(writer: ResultsWriter, fill: Callable[..., None]) -> None:
    fill("a", 0.5, 0.9)
    fill("b", 0.7)
    comparison = compare(open_results(writer.url), ["b", "a", "b"])
    assert list(zip(comparison.trials["sweep"], comparison.trials["value"], strict=True)) == [
        ("a", 0.9),
        ("b", 0.7),
        ("a", 0.5),
    ]
    rows = json_rows(comparison.best)
    assert [(row["sweep"], row["best_value"], row["best_trial"]) for row in rows] == [("b", 0.7, 0), ("a", 0.9, 1)]
    assert [row["difference"] for row in rows] == [pytest.approx(-0.2), 0.0]


def test_a_parameter_that_only_one_sweep_searches_is_the_others_fixed_setting(
    writer: ResultsWriter, fill: Callable[..., None]
) -> None:
    objective = {"metric": "accuracy", "direction": "maximize"}
    searched = {
        "batch_size": {"type": "categorical", "choices": [8, 16]},
        "lora_rank": {"type": "int", "low": 1, "high": 8},
    }
    fill("a", 0.5, study={"objective": objective, "parameters": searched}, training={"learning_rate": 1e-4})
    fill("b", 0.7)
    trials = compare(open_results(writer.url), ["a", "b"]).trials
    assert list(trials.columns) == [*TRIAL_COLUMNS, "batch_size", "lora_rank", "learning_rate", "scheduler"]
    assert trials["learning_rate"].tolist() == [3.2e-05, 1e-4]
    assert trials["lora_rank"].isna().all()
    assert str(trials["batch_size"].dtype) == "Int64"


def test_sweeps_of_different_objectives_are_kept_apart(writer: ResultsWriter, fill: Callable[..., None]) -> None:
    fill("a", 0.5, 0.9, direction="minimize")
    fill("b", 0.7, 0.8)
    comparison = compare(open_results(writer.url), ["a", "b"])
    assert comparison.trials["value"].tolist() == [0.5, 0.9, 0.8, 0.7]
    assert comparison.best["difference"].tolist() == [0.0, 0.0]


def test_a_sweep_without_a_result_has_no_difference(writer: ResultsWriter, fill: Callable[..., None]) -> None:
    fill("a", 0.5)
    fill("empty")
    comparison = compare(open_results(writer.url), ["a", "empty"])
    assert [row["difference"] for row in json_rows(comparison.best)] == [0.0, None]
    assert {name: str(dtype) for name, dtype in comparison.best.dtypes.items()} == BEST_COLUMNS
    assert len(comparison.trials) == 1


def test_tables_name_the_metric_if_there_is_one(
    writer: ResultsWriter, fill: Callable[..., None], trial_events: Events
) -> None:
    fill("a", 0.5, 0.9)
    fill("b", 0.7)
    fill("c", 0.7, metric="f1")
    writer.listener("b")(trial_events(1, [0.1], state=TrialState.PRUNED, reason="rung"))
    results = open_results(writer.url)
    best, trials = map(plain_text, comparison_tables(compare(results, ["a", "b"]), selection=Selection(top=2)))
    assert best.splitlines() == [
        "sweep  metric    best  difference  trial  complete  pruned  failed  time  examples  slot hours  GPU hours",
        "a      accuracy   0.9         0.0      1         2       0       0  0.0s       208         0.0        0.0",
        "b      accuracy   0.7        -0.2      0         1       1       0  0.0s       208         0.0        0.0",
    ]
    assert [line.split()[:4] for line in trials.splitlines()] == [
        ["sweep", "trial", "state", "accuracy"],
        ["a", "1", "COMPLETE", "0.9"],
        ["b", "0", "COMPLETE", "0.7"],
    ]
    assert "  value  " in plain_text(comparison_tables(compare(results, ["a", "c"]))[1])
    assert plain_text(comparison_tables(compare(results, ["a"]))[1]).startswith("trial  state")


def test_sweeps_must_be_named_and_known(writer: ResultsWriter, fill: Callable[..., None]) -> None:
    fill("a", 0.5)
    with pytest.raises(ResultsError, match="no sweep was named"):
        compare(open_results(writer.url), [])
    with pytest.raises(SweepNameError, match="'x' is not in"):
        compare(open_results(writer.url), ["a", "x"])


def test_sweeps_that_were_judged_on_other_data_are_never_ranked_together(
    writer: ResultsWriter, make_spec: Specs, trial_events: Events
) -> None:
    for name, data, value in (("a", "one", 0.5), ("b", "two", 0.9), ("c", "one", 0.6)):
        writer.create_sweep(make_spec(name), grid=GRID, provenance={"data_fingerprint": data})
        writer.listener(name)(trial_events(0, [value]))
    results = open_results(writer.url)
    comparison = compare(results, ["a", "b", "c"])
    assert list(comparison.trials["sweep"]) == ["a", "b", "c"]  # as they were named, not by value
    assert list(comparison.best["difference"].round(6)) == [-0.1, 0.0, 0.0]
    assert list(comparison.best["judged_on"]) == ["data 1", "data 2", "data 1"]
    alike = compare(results, ["a", "c"])
    assert list(alike.trials["sweep"]) == ["c", "a"]
    assert alike.best["judged_on"].isna().all()
