"""Every page of the dashboard, and that what it shows agrees with the frames behind it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable

import pytest
from starlette.testclient import TestClient
from tests.unit.dashboard.conftest import SCRIPT

from finesweep.dashboard.figures import sample
from finesweep.events import Event, Grid, TrialState
from finesweep.export.record import export_record
from finesweep.export.record_text import export_text
from finesweep.notebook import Results
from finesweep.results.schema import SweepState
from finesweep.results.writer import ResultsWriter
from finesweep.spec.sweep import SweepSpec
from finesweep.verification.plan import Arm, VerificationPlan, created_at, verification_spec

EVERY_PAGE = [
    "/",
    "/?search=tick",
    "/parts/sweeps",
    "/compare",
    "/compare?sweep=tickets&sweep=two&sweep=empty",
    "/sweep/tickets",
    "/sweep/two",
    "/sweep/empty",
    *(f"/sweep/tickets/parts/{part}" for part in ("head", "findings", "running", "trials", "failures")),
    *(f"/sweep/tickets/trial/{number}" for number in range(5)),
    *(f"/sweep/tickets/trial/0/parts/{part}" for part in ("outcome", "attempts", "log")),
]


@pytest.mark.parametrize("address", EVERY_PAGE)
def test_a_page_answers_and_a_script_in_the_database_is_text_on_it(client: TestClient, address: str) -> None:
    answer = client.get(address)
    assert answer.status_code == 200
    assert SCRIPT not in answer.text
    assert not re.search(r"<script(?![^>]*\bsrc=)", answer.text), "no inline script"
    assert " style=" not in answer.text


def test_hostile_texts_are_shown_as_they_are(client: TestClient) -> None:
    assert "boom &lt;script&gt;" in client.get("/sweep/tickets/parts/failures").text
    assert "&lt;script&gt;" in client.get("/sweep/tickets/trial/4/parts/attempts").text
    assert "&lt;script&gt;" in client.get("/sweep/tickets/trial/0/parts/log").text


@pytest.mark.parametrize(
    "address",
    [
        "/sweep/nope",
        "/sweep/nope/trial/0",
        "/sweep/nope/figures/curves",
        "/sweep/tickets/trial/99",
        "/sweep/tickets/trial/99999999999999999999",
        "/sweep/tickets/trial/-1",
        "/sweep/tickets/parts/nope",
        "/sweep/tickets/parts/..%2f..%2fbase",
        "/sweep/%3Cscript%3E",
        "/compare?sweep=nope",
        "/nope",
    ],
)
def test_what_is_not_there_is_said_to_be_missing(client: TestClient, address: str) -> None:
    answer = client.get(address)
    assert answer.status_code == 404
    assert "<script>" not in answer.text


def test_the_first_page_finds_sweeps_and_says_when_it_finds_none(client: TestClient) -> None:
    assert "/sweep/two" in client.get("/?search=TWO").text
    assert "/sweep/tickets" not in client.get("/?search=two").text
    assert "No sweep is found by" in client.get("/?search=zebra").text


def test_a_sweep_without_trials_says_so_in_each_place(client: TestClient) -> None:
    page = client.get("/sweep/empty").text
    assert "No trial is complete yet." in page
    assert "No trial has been suggested yet." in page
    assert "No trial has failed." in page
    for plot in ("curves", "importance", "timeline", "best-so-far", "slice?of=batch_size"):
        assert set(client.get(f"/sweep/empty/figures/{plot}").json()) == {"nothing"}


def test_curves_are_the_points_of_the_frame(client: TestClient, results: Results) -> None:
    figure = client.get("/sweep/tickets/figures/curves").json()
    drawn = sorted(y for trace in figure["data"] for y in trace["y"] if y is not None)
    points = results.points("tickets")
    assert drawn == sorted(points.loc[points["metric"] == "accuracy", "value"])
    assert client.get("/sweep/tickets/figures/curves?of=loss").json()["layout"]["yaxis"]["title"]["text"] == "loss"


def test_a_failed_trial_never_leads(client: TestClient) -> None:
    """Trial 4 reported 0.99 and failed; the best COMPLETE one came to 0.7."""
    assert "0.7</a> (trial 2)" in client.get("/sweep/tickets/parts/head").text
    line = client.get("/compare/figures/trials?sweep=tickets").json()["data"][0]
    assert max(_numbers(line["y"])) == pytest.approx(0.7)
    assert client.get("/sweep/tickets/parallel").json()["numbers"] == [0, 1, 2]


def test_brushes_can_name_every_axis_and_its_values(client: TestClient) -> None:
    axes = client.get("/sweep/tickets/parallel").json()["axes"]
    assert [(axis["column"], axis["kind"]) for axis in axes] == [
        ("learning_rate", "log"),
        ("batch_size", "choice"),
        ("lr_scheduler_type", "choice"),
        ("value", "linear"),
    ]
    assert [tick["literal"] for tick in axes[1]["ticks"]] == ["8", "16", "32"]
    assert '"cosine"' in [tick["literal"] for tick in axes[2]["ticks"]]
    assert all(0 <= place <= 1 for axis in axes for place in axis["places"])
    low, high = axes[0]["range"]
    assert [round(low + place * (high - low)) for place in axes[0]["places"]] == [-2, -3, -4]


def test_the_table_is_filtered_sorted_and_links_to_the_trials(client: TestClient) -> None:
    table = client.get("/sweep/tickets/parts/trials", params={"where": "state == 'COMPLETE' and value > 0.55"}).text
    assert "1 to 2</span> of 2 trials that match, of 5" in table
    assert re.findall(r"/sweep/tickets/trial/(\d)", table) == ["2", "1"]
    table = client.get("/sweep/tickets/parts/trials", params={"sort": "number"}).text
    assert re.findall(r"/sweep/tickets/trial/(\d)", table) == ["0", "1", "2", "3", "4"]
    assert 'aria-sort="ascending"' in table


@pytest.mark.parametrize(
    "where", ["nope > 1", "__import__('os')", "value >", "().__class__", "9**9**9 > 1", "<script>alert(1)</script>"]
)
def test_a_condition_that_is_none_is_told_and_not_run(client: TestClient, where: str) -> None:
    table = client.get("/sweep/tickets/parts/trials", params={"where": where})
    assert table.status_code == 200
    assert 'role="alert"' in table.text
    assert "<script>" not in table.text


@pytest.mark.parametrize("page", ["0", "-3", "99999", "x", "１"])
def test_a_page_that_is_none_shows_the_nearest(client: TestClient, page: str) -> None:
    assert "1 to 5</span> of 5 trials" in client.get("/sweep/tickets/parts/trials", params={"page": page}).text


def test_a_trial_shows_what_its_configuration_came_to(client: TestClient) -> None:
    page = client.get("/sweep/tickets/trial/1").text
    for said, value in (("rows on the device at once", "8"), ("batches added up before a step", "2")):
        assert f"<dt>{said}</dt><dd>{value}</dd>" in page
    assert "<dt>warm-up steps there are</dt><dd>20</dd>" in page


def test_a_pruned_trial_says_where_it_stood(client: TestClient) -> None:
    page = client.get("/sweep/tickets/trial/3/parts/outcome").text
    assert "stopped at 104 examples (rung) with accuracy 0.05: number 5 of the 5 trials that have reported" in page


def test_export_is_the_file_that_the_command_line_writes(client: TestClient, results: Results) -> None:
    answer = client.get("/sweep/tickets/trial/2/export.json")
    assert answer.text == export_text(export_record(results, "tickets", 2))
    assert json.loads(answer.text)["trial"] == 2
    assert answer.headers["content-disposition"] == 'attachment; filename="tickets-2.json"'
    assert client.get("/sweep/tickets/trial/3/export.json").status_code == 409  # it is PRUNED


def test_sweeps_that_are_judged_otherwise_stand_apart(client: TestClient) -> None:
    page = client.get("/compare?sweep=tickets&sweep=two").text
    assert "2 groups, which are not ranked together" in page
    assert page.count("Best of each sweep</caption>") == 2
    assert "/compare/figures/front?sweep=two" in page
    front = client.get("/compare/figures/front?sweep=two").json()["data"][0]
    assert front["marker"]["symbol"] == ["diamond", "diamond"]


def test_a_report_changes_the_mark_and_the_parts(
    client: TestClient, writer: ResultsWriter, trial_events: Callable[..., list[Event]]
) -> None:
    before = client.get("/marks?sweep=tickets").json()
    assert client.get("/marks?sweep=tickets").json() == before
    tag = client.get("/sweep/tickets/parts/trials").headers["etag"]
    assert client.get("/sweep/tickets/parts/trials", headers={"If-None-Match": tag}).status_code == 304
    seen = {before["tickets"]}
    events = trial_events(5, (0.2, 0.3), state=None)
    for event in events:
        writer.listener("tickets")([event])
        seen.add(client.get("/marks?sweep=tickets").json()["tickets"])
    assert len(seen) >= len(events), "all but the description of an attempt is news"
    fresh = client.get("/sweep/tickets/parts/trials", headers={"If-None-Match": tag})
    assert fresh.status_code == 200
    assert "of 6 trials" in fresh.text
    assert client.get("/marks?sweep=two").json() == {"two": client.get("/marks").json()["two"]}


def test_the_same_sample_of_a_large_sweep_is_drawn_each_time(results: Results) -> None:
    trials = results.trials("tickets")
    assert sample(trials, 10, maximize=True) == [2, 1, 0, 3, 4]
    assert sample(trials, 4, maximize=True) == sample(trials, 4, maximize=True) == [2, 1, 0, 3]
    running = trials.assign(state=[*trials["state"][:4], TrialState.RUNNING])
    assert sample(running, 3, maximize=True)[0] == 4


def _numbers(values: object) -> list[float]:
    """Read a column of a figure, which plotly may have packed."""
    if isinstance(values, dict):
        import base64

        import numpy as np

        return [float(v) for v in np.frombuffer(base64.b64decode(values["bdata"]), values["dtype"])]
    assert isinstance(values, list)
    return [float(value) for value in values if value is not None and math.isfinite(value)]


def test_a_verification_is_shown_with_its_sweep_and_follows_it(
    client: TestClient,
    results: Results,
    writer: ResultsWriter,
    make_spec: Callable[..., SweepSpec],
    trial_events: Callable[..., list[Event]],
) -> None:
    assert "finesweep verify tickets" in client.get("/sweep/tickets/parts/findings").text
    configuration = dict(results.trial("tickets", 2).configuration)
    plan = VerificationPlan(
        of="tickets",
        created_at=created_at(results, "tickets"),
        arms=(Arm(label="trial 2", trial=2, configuration=configuration, search_value=0.7),),
        baselines=(None,),
        race_seeds=(),
        seeds=(1, 2, 3),
    )
    spec = verification_spec(results.spec("tickets"), plan, "tickets-verify")
    writer.create_sweep(
        spec, grid=Grid("examples", 100, 400), provenance={"verification": plan.model_dump(mode="json")}
    )
    take = writer.listener("tickets-verify")
    for number, value in enumerate((0.6, 0.7)):
        take(trial_events(number, [value], configuration={**configuration, "seed": number + 1}))
    assert "2 of at most 3 trainings have ended" in client.get("/sweep/tickets/parts/findings").text
    lost = trial_events(
        2, [0.1], configuration={**configuration, "seed": 3}, state=TrialState.FAILED, reason=f"boom {SCRIPT}"
    )
    take(lost)
    writer.set_state("tickets-verify", SweepState.FINISHED)
    for name in ("tickets", "tickets-verify"):
        shown = client.get(f"/sweep/{name}/parts/findings").text
        assert "Verified over 2 seeds of 3, the others came to nothing: 0.65 ± 0.64" in shown
        assert "boom &lt;script&gt;" in shown and SCRIPT not in shown
        assert '<a href="/sweep/tickets/trial/2">2</a>' in shown
