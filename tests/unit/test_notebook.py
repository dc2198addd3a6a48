"""Results as a notebook meets them; every plot agrees with the frame behind it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, distribution_to_json

from finesweep import open_results
from finesweep.errors import ResultsError
from finesweep.events import Event, Grid, Reported, TrialState, TrialSuggested
from finesweep.notebook import IMPORTANCE_COLUMNS, Results
from finesweep.results.writer import open_writer
from finesweep.spec.sweep import SweepSpec

Specs = Callable[..., SweepSpec]
Events = Callable[..., list[Event]]

STUDY = {
    "objective": {"metric": "accuracy", "direction": "maximize"},
    "pruner": {"type": "asha", "first_rung": 100, "reduction_factor": 2},
    "parameters": {
        "learning_rate": {"type": "float", "low": 1e-5, "high": 1e-1, "log": True},
        "batch_size": {"type": "categorical", "choices": [8, 16, 32]},
    },
}
OBJECTIVES = [{"metric": "accuracy", "direction": "maximize"}, {"metric": "size", "direction": "minimize"}]
TWO = {**STUDY, "objective": OBJECTIVES}
DISTRIBUTIONS = {
    "learning_rate": distribution_to_json(FloatDistribution(1e-5, 1e-1, log=True)),
    "batch_size": distribution_to_json(CategoricalDistribution([8, 16, 32])),
}
N_COMPLETE = 20


@pytest.fixture
def results(tmp_path: Path, make_spec: Specs, trial_events: Events) -> Iterator[Results]:
    """Keep a sweep of twenty COMPLETE trials, a PRUNED and a FAILED one, and one of two objectives."""
    now_s = iter(range(1000, 10**6))
    chance = random.Random(0)
    with open_writer(tmp_path / "r.db", clock=lambda: float(next(now_s))) as writer:
        writer.create_sweep(make_spec(study=STUDY), grid=Grid("examples", 100, 400), provenance={})
        writer.create_sweep(make_spec("two", study=TWO), grid=Grid("examples", 100, 400), provenance={})
        writer.create_sweep(make_spec("empty", study=STUDY), grid=Grid("examples", 100, 400), provenance={})

        def configuration() -> dict[str, Any]:
            return {"learning_rate": 10 ** chance.uniform(-5, -1), "batch_size": chance.choice([8, 16, 32])}

        def run_of(number: int, values: list[float], **options: Any) -> list[Event]:
            suggested, *rest = trial_events(number, values, configuration=configuration(), **options)
            assert isinstance(suggested, TrialSuggested)
            return [replace(suggested, distributions=DISTRIBUTIONS), *rest]

        facts = {"node": "10.0.0.1", "gpu_ids": ["1"], "pid": 7}
        for number in range(N_COMPLETE):
            values = [0.01 * number, 0.01 * number + 0.005]
            writer.listener("tickets")(run_of(number, values, facts=facts))
            writer.listener("two")(run_of(number, values, others={"size": [9.0, 5.0 - abs(number - 3)]}))
        writer.listener("tickets")(run_of(N_COMPLETE, [0.99], state=TrialState.PRUNED, reason="rung"))
        writer.listener("tickets")(run_of(N_COMPLETE + 1, [0.98], state=TrialState.FAILED, reason="no luck"))
        yield open_results(writer.url)


def test_devices_are_drawn_as_their_workers_told(tmp_path: Path, make_spec: Specs, trial_events: Events) -> None:
    now_s = iter(range(1000, 10**6))
    with open_writer(tmp_path / "d.db", clock=lambda: float(next(now_s))) as writer:
        writer.create_sweep(make_spec(study=STUDY), grid=Grid("examples", 100, 400), provenance={})
        for number in range(3):
            told = []
            for event in trial_events(number, (0.5, 0.6), facts={"node": "n", "pid": number % 2}):
                if isinstance(event, Reported):
                    memory = {"memory_gib": 1.0 + number} if number < 2 else {}
                    event = replace(event, report=replace(event.report, telemetry=memory))
                told.append(event)
            writer.listener("tickets")(told)
        results = open_results(writer.url)
    drawn = traces(results.plot.devices("tickets", of="memory_gib"))
    assert {name: list(trace.y) for name, trace in drawn.items()} == {"n cpu pid 0": [1, 1], "n cpu pid 1": [2, 2]}
    assert all(list(trace.x) == sorted(trace.x) for trace in drawn.values())
    with pytest.raises(ResultsError, match="No report of sweep 'tickets' told the use of the device"):
        results.plot.devices("tickets")
    with pytest.raises(ResultsError, match="Known: device_use, memory_gib"):
        results.plot.devices("tickets", of="heat")


def traces(figure: Any) -> dict[str, Any]:
    return {trace.name: trace for trace in figure.data}


def test_curves_are_the_points_of_each_state_and_the_incumbent_is_bold(results: Results) -> None:
    figure = results.plot.curves("tickets")
    drawn = traces(figure)
    assert set(drawn) == {"COMPLETE", "PRUNED", "FAILED", "best: trial 19"}
    points = results.points("tickets")
    points = points[points["metric"] == "accuracy"]
    shown = sorted(y for trace in figure.data for y in trace.y if y is not None)
    assert shown == pytest.approx(sorted(points["value"]))
    assert [y for y in drawn["best: trial 19"].y if y is not None] == pytest.approx([0.19, 0.195])
    assert drawn["best: trial 19"].line.width > drawn["COMPLETE"].line.width > drawn["PRUNED"].line.width
    assert [line.x0 for line in figure.layout.shapes] == [100, 200], "the rungs that any trial has reached"
    assert "learning_rate=" in drawn["PRUNED"].text[0]


def test_a_trial_of_one_curve_is_not_joined_to_the_next(results: Results) -> None:
    trace = traces(results.plot.curves("tickets"))["COMPLETE"]
    assert list(trace.y).count(None) == N_COMPLETE - 1
    assert not trace.connectgaps


def test_parallel_coordinates_hold_the_complete_trials_over_the_range_of_the_study(results: Results) -> None:
    [plot] = results.plot.parallel("tickets").data
    rate, size, value = plot.dimensions
    trials = results.trials("tickets")
    complete = trials[trials["state"] == "COMPLETE"]
    assert [10**power for power in rate["values"]] == pytest.approx(list(complete["learning_rate"]))
    assert list(rate.range) == [-5, -1]
    assert list(rate.ticktext) == ["1e-05", "0.0001", "0.001", "0.01", "0.1"]
    assert [int(size.ticktext[place]) for place in size["values"]] == list(complete["batch_size"])
    assert list(value["values"]) == list(complete["value"])


def test_the_timeline_is_the_attempts_in_their_slots(results: Results) -> None:
    figure = results.plot.timeline("tickets")
    attempts = results.attempts("tickets")
    shown = sorted(float(x) for trace in figure.data for x in trace.x)
    taken = (attempts["ended_at"] - attempts["started_at"]).dt.total_seconds()
    assert shown == pytest.approx(sorted(taken))
    assert set(traces(figure)["COMPLETE"].y) == {"10.0.0.1 gpu 1 pid 7"}


def test_a_front_is_marked_and_is_the_frames_front(results: Results) -> None:
    front = traces(results.plot.pareto("two"))["front"]
    frame = results.pareto("two")
    assert sorted(front.x) == pytest.approx(sorted(frame["value"]))
    assert sorted(front.y) == pytest.approx(sorted(frame["objective.size"]))
    assert list(frame["number"]) == [trial.number for trial in results.front("two")]
    with pytest.raises(ResultsError, match="a front needs two"):
        results.plot.pareto("tickets")


def test_with_one_objective_the_front_is_the_best_alone(results: Results) -> None:
    assert list(results.pareto("tickets")["number"]) == [19]
    assert results.pareto("empty").empty


def test_importances_are_a_frame_of_documented_columns_and_the_plot_shows_it(results: Results) -> None:
    frame = results.importances("tickets")
    assert {name: str(dtype) for name, dtype in frame.dtypes.items()} == IMPORTANCE_COLUMNS
    assert frame["importance"].sum() == pytest.approx(1)
    assert (frame["n_trials"] == N_COMPLETE).all()
    [bars] = results.plot.importance("tickets").data
    assert dict(zip(bars.y, bars.x, strict=True)) == dict(zip(frame["parameter"], frame["importance"], strict=True))
    with pytest.raises(ResultsError, match="'f1' is no objective"):
        results.importances("tickets", metric="f1")
    assert len(results.importances("two", metric="size")) == 2


def test_where_there_is_nothing_to_draw_that_is_said(results: Results) -> None:
    for name in ("curves", "parallel", "timeline", "importance"):
        with pytest.raises(ResultsError, match="sweep 'empty' has"):
            getattr(results.plot, name)("empty")
    assert results.importances("empty").empty


def test_a_notebook_shows_the_sweeps_and_no_password(results: Results) -> None:
    page = results._repr_html_()
    assert '<td style="text-align: left">tickets</td>' in page
    assert "secret" not in repr(Results("postgresql+psycopg://user:secret@host/name"))


def test_a_report_opens_without_a_network_and_runs_nothing_that_stands_in_the_sweep(
    tmp_path: Path, make_spec: Specs, trial_events: Events
) -> None:
    evil = "</script><script>alert(1)</script>"
    study = {**STUDY, "parameters": {"note": {"type": "categorical", "choices": [evil, "b"]}}}
    with open_writer(tmp_path / "evil.db") as writer:
        writer.create_sweep(make_spec(study=study), grid=Grid("examples", 100, 400), provenance={"host": evil})
        listen = writer.listener("tickets")
        listen(trial_events(0, [0.5, 0.6], configuration={"note": evil}))
        listen(trial_events(1, [0.5], configuration={"note": "b"}, state=TrialState.FAILED, reason=evil))
    page = open_results(tmp_path / "evil.db").report("tickets")
    own = page.partition("</head>")[2]
    assert "alert(1)" in own, "it is shown"
    assert evil not in own
    assert "<script>alert" not in own
    for way_out in ('src="http', "src='http", 'href="http', "@import", "url(http"):
        assert way_out not in own


def test_a_report_says_what_the_plots_and_the_table_show(results: Results) -> None:
    page = results.report("tickets")
    assert "The best accuracy is 0.195, of trial 19 at step 200" in page
    for title in ("Learning curves", "Parallel coordinates", "Importance", "Timeline", "Trials", "Provenance"):
        assert f"<h2>{title}</h2>" in page
    assert "<h2>Front</h2>" not in page
    assert "<h2>Front</h2>" in results.report("two")
    assert "No trial is complete yet." in results.report("empty")
