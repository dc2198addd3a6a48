from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest

from finesweep.errors import ResultsError, SweepNameError
from finesweep.events import (
    AttemptEnded,
    AttemptResult,
    AttemptStarted,
    Decision,
    Ending,
    Event,
    Grid,
    Report,
    Reported,
    Source,
    TrialFinished,
    TrialInterrupted,
    TrialState,
    TrialSuggested,
)
from finesweep.results.columns import (
    ARTIFACT_COLUMNS,
    ATTEMPT_COLUMNS,
    POINT_COLUMNS,
    SWEEP_COLUMNS,
    TELEMETRY_COLUMNS,
    TRIAL_COLUMNS,
    json_rows,
)
from finesweep.results.frames import Results, open_results
from finesweep.results.lease import LEASE_S, Holder
from finesweep.results.schema import SweepState
from finesweep.results.writer import ResultsWriter, open_writer
from finesweep.spec.sweep import SweepSpec

GRID = Grid("examples", every=100, longest=1000)
PARAMETERS = {"learning_rate": "float64", "batch_size": "Int64", "scheduler": "string"}
Specs = Callable[..., SweepSpec]
Events = Callable[..., list[Event]]


@pytest.fixture
def now() -> list[float]:
    return [1000.0]


@pytest.fixture
def writer(tmp_path: Path, now: list[float]) -> Iterator[ResultsWriter]:
    with open_writer(tmp_path / "r.db", clock=lambda: now[0]) as writer:
        yield writer


@pytest.fixture
def results(writer: ResultsWriter, now: list[float]) -> Results:
    return open_results(writer.url, clock=lambda: now[0])


def dtypes(frame: pd.DataFrame) -> dict[str, str]:
    return {name: str(dtype) for name, dtype in frame.dtypes.items()}


def test_empty_tables_have_the_documented_columns(results: Results) -> None:
    assert dtypes(results.sweeps()) == SWEEP_COLUMNS
    assert dtypes(results.trials()) == TRIAL_COLUMNS
    assert dtypes(results.points()) == POINT_COLUMNS
    assert dtypes(results.attempts()) == ATTEMPT_COLUMNS
    assert dtypes(results.artifacts()) == ARTIFACT_COLUMNS


def test_columns_and_types_do_not_depend_on_the_rows(
    writer: ResultsWriter, results: Results, make_spec: Specs, trial_events: Events
) -> None:
    writer.create_sweep(make_spec(), grid=GRID, provenance={})
    empty = [dtypes(frame()) for frame in (results.trials, results.points, results.attempts, results.artifacts)]
    writer.listener("tickets")(trial_events(0))
    filled = [dtypes(frame()) for frame in (results.trials, results.points, results.attempts, results.artifacts)]
    assert empty == filled
    assert empty[0] == TRIAL_COLUMNS | PARAMETERS


FACTS = {
    "n_trainable": 12,
    "n_parameters": 345,
    "device_batch_size": 4,
    "accumulation": 4,
    "n_oom": 2,
    "warmup_steps_asked": 200,
    "warmup_steps": 40,
}


def test_trials_hold_state_value_and_parameters(
    writer: ResultsWriter, results: Results, make_spec: Specs, trial_events: Events, now: list[float]
) -> None:
    writer.create_sweep(make_spec(), grid=GRID, provenance={})
    events = trial_events(0, facts=FACTS)
    listener = writer.listener("tickets")
    listener(events[:3])
    now[0] += 5
    listener(events[3:])
    (row,) = json_rows(results.trials("tickets"))
    assert row == {
        "sweep": "tickets",
        "number": 0,
        "state": "COMPLETE",
        "value": 0.75,
        "value_step": 200,
        "reason": None,
        "source": "sampler",
        "examples_seen": 204,
        "duration_s": 5.0,
        "attempts": 1,
        "twin_of": None,
        "reused_from": None,
        "started_at": "1970-01-01T00:16:40+00:00",
        "finished_at": "1970-01-01T00:16:45+00:00",
        "n_trainable": 12,
        "n_parameters": 345,
        "device_batch_size": 4,
        "accumulation": 4,
        "n_oom": 2,
        "asked_warmup_steps": 200,
        "effective_warmup_steps": 40,
        "job": None,
        "trained_tokens": None,
        "cost": None,
        "fine_tuned_model": None,
        "learning_rate": 3.2e-05,
        "batch_size": 16,
        "scheduler": "cosine",
    }


def test_duration_adds_up_attempts_and_leaves_out_the_pause(
    writer: ResultsWriter, results: Results, make_spec: Specs, trial_events: Events, now: list[float]
) -> None:
    writer.create_sweep(make_spec(), grid=GRID, provenance={})
    listener = writer.listener("tickets")
    listener(trial_events(0, state=None))
    now[0] += 10
    listener([AttemptEnded(0, 1, AttemptResult(Ending.PAUSED)), TrialInterrupted(0)])
    now[0] += 1000
    listener([AttemptStarted(0, 2)])
    assert results.trials()["duration_s"].tolist() == [10.0]
    now[0] += 3
    listener([Reported(0, 2, Report(300, {"accuracy": 0.1}, 300), Decision.CONTINUE, {})])
    now[0] += 500  # the driver dies
    assert results.trials()["duration_s"].tolist() == [13.0]
    assert results.trials()["attempts"].tolist() == [2]


def test_running_without_a_live_lease_is_shown_interrupted(
    writer: ResultsWriter, results: Results, make_spec: Specs, trial_events: Events, now: list[float]
) -> None:
    writer.create_sweep(make_spec(), grid=GRID, provenance={})
    writer.acquire("tickets", Holder("elsewhere", 7, 1))
    writer.set_state("tickets", SweepState.RUNNING)
    writer.listener("tickets")(trial_events(0, state=None))
    sweep = json_rows(results.sweeps())[0]
    assert (sweep["state"], sweep["running"], sweep["interrupted"], sweep["driver"]) == ("RUNNING", 1, 0, "elsewhere 7")
    assert results.trials()["state"].tolist() == ["RUNNING"]
    now[0] += LEASE_S
    sweep = json_rows(results.sweeps())[0]
    assert (sweep["state"], sweep["running"], sweep["interrupted"], sweep["driver"]) == ("INTERRUPTED", 0, 1, None)
    assert results.trials()["state"].tolist() == ["INTERRUPTED"]
    assert results.trial("tickets", 0).state is TrialState.INTERRUPTED


@pytest.mark.parametrize(("direction", "best"), [("maximize", 2), ("minimize", 1)])
def test_best_is_the_earliest_best_complete_trial(
    writer: ResultsWriter, results: Results, make_spec: Specs, trial_events: Events, direction: str, best: int
) -> None:
    writer.create_sweep(make_spec(direction=direction), grid=GRID, provenance={})
    assert results.best("tickets") is None
    listener = writer.listener("tickets")
    listener(trial_events(0, [0.99], state=TrialState.PRUNED, reason="rung"))
    for number, value in ((1, 0.2), (2, 0.6), (3, 0.6), (4, 0.2)):
        listener(trial_events(number, [value]))
    listener(trial_events(5, [0.01], state=TrialState.FAILED, reason="boom"))
    listener(trial_events(6, [0.999], state=None))
    incumbent = results.best("tickets")
    assert incumbent is not None
    assert incumbent.number == best
    assert incumbent.reports[0].metrics["accuracy"] == incumbent.value
    row = json_rows(results.sweeps())[0]
    assert (row["best_trial"], row["best_value"]) == (best, incumbent.value)
    assert [row[key] for key in ("trials", "complete", "pruned", "failed", "interrupted")] == [7, 4, 1, 1, 1]
    with pytest.raises(dataclasses.FrozenInstanceError):
        incumbent.value = 0.0  # type: ignore[misc]


def test_points_keep_what_is_not_finite(writer: ResultsWriter, results: Results, make_spec: Specs) -> None:
    writer.create_sweep(make_spec(), grid=GRID, provenance={})
    report = Report(100, {"accuracy": 0.5, "loss": math.inf, "grad": math.nan}, 104)
    events = [TrialSuggested(0, {}, {}, {}, Source.SAMPLER, {}, {}), AttemptStarted(0, 1)]
    writer.listener("tickets")([*events, Reported(0, 1, report, Decision.STOP, {})])
    rows = json_rows(results.points("tickets"))
    assert {row["metric"]: row["value"] for row in rows} == {"accuracy": 0.5, "loss": "inf", "grad": None}
    assert {key: rows[0][key] for key in ("sweep", "number", "attempt", "step", "examples_seen")} == {
        "sweep": "tickets",
        "number": 0,
        "attempt": 1,
        "step": 100,
        "examples_seen": 104,
    }


def test_telemetry_is_kept_beside_metrics_and_apart_from_them(
    writer: ResultsWriter, results: Results, make_spec: Specs
) -> None:
    writer.create_sweep(make_spec(), grid=GRID, provenance={})
    telemetry = {"memory_gib": 1.5, "learning_rate": 0.0, "grad_norm": math.inf}
    events = [TrialSuggested(0, {}, {}, {}, Source.SAMPLER, {}, {}), AttemptStarted(0, 1)]
    for step in (100, 200):
        report = Report(step, {"accuracy": 0.5}, step + 4, telemetry=telemetry)
        events.append(Reported(0, 1, report, Decision.CONTINUE, {}))
    writer.listener("tickets")(events)
    assert set(results.points("tickets")["metric"]) == {"accuracy"}
    assert results.trial("tickets", 0).reports[0].metrics == {"accuracy": 0.5}
    told = results.telemetry("tickets", numbers=[0])
    assert dict(told.dtypes.astype(str)) == TELEMETRY_COLUMNS
    assert told["step"].tolist() == [100] * 3 + [200] * 3
    assert dict(zip(told["name"], told["value"], strict=True)) == telemetry
    assert told["reported_at"].is_monotonic_increasing
    assert results.telemetry("tickets", numbers=[1]).empty


def test_artifacts_of_the_last_attempt_are_the_trials(
    writer: ResultsWriter, results: Results, make_spec: Specs, trial_events: Events
) -> None:
    writer.create_sweep(make_spec(), grid=GRID, provenance={})
    listener = writer.listener("tickets")
    listener(trial_events(0, state=None))
    listener([AttemptEnded(0, 1, AttemptResult(Ending.LOST, artifacts={"checkpoint": "0/1/c", "log": "0/1/log"}))])
    listener([AttemptStarted(0, 2), AttemptEnded(0, 2, AttemptResult(Ending.DONE, artifacts={"checkpoint": "0/2/c"}))])
    assert results.artifacts("tickets")["path"].tolist() == ["0/1/c", "0/1/log", "0/2/c"]
    assert results.trial("tickets", 0).artifacts == {"checkpoint": "0/2/c", "log": "0/1/log"}


def test_spec_and_provenance_come_back(writer: ResultsWriter, results: Results, make_spec: Specs) -> None:
    spec = make_spec(training={"learning_rate": 5e-6, "lr_scheduler_type": "cosine"}, start_with=[{"batch_size": 8}])
    writer.create_sweep(spec, grid=GRID, provenance={"versions": {"torch": "2"}})
    assert results.spec("tickets").model_dump() == spec.model_dump()
    assert results.provenance("tickets") == {"versions": {"torch": "2"}}
    writer.extend("tickets", trials=33)
    assert results.spec("tickets").budget.trials == 33


def test_unknown_sweeps_and_trials_are_named(
    writer: ResultsWriter, results: Results, make_spec: Specs, trial_events: Events
) -> None:
    writer.create_sweep(make_spec(), grid=GRID, provenance={})
    with pytest.raises(SweepNameError, match="did you mean 'tickets'"):
        results.trials("tickts")
    with pytest.raises(ResultsError, match=r"trial tickets:0 does not exist\. It has none yet\."):
        results.trial("tickets", 0)
    writer.listener("tickets")(trial_events(0))
    with pytest.raises(ResultsError, match=r"trial tickets:5 does not exist\. It has 0 to 0\."):
        results.trial("tickets", 5)


def test_several_sweeps_are_told_apart(
    writer: ResultsWriter, results: Results, make_spec: Specs, trial_events: Events
) -> None:
    for name in ("b", "a"):
        writer.create_sweep(make_spec(name), grid=GRID, provenance={})
        writer.listener(name)([*trial_events(0), *trial_events(1)])
    assert results.sweeps()["sweep"].tolist() == ["b", "a"]
    assert list(zip(results.trials()["sweep"], results.trials()["number"], strict=True)) == [
        ("b", 0),
        ("b", 1),
        ("a", 0),
        ("a", 1),
    ]
    assert set(results.points("a")["sweep"]) == {"a"}
    assert set(results.attempts("a")["sweep"]) == {"a"}


def test_a_path_is_taken_from_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    open_writer("finesweep.db").close()
    assert [path.name for path in tmp_path.iterdir()] == ["finesweep.db"]
    assert open_results().sweeps().empty


def test_a_result_taken_over_has_the_facts_of_the_trial_it_came_from(
    writer: ResultsWriter, results: Results, make_spec: Specs, trial_events: Events
) -> None:
    writer.create_sweep(make_spec(), grid=GRID, provenance={})
    twin = TrialSuggested(1, {}, {}, {}, Source.SAMPLER, {}, {}, twin_of=0)
    writer.listener("tickets")([*trial_events(0, facts=FACTS), twin])
    writer.listener("tickets")([TrialFinished(1, TrialState.COMPLETE, None, 0.75, 200, reused_from=0)])
    assert list(results.trials()["effective_warmup_steps"]) == [40, 40]


def test_what_a_trainer_of_the_users_own_calls_like_our_facts_does_no_harm(
    writer: ResultsWriter, results: Results, make_spec: Specs, trial_events: Events
) -> None:
    writer.create_sweep(make_spec(), grid=GRID, provenance={})
    writer.listener("tickets")(trial_events(0, facts={"n_trainable": "all of them", "warmup_steps": [1, 2]}))
    (row,) = json_rows(results.trials())
    assert (row["n_trainable"], row["effective_warmup_steps"]) == (None, None)
