"""What is shown of trials that are jobs of a fine-tuning server, beside trials that were trained here."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from html import unescape
from pathlib import Path
from typing import Any

import jsonschema
import pandas as pd
import pytest
from starlette.testclient import TestClient

from finesweep.dashboard.app import make_app
from finesweep.errors import ResultsError
from finesweep.events import AttemptDescribed, AttemptStarted, Event, Grid, TrialState
from finesweep.export.record import export_record
from finesweep.export.record_file import json_schema
from finesweep.export.targets import export_to
from finesweep.notebook import open_results
from finesweep.production.reproduce import subject
from finesweep.remote.forecast import most_cost
from finesweep.results.cost import sweep_cost
from finesweep.results.frames import Results
from finesweep.results.jobs import job_cost
from finesweep.results.lease import Holder
from finesweep.results.writer import ResultsWriter, open_writer
from finesweep.spec.sweep import RemoteSweep, SweepSpec
from finesweep.views.compare import compare, comparison_tables
from finesweep.views.diff import diff
from finesweep.views.findings import Kind, findings
from finesweep.views.printing import plain_text
from finesweep.views.running import read_running
from finesweep.views.tables import leaderboard, sweeps_table

SERVER = "https://tuning.example/v1"
DATA = {"data_fingerprint": "sha256:d", "artifact_dir": "/nowhere/jobs"}
GRID = Grid("examples", 100, 400)
Events = Callable[..., list[Event]]
Specs = Callable[..., SweepSpec]


def remote_sections(**changes: Any) -> dict[str, Any]:
    sections = {
        "trainer": "remote",
        "remote": {"base_url": SERVER, "model": "davinci-002", "price_per_million": 6.0},
        "model": None,
        "task": "causal-lm",
        "study": {
            "objective": {"metric": "loss", "direction": "minimize"},
            "parameters": {
                "n_epochs": {"type": "int", "low": 1, "high": 4},
                "batch_size": {"type": "categorical", "choices": [8, "auto"]},
            },
        },
        "training": {"seed": 3},
    }
    return sections | changes


def told(number: int, tokens: int | None, **more: Any) -> dict[str, Any]:
    facts = {"job": f"ftjob-{number}", "model": "davinci-002", "device": SERVER, "pid": 40 + number, **more}
    return facts if tokens is None else {**facts, "trained_tokens": tokens, "cost": tokens * 6e-6}


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[ResultsWriter]:
    now_s = iter(range(1000, 10**6, 600))
    with open_writer(tmp_path / "r.db", clock=lambda: float(next(now_s))) as opened:
        yield opened


@pytest.fixture
def results(writer: ResultsWriter, make_spec: Specs, trial_events: Events) -> Results:
    """Keep a sweep of jobs, of which one was cancelled and one has not told what it took, and one of this machine."""
    writer.create_sweep(make_spec("jobs", **remote_sections()), grid=GRID, provenance=DATA)
    take = writer.listener("jobs")
    for number, tokens in enumerate((2_000_000, 500_000, None)):
        options: dict[str, Any] = {"configuration": {"n_epochs": number + 1, "batch_size": "auto"}}
        if number:
            options |= {"state": TrialState.PRUNED, "reason": "rung"}
        else:
            options["others"] = {"full_valid_loss": [0.7, 0.6]}
        made = {"fine_tuned_model": "ft:davinci-002:owl", "hyperparameters": {"n_epochs": 1}} if number == 0 else {}
        take(trial_events(number, [0.7, 0.6], metric="loss", facts=told(number, tokens, **made), **options))
    parameters = {"epochs": {"type": "int", "low": 1, "high": 4}}
    study = {"objective": {"metric": "loss", "direction": "minimize"}, "parameters": parameters}
    writer.create_sweep(make_spec("here", task="causal-lm", study=study), grid=GRID, provenance=DATA)
    facts = {"device": "cuda:0", "gpu_ids": [0], "pid": 1, "node": "box", "job": "night shift", "cost": "dear"}
    for event in trial_events(0, [0.9, 0.8], metric="loss", configuration={"epochs": 2}, facts=facts):
        writer.listener("here")([event])
    return open_results(writer.url)


def test_jobs_cost_tokens_and_no_hours(results: Results) -> None:
    cost, jobs = sweep_cost(results, "jobs"), job_cost(results, "jobs")
    assert (cost.slot_hours, cost.gpu_hours) == (0.0, 0.0)
    assert jobs is not None
    assert (jobs.n_jobs, jobs.trained_tokens, jobs.money, jobs.n_untold) == (3, 2_500_000, pytest.approx(15.0), 1)
    assert jobs.text() == "3 jobs, 2,500,000 trained tokens (cost 15.00) by the 2 that are counted"
    assert job_cost(results, "here") is None
    assert sweep_cost(results, "here").gpu_hours > 0


def test_a_job_found_again_is_counted_once(writer: ResultsWriter, make_spec: Specs, trial_events: Events) -> None:
    remote = {"base_url": SERVER, "model": "davinci-002"}
    writer.create_sweep(make_spec("jobs", **remote_sections(remote=remote)), grid=GRID, provenance=DATA)
    take, configuration = writer.listener("jobs"), {"n_epochs": 1, "batch_size": 8}
    take(trial_events(0, [0.7], metric="loss", configuration=configuration, facts=told(0, None), state=None))
    take([AttemptStarted(0, 2), AttemptDescribed(0, 2, {"job": "ftjob-0", "trained_tokens": 70})])
    jobs = job_cost(open_results(writer.url), "jobs")
    assert jobs is not None
    assert (jobs.n_jobs, jobs.trained_tokens, jobs.money, jobs.n_untold) == (1, 70, None, 0)
    assert jobs.text() == "1 job, 70 trained tokens"


def test_status_shows_jobs_and_of_local_trials_nothing_of_them(results: Results) -> None:
    table = leaderboard(results, "jobs")
    header, best, *_ = plain_text(table).splitlines()
    assert re.search(r"tokens +cost .*tuned model", header)
    assert "2000000" in best and "12.0" in best and "ft:davinci-002:owl" in best
    assert [row["job"] for row in table.rows] == ["ftjob-0", "ftjob-1", "ftjob-2"]
    header = plain_text(leaderboard(results, "here")).splitlines()[0]
    assert "tokens" not in header and "cost" not in header  # whatever its trainer tells by such a name
    assert leaderboard(results, "here").rows[0]["job"] is None
    assert set(results.sweeps()["model"]) == {"davinci-002", "tiny"}
    assert "jobs" in plain_text(sweeps_table(results))


def test_compare_sets_tokens_beside_hours(results: Results) -> None:
    comparison = compare(results, ["jobs", "here"])
    best = comparison.best.set_index("sweep")
    assert best.loc["jobs", ["slot_hours", "gpu_hours", "trained_tokens"]].tolist() == [0.0, 0.0, 2_500_000]
    assert best.loc["jobs", "cost"] == pytest.approx(15.0)
    assert best.loc["here", "gpu_hours"] > 0
    assert pd.isna(best.loc["here", "trained_tokens"]) and pd.isna(best.loc["here", "cost"])
    assert best["difference"].tolist() == [0.0, pytest.approx(best["best_value"].iloc[1] - best["best_value"].iloc[0])]
    assert comparison.trials["sweep"].tolist()[:2] == ["jobs", "here"]  # ranked together
    assert "tokens" in plain_text(comparison_tables(comparison)[0])
    alone = comparison_tables(compare(results, ["here"]))[0]
    assert "tokens" not in plain_text(alone)


def test_diff_names_server_and_job(results: Results) -> None:
    rows = {row["what"]: (row["jobs:0"], row["here:0"]) for row in diff(results, ("jobs", 0), ("here", 0)).rows}
    assert rows["remote.base_url"] == (SERVER, None)
    assert rows["remote.model"] == ("davinci-002", None)
    assert rows["job"] == ("ftjob-0", None)
    assert rows["trained_tokens"] == (2_000_000, None)
    assert rows["fine_tuned_model"] == ("ft:davinci-002:owl", None)
    assert not any(what.startswith("remote.") for what in _what(results))  # two jobs of one server


def _what(results: Results) -> list[str]:
    return [str(row["what"]) for row in diff(results, ("jobs", 0), ("jobs", 1)).rows]


def test_findings_tell_tokens_and_sell_no_waiting(results: Results, writer: ResultsWriter) -> None:
    writer.acquire("jobs", Holder.this_process())
    writer.add_seconds("jobs", 60.0)
    [cost] = [found for found in findings(results, "jobs", pd.DataFrame()) if found.kind is Kind.COST]
    assert "3 jobs, 2,500,000 trained tokens (cost 15.00)" in cost.text
    assert "slots" not in cost.text and cost.advice is None


def test_running_trials_are_told_by_their_job(results: Results) -> None:
    [row] = read_running(results, "jobs", [0])
    assert row.device == "ftjob-0"
    assert read_running(results, "here", [0])[0].device == "cuda:0"


def test_pages_show_jobs(results: Results) -> None:
    client = TestClient(make_app(open_results(results.url)), base_url="http://127.0.0.1:8765")

    def text(path: str) -> str:
        answer = client.get(path)
        assert answer.status_code == 200, path
        return " ".join(unescape(re.sub(r"<[^>]+>", " ", answer.text)).split())

    assert "3 jobs, 2,500,000 trained tokens (cost 15.00) by the 2 that are counted" in text("/")
    assert "causal-lm · davinci-002" in text("/sweep/jobs")
    trial = text("/sweep/jobs/trial/0")
    for said in (
        f"server {SERVER}",
        "job ftjob-0",
        "model that is tuned davinci-002",
        'hyperparameters at the server {"n_epochs": 1}',
        "trained tokens 2,000,000",
        "cost 12 ",
        "tuned model ft:davinci-002:owl",
        "its model is at the server: ft:davinci-002:owl",
    ):
        assert said in trial, said
    assert "device cuda:0" in text("/sweep/here/trial/0")
    assert "trained tokens" not in text("/sweep/here/trial/0")
    both = text("/compare?sweep=jobs&sweep=here")
    assert "2500000" in both and "ft:davinci-002:owl" in both
    timeline = client.get("/sweep/jobs/figures/timeline").text
    assert "waiting for jobs pid 40" in timeline and "cpu" not in timeline
    assert "ftjob-0" in client.get("/sweep/jobs/trial/0/export.json").text


def test_a_report_names_the_model_of_the_server(results: Results) -> None:
    page = open_results(results.url).report("jobs")
    assert "causal-lm · davinci-002 · loss" in page
    assert "ft:davinci-002:owl" in page


def test_nothing_trains_a_job_here(results: Results) -> None:
    with pytest.raises(ResultsError, match="finesweep export jobs:0 --to openai"):
        subject(results, "jobs", 0)


def test_a_record_hides_what_is_secret_in_an_address(
    writer: ResultsWriter, make_spec: Specs, trial_events: Events
) -> None:
    remote = {"base_url": f"{SERVER}?api_key=abcdef123456", "model": "davinci-002"}
    writer.create_sweep(make_spec("jobs", **remote_sections(remote=remote)), grid=GRID, provenance=DATA)
    configuration = {"n_epochs": 1, "batch_size": "auto"}
    writer.listener("jobs")(trial_events(0, metric="loss", configuration=configuration, facts=told(0, 5)))
    record = export_record(open_results(writer.url), "jobs")
    assert record.remote is not None
    assert "abcdef123456" not in str(record.remote)
    assert record.remote["made"]["trained_tokens"] == 5
    assert record.remote["made"]["fine_tuned_model"] is None
    content = json.loads(export_to(record, "json").text)
    jsonschema.Draft202012Validator(json_schema()).validate(content)
    content["remote"]["api_key"] = "abcdef123456"
    assert not jsonschema.Draft202012Validator(json_schema()).is_valid(content)


@pytest.mark.parametrize(
    ("training", "n_epochs", "epochs"),
    [
        ({}, {"type": "int", "low": 1, "high": 4}, 4),
        ({}, {"type": "categorical", "choices": [3, "auto"]}, 10),
        ({"n_epochs": 7}, None, 7),
        ({}, None, 10),
        ({}, {"value": "batch_size // 2"}, 50),
    ],
)
def test_what_a_sweep_may_cost_is_bounded(
    make_spec: Specs, training: dict[str, Any], n_epochs: dict[str, Any] | None, epochs: int
) -> None:
    parameters = {"batch_size": {"type": "categorical", "choices": [2, 4]}}
    study = {
        "objective": {"metric": "loss", "direction": "minimize"},
        "parameters": parameters if n_epochs is None else {**parameters, "n_epochs": n_epochs},
    }

    def said(**budget: Any) -> str:
        spec = make_spec("jobs", **remote_sections(study=study, training=training, budget={"trials": 5, **budget}))
        assert isinstance(spec, RemoteSweep)
        return "\n".join(most_cost(spec, n_train_bytes=1_000_000))

    assert f"a job: {epochs},000,000 trained tokens (cost {6 * epochs}.00) at most" in said()
    assert f"whole sweep: {5 * epochs},000,000 trained tokens (cost {30 * epochs:,}.00) at most (5 jobs" in said()
    assert "There is no limit: set budget.tokens" in said()
    ends = said(money=6.0 * epochs + 6.0)
    assert f"The budget ends it before: {epochs + 1},000,000 trained tokens" in ends
    assert "may not hold one such job" in said(tokens=epochs * 1_000_000 - 1)
    assert len(said(tokens=5 * epochs * 1_000_000).splitlines()) == 2
