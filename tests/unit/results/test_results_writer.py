from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pandas as pd
import pytest

from finesweep.errors import ResultsError, SweepHeldError, SweepNameError
from finesweep.events import (
    AttemptDescribed,
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
from finesweep.results.frames import open_results
from finesweep.results.lease import LEASE_S, Holder
from finesweep.results.schema import SweepState
from finesweep.results.writer import ResultsWriter, open_writer
from finesweep.spec.sweep import SweepSpec

GRID = Grid("examples", every=100, longest=1000)
Specs = Callable[..., SweepSpec]
Events = Callable[..., list[Event]]


class Clock:
    """Says what it is told."""

    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def writer(tmp_path: Path, clock: Clock, make_spec: Specs) -> Iterator[ResultsWriter]:
    with open_writer(tmp_path / "r.db", clock=clock) as writer:
        writer.create_sweep(make_spec(), grid=GRID, provenance={"host": "box"})
        yield writer


def other(pid: int = 1) -> Holder:
    return Holder("elsewhere", pid, 7)


def test_a_name_is_taken_once(writer: ResultsWriter, make_spec: Specs) -> None:
    with pytest.raises(SweepNameError, match=r"'tickets' is already in sqlite.*another --name"):
        writer.create_sweep(make_spec(), grid=GRID, provenance={})


def test_unknown_names_are_answered_with_known_ones(writer: ResultsWriter, make_spec: Specs) -> None:
    with pytest.raises(SweepNameError, match=r"'ticket' is not in .*; did you mean 'tickets'\? Known: tickets\."):
        writer.history("ticket")
    for index in range(11):
        writer.create_sweep(make_spec(f"s{index}"), grid=GRID, provenance={})
    with pytest.raises(SweepNameError, match=r"'zzz' is not in .*; Known: s10, s9, .*, s1, \.\.\."):
        writer.standing("zzz")


def test_an_empty_database_says_so(tmp_path: Path) -> None:
    with open_writer(tmp_path / "empty.db") as writer, pytest.raises(SweepNameError, match="holds no sweeps yet"):
        writer.history("x")


def test_the_total_of_trials_only_grows(writer: ResultsWriter) -> None:
    writer.set_state("tickets", SweepState.FINISHED)
    with pytest.raises(
        ResultsError, match=r"budget\.trials: 10 must be above what sweep .* has \(10\); it is the total"
    ):
        writer.extend("tickets", trials=10)
    writer.extend("tickets", trials=25)
    assert writer.standing("tickets").budget_trials == 25
    assert writer.standing("tickets").state is SweepState.INTERRUPTED
    writer.set_state("tickets", SweepState.RUNNING)
    writer.extend("tickets", trials=26)
    assert writer.standing("tickets").state is SweepState.RUNNING


def test_seconds_add_up(writer: ResultsWriter) -> None:
    writer.add_seconds("tickets", 1.5)
    writer.add_seconds("tickets", 2.0)
    assert writer.standing("tickets").seconds_used == 3.5


def test_a_request_to_stop_lasts_until_the_sweep_is_acquired(writer: ResultsWriter) -> None:
    assert not writer.standing("tickets").stop_requested
    writer.request_stop("tickets")
    assert writer.standing("tickets").stop_requested
    writer.acquire("tickets", other())
    assert not writer.standing("tickets").stop_requested


def test_a_live_lease_is_refused_naming_its_holder(writer: ResultsWriter, clock: Clock) -> None:
    writer.acquire("tickets", other(42))
    clock.now_s += 10
    with pytest.raises(SweepHeldError, match=r"process 42 on elsewhere since 1970-01-01 00:16:40 UTC.*ends in 50 s"):
        writer.acquire("tickets", other(43))


def test_renewing_keeps_a_lease_and_expiry_ends_it(writer: ResultsWriter, clock: Clock) -> None:
    writer.acquire("tickets", other())
    clock.now_s += LEASE_S - 1
    writer.renew("tickets")
    clock.now_s += LEASE_S - 1
    with pytest.raises(SweepHeldError):
        writer.acquire("tickets", other(2))
    clock.now_s += 1
    writer.acquire("tickets", other(2))


def test_a_live_lease_may_be_taken_over_by_force(writer: ResultsWriter) -> None:
    writer.acquire("tickets", other(1))
    with open_writer(writer.url) as second:
        second.acquire("tickets", other(2), take_over=True)
        with pytest.raises(SweepHeldError, match="taken over by process 2 on elsewhere"):
            writer.renew("tickets")
        second.renew("tickets")


def test_what_a_dead_driver_left_open_is_abandoned_at_what_was_last_heard_of_it(
    writer: ResultsWriter, clock: Clock, trial_events: Events
) -> None:
    writer.acquire("tickets", other(1))
    listener = writer.listener("tickets")
    *before, reported = trial_events(0, [0.5], state=None)
    listener(before)
    clock.now_s += 5
    listener([reported])
    clock.now_s += LEASE_S
    writer.acquire("tickets", other(2))
    [attempt] = open_results(writer.url).attempts("tickets").to_dict("records")
    assert (attempt["ending"], attempt["reason"]) == ("abandoned", "its driver ended: process 1 on elsewhere")
    assert attempt["ended_at"] - attempt["started_at"] == pd.Timedelta(seconds=5)
    [record] = writer.history("tickets").trials
    assert (record.state, record.attempts, record.n_retries) == (TrialState.INTERRUPTED, 1, 0)


def test_a_released_lease_is_free(writer: ResultsWriter) -> None:
    writer.acquire("tickets", other())
    writer.release("tickets")
    writer.release("tickets")
    writer.acquire("tickets", other(2))


def test_a_driver_that_stops_at_once_leaves_nothing_running(writer: ResultsWriter, trial_events: Events) -> None:
    writer.acquire("tickets", other(1))
    writer.listener("tickets")(trial_events(0, [0.5], state=None))
    writer.release("tickets")
    [attempt] = open_results(writer.url).attempts("tickets").to_dict("records")
    assert (attempt["ending"], attempt["reason"]) == ("abandoned", "its driver ended: process 1 on elsewhere")
    [record] = writer.history("tickets").trials
    assert (record.state, record.n_retries) == (TrialState.INTERRUPTED, 0)


def test_a_replaced_driver_can_write_nothing_more(writer: ResultsWriter, clock: Clock, trial_events: Events) -> None:
    writer.acquire("tickets", other(1))
    listener = writer.listener("tickets")
    with open_writer(writer.url, clock=clock) as second:
        clock.now_s += LEASE_S
        second.acquire("tickets", other(2))
        for write in (
            lambda: listener(trial_events(0)),
            lambda: writer.renew("tickets"),
            lambda: writer.add_seconds("tickets", 1.0),
            lambda: writer.set_state("tickets", SweepState.FAILED),
        ):
            with pytest.raises(SweepHeldError, match="taken over by process 2 on elsewhere"):
                write()
        writer.release("tickets")
        assert writer.history("tickets").trials == ()
        with pytest.raises(SweepHeldError):  # releasing what is no longer one's own frees nothing
            writer.acquire("tickets", other(3))
        second.release("tickets")
        with pytest.raises(SweepHeldError, match="another process, since gone"):
            listener(trial_events(0))


def test_events_handed_over_together_are_stored_together_or_not_at_all(
    writer: ResultsWriter, trial_events: Events
) -> None:
    listener = writer.listener("tickets")
    with pytest.raises(ResultsError, match="trial 9 was never suggested"):
        listener([*trial_events(0), TrialInterrupted(9)])
    assert writer.history("tickets").trials == ()


def test_an_attempt_must_have_started(writer: ResultsWriter, trial_events: Events) -> None:
    listener = writer.listener("tickets")
    listener(trial_events(0, state=None))
    for event in (AttemptDescribed(0, 2, {}), AttemptEnded(0, 2, AttemptResult(Ending.DONE))):
        with pytest.raises(ResultsError, match="attempt 2 of trial 0 was never started"):
            listener([event])


def test_a_deleted_sweep_is_gone_and_its_old_listener_writes_nowhere(
    writer: ResultsWriter, make_spec: Specs, trial_events: Events
) -> None:
    writer.acquire("tickets", other())
    listener = writer.listener("tickets")
    listener(trial_events(0))
    writer.delete("tickets")
    assert open_results(writer.url).trials().empty
    writer.create_sweep(make_spec(), grid=GRID, provenance={})
    with pytest.raises(SweepNameError, match="was deleted while it was being driven"):
        listener(trial_events(1))
    assert writer.history("tickets").trials == ()


def test_a_driven_sweep_is_not_deleted(writer: ResultsWriter, clock: Clock) -> None:
    writer.acquire("tickets", other(5))
    with open_writer(writer.url, clock=clock) as second, pytest.raises(SweepHeldError, match="process 5"):
        second.delete("tickets")


def test_threads_share_a_writer(writer: ResultsWriter, trial_events: Events) -> None:
    listener = writer.listener("tickets")
    threads = [Thread(target=listener, args=[trial_events(number)]) for number in range(8)]
    threads += [Thread(target=writer.add_seconds, args=["tickets", 1.0]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(writer.history("tickets").trials) == 8
    assert writer.standing("tickets").seconds_used == 8.0


def test_a_closed_trial_takes_no_more_reports_but_its_attempt_still_ends(
    writer: ResultsWriter, trial_events: Events
) -> None:
    listener = writer.listener("tickets")
    listener(trial_events(0, state=None))
    listener([TrialFinished(0, TrialState.PRUNED, "rung", None, None, attributes={"rung": 1})])
    late = Reported(0, 1, Report(900, {"accuracy": 1.0}, 900), Decision.CONTINUE, {"late": True})
    result = AttemptResult(Ending.STOPPED, artifacts={"checkpoint": "0/1/checkpoint"})
    listener([late, AttemptEnded(0, 1, result), AttemptStarted(0, 2), TrialInterrupted(0)])
    (trial,) = writer.history("tickets").trials
    assert trial.state is TrialState.PRUNED
    assert [report.step for report in trial.reports] == [100, 200]
    assert trial.attributes == {"rung": 1}
    results = open_results(writer.url)
    assert results.attempts("tickets")["ending"].tolist()[0] == "stopped"
    assert results.trial("tickets", 0).artifacts == {"checkpoint": "0/1/checkpoint"}
    assert results.trial("tickets", 0).examples_seen == 204


def test_study_attributes_are_kept_and_added_to(writer: ResultsWriter) -> None:
    listener = writer.listener("tickets")

    def suggested(number: int, attributes: dict[str, Any]) -> TrialSuggested:
        return TrialSuggested(number, {}, {}, {}, Source.DEFAULT, {}, attributes)

    listener([suggested(0, {"a": 1, "bad": math.inf}), suggested(1, {"b": [1, 2]}), suggested(2, {})])
    listener([suggested(0, {"a": "stale"})])
    listener([TrialFinished(0, TrialState.FAILED, "x", None, None, study_attributes={"a": 2})])
    assert writer.history("tickets").study_attributes == {"a": 2, "bad": math.inf, "b": [1, 2]}


def test_facts_of_an_attempt_add_up_until_it_ends(writer: ResultsWriter, trial_events: Events) -> None:
    listener = writer.listener("tickets")
    listener(trial_events(0, state=None))
    listener([AttemptDescribed(0, 1, {"pid": 7, "warmup_steps": 3})])
    listener([AttemptEnded(0, 1, AttemptResult(Ending.PAUSED)), TrialInterrupted(0)])
    listener([AttemptDescribed(0, 1, {"pid": "too late"}), AttemptStarted(0, 2), AttemptDescribed(0, 2, {"pid": 8})])
    results = open_results(writer.url)
    assert results.trial("tickets", 0).facts == {"device": "cpu", "pid": 8, "warmup_steps": 3}
    assert results.attempts("tickets")["facts"].tolist() == [{"device": "cpu", "pid": 7, "warmup_steps": 3}, {"pid": 8}]


def test_a_traceback_of_any_text_is_kept(writer: ResultsWriter, trial_events: Events) -> None:
    listener = writer.listener("tickets")
    listener(trial_events(0, state=None))
    listener([AttemptEnded(0, 1, AttemptResult(Ending.FAILED, "boom", "Traceback\0 \ud800"))])
    assert open_results(writer.url).attempts()["traceback"].tolist() == ["Traceback\\x00 \\ud800"]


def test_a_fact_that_json_cannot_hold_is_named(writer: ResultsWriter, trial_events: Events) -> None:
    listener = writer.listener("tickets")
    listener(trial_events(0, state=None))
    with pytest.raises(ResultsError, match=r"value\.folder: .* which JSON cannot hold"):
        listener([AttemptDescribed(0, 1, {"folder": Path("/x")})])


def test_the_grid_comes_back(writer: ResultsWriter) -> None:
    assert writer.grid("tickets") == GRID


def test_the_size_of_an_artifact_is_kept_where_the_worker_told_it(writer: ResultsWriter, trial_events: Events) -> None:
    listener = writer.listener("tickets")
    listener(trial_events(0, state=None))
    left = AttemptResult(Ending.DONE, artifacts={"best": "b", "log": "l"}, artifact_bytes={"best": 5_000_000_000})
    listener([AttemptEnded(0, 1, left)])
    sizes = open_results(writer.url).artifacts("tickets").set_index("kind")["n_bytes"]
    assert sizes["best"] == 5_000_000_000
    assert sizes.isna()["log"]


def test_removed_artifacts_are_no_longer_the_trials(writer: ResultsWriter, trial_events: Events, clock: Clock) -> None:
    listener = writer.listener("tickets")
    for number in (0, 1):
        listener(trial_events(number, state=None))
        listener([AttemptEnded(number, 1, AttemptResult(Ending.DONE, artifacts={"model": f"{number}/1/model"}))])
    clock.now_s += 5
    writer.remove_artifacts("tickets", 0)
    clock.now_s += 5
    writer.remove_artifacts("tickets", 0)
    results = open_results(writer.url)
    assert results.trial("tickets", 0).artifacts == {}
    assert results.trial("tickets", 1).artifacts == {"model": "1/1/model"}
    assert [str(moment) for moment in results.artifacts("tickets")["removed_at"]] == [
        "1970-01-01 00:16:45+00:00",
        "NaT",
    ]
