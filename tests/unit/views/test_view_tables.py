from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from finesweep.errors import ResultsError
from finesweep.events import (
    AttemptStarted,
    Decision,
    Event,
    Grid,
    Report,
    Reported,
    Source,
    TrialFinished,
    TrialState,
    TrialSuggested,
)
from finesweep.results.columns import FACT_COLUMNS, JOB_COLUMNS
from finesweep.results.frames import Results, open_results
from finesweep.results.writer import ResultsWriter, open_writer
from finesweep.spec.sweep import SweepSpec
from finesweep.views.printing import MOST_DRAWN, duration_text, number_texts, plain_text, show
from finesweep.views.selection import Selection
from finesweep.views.tables import Column, Table, leaderboard, sweeps_table

Specs = Callable[..., SweepSpec]
Events = Callable[..., list[Event]]


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[ResultsWriter]:
    with open_writer(tmp_path / "r.db", clock=lambda: 1000.0) as writer:
        yield writer


@pytest.fixture
def results(writer: ResultsWriter, make_spec: Specs, trial_events: Events) -> Results:
    """Hold a sweep with a trial of every state."""
    writer.create_sweep(make_spec(), grid=Grid("examples", 100, 1000), provenance={})
    listener = writer.listener("tickets")
    listener(trial_events(0, [0.5, 0.6]))
    listener(trial_events(1, [0.9], state=TrialState.PRUNED, reason="rung"))
    listener(trial_events(2, [0.4], state=TrialState.FAILED, reason="out of \x1b[31mmemory\nat step 4"))
    listener(trial_events(3, [0.7, 0.8]))
    listener(trial_events(4, [0.1, 0.1], state=TrialState.PRUNED, reason="rung"))
    listener(trial_events(5, [0.2], state=None))
    listener([TrialSuggested(6, {}, {}, {}, Source.SAMPLER, {}, {})])
    twin = TrialSuggested(7, {"batch_size": 8}, {}, {}, Source.SAMPLER, {}, {}, twin_of=3)
    listener([twin, TrialFinished(7, TrialState.COMPLETE, None, 0.8, 200, reused_from=3)])
    return open_results(writer.url, clock=lambda: 1000.0)


def numbers(table: Table) -> list[int]:
    return [row["number"] for row in table.rows]


def test_trials_are_ordered_best_first(results: Results) -> None:
    assert numbers(leaderboard(results, "tickets")) == [3, 7, 0, 4, 1, 2, 5, 6]
    assert numbers(leaderboard(results, "tickets", selection=Selection(top=2))) == [3, 7]


def test_minimized_objectives_have_the_least_first(
    writer: ResultsWriter, make_spec: Specs, trial_events: Events
) -> None:
    writer.create_sweep(make_spec(direction="minimize"), grid=Grid("examples", 100, 1000), provenance={})
    writer.listener("tickets")([*trial_events(0, [0.5]), *trial_events(1, [0.2]), *trial_events(2, [0.3])])
    assert numbers(leaderboard(open_results(writer.url), "tickets")) == [1, 2, 0]


def test_rows_are_json(results: Results) -> None:
    row = json.loads(json.dumps(leaderboard(results, "tickets").rows))[2]
    assert row == {
        "number": 0,
        "state": "COMPLETE",
        "value": 0.6,
        "value_step": 200,
        "learning_rate": 3.2e-05,
        "batch_size": 16,
        "scheduler": "cosine",
        "examples_seen": 204,
        "duration_s": 0.0,
        "reused_from": None,
        "reason": None,
        "clamped_warmup": None,
        **dict.fromkeys((*FACT_COLUMNS, *JOB_COLUMNS)),
    }


def test_warmup_is_a_column_where_some_trial_had_less_than_asked(
    writer: ResultsWriter, make_spec: Specs, trial_events: Events
) -> None:
    writer.create_sweep(make_spec(), grid=Grid("examples", 100, 1000), provenance={})
    for number, effective in enumerate((1000, 1000, 40)):
        writer.listener("tickets")(
            trial_events(number, facts={"warmup_steps_asked": 1000, "warmup_steps": effective, "n_trainable": 5})
        )
    everything = leaderboard(open_results(writer.url), "tickets")
    as_asked = Table(everything.columns, everything.rows[:2])
    assert "warm-up" not in plain_text(as_asked)
    header, *_, last = plain_text(everything).splitlines()
    assert last[header.index("warm-up") :].startswith("40 of 1,000  ")
    assert "n_trainable" not in header
    row = everything.rows[2]
    assert (row["asked_warmup_steps"], row["effective_warmup_steps"], row["n_trainable"]) == (1000, 40, 5)


def test_plain_text_is_aligned_and_free_of_controls(results: Results) -> None:
    lines = plain_text(leaderboard(results, "tickets", selection=Selection(top=6))).splitlines()
    assert lines == [
        "trial  state     accuracy  step  learning_rate  batch_size  scheduler  examples  time  reused from  reason",
        "    3  COMPLETE       0.8   200        3.2e-05          16     cosine       204  0.0s",
        "    7  COMPLETE       0.8   200                          8                    0                  3",
        "    0  COMPLETE       0.6   200        3.2e-05          16     cosine       204  0.0s",
        "    4  PRUNED                          3.2e-05          16     cosine       204  0.0s               rung",
        "    1  PRUNED                          3.2e-05          16     cosine       104  0.0s               rung",
        "    2  FAILED                          3.2e-05          16     cosine       104  0.0s               "
        "out of  [31mmemory at step 4",
    ]


def test_pipes_get_no_colours_and_terminals_do(results: Results) -> None:
    table = leaderboard(results, "tickets")
    pipe, terminal = io.StringIO(), io.StringIO()
    show(table, Console(file=pipe))
    show(table, Console(file=terminal, force_terminal=True, width=200, color_system="standard"))
    assert pipe.getvalue() == f"{plain_text(table)}\n"
    assert "\x1b[31m" not in pipe.getvalue()
    assert "\x1b[32mCOMPLETE" in terminal.getvalue()
    assert "\x1b[31mmemory" not in terminal.getvalue()


def test_very_many_rows_are_plain_on_a_terminal_too() -> None:
    """Drawn with lines and colours, ten thousand took nine seconds."""
    table = Table((Column("state", "state", "text"),), ({"state": "COMPLETE"},) * (MOST_DRAWN + 1))
    terminal = io.StringIO()
    show(table, Console(file=terminal, force_terminal=True, width=200, color_system="standard"))
    assert terminal.getvalue() == f"{plain_text(table)}\n"


def test_metrics_are_those_at_the_trials_value(writer: ResultsWriter, results: Results) -> None:
    report = Report(100, {"accuracy": 0.1, "f1": math.inf}, 100)
    started = [TrialSuggested(8, {}, {}, {}, Source.SAMPLER, {}, {}), AttemptStarted(8, 1)]
    writer.listener("tickets")([*started, Reported(8, 1, report, Decision.CONTINUE, {})])
    table = leaderboard(results, "tickets", metrics=["loss", "accuracy", "f1", "loss"])
    found = {row["number"]: (row["metrics.loss"], row["metrics.f1"]) for row in table.rows}
    assert found[3] == (0.5, None)  # the value came from the second report
    assert found[7] == (0.5, None)  # reused: of the trial that was trained
    assert found[1] == (1.0, None)  # no value: the last report
    assert found[6] == (None, None)
    assert found[8] == (None, "inf")
    assert [column.header for column in table.columns][4:6] == ["loss", "f1"]
    assert numbers(table)[0] == 3


def test_unknown_metrics_are_answered_with_known_ones(
    writer: ResultsWriter, results: Results, make_spec: Specs
) -> None:
    with pytest.raises(
        ResultsError, match=r"metric 'los' was not reported in sweep 'tickets'\. Reported: accuracy, loss\."
    ):
        leaderboard(results, "tickets", metrics=["los"])
    writer.create_sweep(make_spec("new"), grid=Grid("examples", 100, 1000), provenance={})
    with pytest.raises(ResultsError, match=r"Reported: none yet\."):
        leaderboard(results, "new", metrics=["loss"])
    assert leaderboard(results, "new").rows == ()
    assert plain_text(leaderboard(results, "new")).startswith("trial  state  accuracy  step")


def test_sweeps_are_listed_newest_first(writer: ResultsWriter, results: Results, make_spec: Specs) -> None:
    writer.create_sweep(make_spec("later"), grid=Grid("examples", 100, 1000), provenance={})
    table = sweeps_table(results)
    assert [row["sweep"] for row in table.rows] == ["later", "tickets"]
    lines = plain_text(table).splitlines()
    header, _, tickets = (" ".join(line.split()) for line in lines)
    assert (
        header == "sweep state best metric trial complete pruned failed running interrupted waiting budget time created"
    )
    assert tickets == "tickets NEW 0.8 accuracy 3 3 2 1 0 1 1 10 0.0s 1970-01-01T00:16:40+00:00"


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([3.2e-05, 1e-3, 0.0, None], ["3.2e-05", "1.0e-03", "0", ""]),
        ([0.25, 0.8731234, None], ["0.2500", "0.8731", ""]),
        ([1.0, 2.0], ["1.0", "2.0"]),
        ([0.005, 0.001], ["5.0e-03", "1.0e-03"]),
        ([0.5, "inf"], ["0.5", "inf"]),
        ([12345678.9], ["1.2e+07"]),
        ([8, 16, None], ["8", "16", ""]),
        ([True, "a"], ["true", "a"]),
        ([-3.2e-05, 0.5], ["-3.2e-05", "5.0e-01"]),
        ([], []),
    ],
)
def test_numbers_of_a_column_are_written_alike(values: list[Any], texts: list[str]) -> None:
    assert number_texts(values) == texts


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, ""), (0.0, "0.0s"), (59.94, "59.9s"), (59.96, "1m00s"), (185, "3m05s"), (3599.7, "1h00m"), (7440, "2h04m")],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert duration_text(seconds) == text


def test_wide_letters_are_aligned() -> None:
    table = Table((Column("a", "a", "text"), Column("n", "n")), ({"a": "日本", "n": 1}, {"a": "x", "n": 10}))
    assert plain_text(table) == "a      n\n日本   1\nx     10"
