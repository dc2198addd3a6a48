"""Several objectives in tables: a column for each, and the trials on the front marked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from finesweep.events import Event, Grid, TrialState
from finesweep.results.columns import ON_FRONT, TRIAL_COLUMNS
from finesweep.results.frames import open_results
from finesweep.results.writer import ResultsWriter, open_writer
from finesweep.spec.sweep import SweepSpec
from finesweep.views.compare import BEST_COLUMNS, compare, comparison_tables
from finesweep.views.printing import number_texts, plain_text
from finesweep.views.tables import leaderboard

Fill = Callable[..., None]


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[ResultsWriter]:
    with open_writer(tmp_path / "r.db", clock=lambda: 1000.0) as writer:
        yield writer


@pytest.fixture
def fill(writer: ResultsWriter, make_spec: Callable[..., SweepSpec], trial_events: Callable[..., list[Event]]) -> Fill:
    """Store a sweep of accuracy and size."""

    def fill(name: str, *values: tuple[float, float], others: str | None = "size") -> None:
        further = {others: "minimize"} if others else {}
        writer.create_sweep(make_spec(name, others=further), grid=Grid("examples", 100, 1000), provenance={})
        for number, (accuracy, size) in enumerate(values):
            events = trial_events(number, [accuracy], others=dict.fromkeys(further, (size,)), configuration={})
            writer.listener(name)(events)

    return fill


def test_the_leaderboard_marks_the_front_and_shows_it_first(
    writer: ResultsWriter, fill: Fill, trial_events: Callable[..., list[Event]]
) -> None:
    fill("a", (0.5, 2e7), (0.9, 66362880.0), (0.8, 1e8), (0.7, 3e7))
    writer.listener("a")(trial_events(4, [0.99], state=TrialState.PRUNED, reason="rung", others={"size": (1.0,)}))
    table = leaderboard(open_results(writer.url), "a", metrics=["size", "loss"])
    lines = [" ".join(line.split()[:6]) for line in plain_text(table).splitlines()]
    assert lines == [
        "trial front state accuracy size step",
        "1 * COMPLETE 0.9 66362880 100",
        "3 * COMPLETE 0.7 30000000 100",
        "0 * COMPLETE 0.5 20000000 100",
        "2 COMPLETE 0.8 100000000 100 1.0",
        "4 PRUNED 1.0 3.2e-05 16 cosine",  # neither value nor size: the loss, then its configuration
    ]
    assert [row[ON_FRONT] for row in table.rows] == [True, True, True, False, False]
    assert table.rows[0]["objective.size"] == 66362880.0


def test_sweeps_of_the_same_objectives_have_one_front(writer: ResultsWriter, fill: Fill) -> None:
    fill("a", (0.5, 2.0), (0.9, 5.0))
    fill("b", (0.6, 1.0), (0.7, 9.0))
    comparison = compare(open_results(writer.url), ["a", "b"])
    assert list(comparison.trials.columns)[: len(TRIAL_COLUMNS) + 2] == [*TRIAL_COLUMNS, "objective.size", ON_FRONT]
    shown = list(zip(comparison.trials["sweep"], comparison.trials["number"], comparison.trials[ON_FRONT], strict=True))
    assert shown == [("a", 1, True), ("b", 0, True), ("b", 1, False), ("a", 0, False)]
    assert comparison.best["on_front"].tolist() == [1, 1]
    best, trials = map(plain_text, comparison_tables(comparison))
    assert best.splitlines()[0].split()[:7] == ["sweep", "metric", "best", "difference", "trial", "on", "front"]
    assert trials.splitlines()[0].split()[:6] == ["sweep", "trial", "front", "state", "accuracy", "size"]


def test_sweeps_of_other_objectives_keep_their_fronts_apart(writer: ResultsWriter, fill: Fill) -> None:
    fill("a", (0.5, 2.0), (0.9, 5.0))
    fill("b", (0.6, 1.0), (0.7, 0.5), others="seconds")
    fill("c", (0.6, 1.0), others=None)
    fill("empty")
    comparison = compare(open_results(writer.url), ["a", "b", "c", "empty"])
    trials = comparison.trials
    assert [*trials.columns][len(TRIAL_COLUMNS) :][:3] == ["objective.size", "objective.seconds", ON_FRONT]
    assert trials["objective.seconds"].isna().tolist() == [True, True, False, False, True]
    assert comparison.best["on_front"].tolist()[:2] == [2, 1]
    assert comparison.best["on_front"].isna().tolist() == [False, False, True, True]
    assert {name: str(dtype) for name, dtype in comparison.best.dtypes.items()} == BEST_COLUMNS


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([66362880.0, 1.0, None], ["66362880", "1", ""]),
        ([12345.0, 0.5], ["12345.0", "0.5"]),
        ([123.0, 4.0], ["123.0", "4.0"]),
        ([1e300], ["1.0e+300"]),
    ],
)
def test_large_counts_are_written_in_full(values: list[float], texts: list[str]) -> None:
    assert number_texts(values) == texts
