"""What every results database must hold to: run over SQLite always, over PostgreSQL where a server can be started."""

from __future__ import annotations

import math
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

import optuna
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.postgresql import Server

from finesweep.errors import ResultsError, SweepHeldError
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
    SweepHistory,
    TrialFinished,
    TrialInterrupted,
    TrialState,
    TrialSuggested,
)
from finesweep.results.frames import open_results
from finesweep.results.lease import Holder
from finesweep.results.writer import open_writer
from finesweep.search.mirror import OptunaMirror
from finesweep.spec.sweep import SweepSpec

GRID = Grid("examples", every=100, longest=1000)
Specs = Callable[..., SweepSpec]

# --- lives of trials --------------------------------------------------------------------------------------------


def suggested(number: int, *, twin_of: int | None = None) -> TrialSuggested:
    configuration = {"learning_rate": 10.0**-number, "method": "lora", "bias": None, "flag": True}
    parameters = {"lora.learning_rate": 10.0**-number}
    distributions = {"lora.learning_rate": '{"name": "FloatDistribution"}'}
    attributes = {"sampler:state": [number, math.inf]}
    return TrialSuggested(
        number, configuration, parameters, distributions, Source.SAMPLER, attributes, {"seen": number}, twin_of
    )


def reported(number: int, attempt: int, step: int, value: float, *, final: bool = False) -> Reported:
    report = Report(step, {"accuracy": value, "loss": -value}, step + 3, final=final)
    return Reported(number, attempt, report, Decision.CONTINUE, {f"rung:{step}": value})


def ended(number: int, attempt: int, ending: Ending) -> AttemptEnded:
    artifacts = {"checkpoint": f"{number}/{attempt}/checkpoint"}
    return AttemptEnded(number, attempt, AttemptResult(ending, ending.value, None, artifacts))


COMPLETED = [
    [suggested(0)],
    [AttemptStarted(0, 1)],
    [AttemptDescribed(0, 1, {"device": "cuda:0", "peak_gib": 3.5})],
    [reported(0, 1, 100, 0.5)],
    [reported(0, 1, 250, 0.6, final=True)],
    [ended(0, 1, Ending.DONE), TrialFinished(0, TrialState.COMPLETE, None, 0.6, 250, attributes={"done": 1})],
]
PRUNED = [
    [suggested(0)],
    [AttemptStarted(0, 1)],
    [reported(0, 1, 100, math.nan), TrialFinished(0, TrialState.PRUNED, "diverged", None, None)],
    [ended(0, 1, Ending.STOPPED)],
]
RESUMED = [
    [suggested(0)],
    [AttemptStarted(0, 1)],
    [reported(0, 1, 100, 0.5)],
    [reported(0, 1, 200, 0.6)],
    [ended(0, 1, Ending.LOST), TrialInterrupted(0)],
    [AttemptStarted(0, 2)],
    [reported(0, 2, 200, 0.99)],  # trained again from the checkpoint: the first word counts
    [reported(0, 2, 300, 0.7)],
    [ended(0, 2, Ending.PAUSED), TrialInterrupted(0)],
    [AttemptStarted(0, 3)],
    [ended(0, 3, Ending.FAILED), TrialFinished(0, TrialState.FAILED, "boom", None, None)],
]
TWINS = [
    *COMPLETED[:-1],
    [suggested(1, twin_of=0)],
    [suggested(2)],
    [*COMPLETED[-1], TrialFinished(1, TrialState.COMPLETE, None, 0.6, 250, reused_from=0)],
]
LIVES = {"completed": COMPLETED, "pruned": PRUNED, "resumed": RESUMED, "twins": TWINS}


@st.composite
def lives(draw: st.DrawFn) -> list[list[Event]]:
    """Draw the interleaved lives of up to three trials, in batches as a broker hands them over."""
    batches = [_life(draw, number) for number in range(draw(st.integers(1, 3)))]
    mixed: list[list[Event]] = []
    while any(batches):
        life = draw(st.sampled_from([life for life in batches if life]))
        mixed.append(life.pop(0))
    return mixed


def _life(draw: st.DrawFn, number: int) -> list[list[Event]]:
    life: list[list[Event]] = [[suggested(number)]]
    n_attempts = draw(st.integers(0, 3))
    for attempt in range(1, n_attempts + 1):
        life.append([AttemptStarted(number, attempt)])
        if draw(st.booleans()):
            life.append([AttemptDescribed(number, attempt, {"pid": draw(st.integers(1, 9))})])
        for step in draw(st.lists(st.integers(1, 6), unique=True)):
            value = draw(st.floats(-1, 1) | st.sampled_from([math.nan, math.inf, -math.inf]))
            life.append([reported(number, attempt, step * 100, value)])
        is_last = attempt == n_attempts
        how = draw(st.sampled_from(["paused", "lost", *(["open", "done", "pruned"] if is_last else [])]))
        match how:
            case "paused" | "lost":
                life.append([ended(number, attempt, Ending(how)), TrialInterrupted(number)])
            case "done":
                outcome = TrialFinished(number, TrialState.COMPLETE, None, draw(st.floats(-1, 1)), 100)
                life.append([ended(number, attempt, Ending.DONE), outcome])
            case "pruned":
                life.append([TrialFinished(number, TrialState.PRUNED, "rung", None, None)])
                life.append([ended(number, attempt, Ending.STOPPED)])
    return life


def told(url: str, batches: Sequence[Sequence[Event]]) -> SweepHistory:
    """Tell events to a writer, close it, and read the history with another."""
    with open_writer(url, clock=lambda: 1000.0) as writer:
        listener = writer.listener("tickets")
        for batch in batches:
            listener(batch)
    with open_writer(url) as writer:
        return writer.history("tickets")


def everything(url: str) -> dict[str, list[tuple[object, ...]]]:
    """Read all rows of all of our tables."""
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        names = [name for name in sa.inspect(connection).get_table_names() if name.startswith("finesweep_")]
        rows = {name: sorted(map(repr, connection.execute(sa.text(f"SELECT * FROM {name}")))) for name in names}
    engine.dispose()
    return rows


@pytest.fixture
def sweep(url: str, make_spec: Specs) -> str:
    """Give a database with an empty sweep called tickets."""
    with open_writer(url, clock=lambda: 1000.0) as writer:
        writer.create_sweep(make_spec(), grid=GRID, provenance={})
    return url


# --- histories --------------------------------------------------------------------------------------------------


def test_a_completed_trial(sweep: str) -> None:
    (trial,) = told(sweep, COMPLETED).trials
    first = COMPLETED[0][0]
    assert isinstance(first, TrialSuggested)
    assert trial.state is TrialState.COMPLETE
    assert (trial.configuration, trial.parameters) == (first.configuration, first.parameters)
    assert (trial.distributions, trial.source) == (first.distributions, Source.SAMPLER)
    assert trial.attributes == {"sampler:state": [0, math.inf], "rung:100": 0.5, "rung:250": 0.6, "done": 1}
    assert trial.reports == (
        Report(100, {"accuracy": 0.5, "loss": -0.5}, 103),
        Report(250, {"accuracy": 0.6, "loss": -0.6}, 253, final=True),
    )
    assert (trial.attempts, trial.n_retries, trial.value, trial.value_step) == (1, 0, 0.6, 250)
    assert (trial.started_at, trial.finished_at) == (1000.0, 1000.0)


def test_a_diverged_trial_keeps_what_is_not_finite(sweep: str) -> None:
    (trial,) = told(sweep, PRUNED).trials
    assert (trial.state, trial.reason, trial.value) == (TrialState.PRUNED, "diverged", None)
    assert math.isnan(trial.reports[0].metrics["accuracy"])


def test_a_resumed_trial_has_its_reports_over_all_attempts(sweep: str) -> None:
    (trial,) = told(sweep, RESUMED).trials
    assert [(report.step, report.metrics["accuracy"]) for report in trial.reports] == [
        (100, 0.5),
        (200, 0.6),
        (300, 0.7),
    ]
    assert (trial.attempts, trial.n_retries) == (3, 2)  # lost and failed; a pause uses up nothing
    assert (trial.state, trial.reason) == (TrialState.FAILED, "boom")


def test_states_on_the_way(sweep: str) -> None:
    states = [told(sweep, [batch]).trials[0].state.value for batch in RESUMED]
    running, interrupted = ["RUNNING"], ["INTERRUPTED"]
    assert states == ["WAITING", *running * 3, *interrupted, *running * 3, *interrupted, *running, "FAILED"]


def test_twins(sweep: str) -> None:
    with_twins = told(sweep, TWINS)
    assert [trial.state.value for trial in with_twins.trials] == ["COMPLETE", "COMPLETE", "WAITING"]
    assert [(trial.twin_of, trial.reused_from) for trial in with_twins.trials] == [(None, None), (0, 0), (None, None)]
    assert with_twins.study_attributes == {"seen": 2}


def test_an_empty_sweep_has_an_empty_history(sweep: str) -> None:
    assert told(sweep, []) == SweepHistory()


# --- events that come twice -------------------------------------------------------------------------------------


@pytest.mark.parametrize("life", LIVES)
def test_events_told_twice_change_nothing(sweep: str, life: str) -> None:
    told(sweep, LIVES[life])
    once = everything(sweep)
    told(sweep, LIVES[life])
    told(sweep, [[event] for batch in LIVES[life] for event in batch])
    assert everything(sweep) == once


@pytest.mark.parametrize("life", LIVES)
def test_each_event_repeated_at_once_changes_nothing(sweep: str, url: str, life: str) -> None:
    batches = LIVES[life]
    for count in range(1, len(batches) + 1):
        told(sweep, [batches[count - 1]])
        before = everything(sweep)
        told(sweep, batches[:count])
        assert everything(sweep) == before


STACK: list[list[Event]] = [
    *([suggested(number), AttemptStarted(number, 1)] for number in range(6)),
    [reported(number, 1, 100, 0.5 + number) for number in range(6)],
    [
        reported(0, 1, 200, 0.6),
        reported(1, 1, 200, 0.1),  # the end of this lane stands between the reports of others
        TrialFinished(1, TrialState.PRUNED, "rung", None, None, attributes={"rung": 0}),
        *(reported(number, 1, 200, 0.7) for number in range(2, 6)),
    ],
    [ended(1, 1, Ending.STOPPED), reported(0, 1, 300, 0.5), reported(1, 1, 300, 0.5), reported(0, 1, 400, 0.5)],
]


@pytest.mark.parametrize("life", [*LIVES.values(), STACK], ids=[*LIVES, "stack"])
def test_events_that_come_together_are_stored_as_those_that_come_one_by_one(
    sweep: str, make_spec: Specs, life: list[list[Event]]
) -> None:
    together = told(sweep, [[event for batch in life for event in batch]])
    once = everything(sweep)
    told(sweep, [[event for batch in life for event in batch]])
    assert everything(sweep) == once
    with open_writer(sweep, clock=lambda: 1000.0) as writer:
        writer.delete("tickets")
        writer.create_sweep(make_spec(), grid=GRID, provenance={})
    one_by_one = told(sweep, [[event] for batch in life for event in batch])
    assert repr(one_by_one) == repr(together)  # of NaN too


def test_a_report_of_a_stack_that_cannot_be_stored_leaves_none(sweep: str) -> None:
    told(sweep, STACK[:6])
    before = everything(sweep)
    with pytest.raises(ResultsError, match="trial 7 was never suggested"):
        told(sweep, [[reported(0, 1, 100, 0.5), reported(7, 1, 100, 0.5)]])
    assert everything(sweep) == before


# --- Optuna's tables --------------------------------------------------------------------------------------------


def test_optunas_tables_follow_in_the_order_of_numbers(url: str) -> None:
    study = optuna.create_study(study_name="tickets", sampler=optuna.samplers.RandomSampler(seed=0))
    running = [study.ask() for _ in range(40)]
    for trial in running[:38]:
        trial.report(trial.suggest_float("x", 0, 1), 100)
    for trial in reversed(running[:36]):
        study.tell(trial, math.inf if trial.number == 3 else float(trial.number))
    mirror = OptunaMirror(url, study)
    mirror.follow()
    mirror.wait()
    assert [trial.number for trial in optuna_trials(url)] == list(range(36))
    mirror.complete()
    mirror.close()
    again = OptunaMirror(url, study)
    study.tell(running[37], 0.5)
    again.follow()
    again.wait()
    again.complete()
    again.close()

    def shown(trials: list[optuna.trial.FrozenTrial]) -> list[object]:
        return [(t.number, t.state, t.values, t.params, t.distributions, t.intermediate_values) for t in trials]

    assert shown(optuna_trials(url)) == shown(study.trials)


def optuna_trials(url: str) -> list[optuna.trial.FrozenTrial]:
    storage = optuna.storages.RDBStorage(url)
    try:
        return optuna.load_study(study_name="tickets", storage=storage).trials
    finally:
        storage.remove_session()
        storage.engine.dispose()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=lives())
def test_any_lives_survive_reopening_and_replaying(
    tmp_path: Path, make_spec: Specs, batches: list[list[Event]]
) -> None:
    folder = Path(tempfile.mkdtemp(dir=tmp_path))
    url = f"sqlite:///{folder / 'r.db'}"
    with open_writer(url, clock=lambda: 1000.0) as writer:
        writer.create_sweep(make_spec(), grid=GRID, provenance={})
        listener = writer.listener("tickets")
        for batch in batches:
            listener(batch)
        open_now = writer.history("tickets")
    once = everything(url)
    reopened = told(url, batches)
    assert everything(url) == once
    assert repr(reopened) == repr(open_now)  # nan is not equal to itself
    steps = {(event.number, event.report.step) for batch in batches for event in batch if isinstance(event, Reported)}
    assert {(trial.number, report.step) for trial in reopened.trials for report in trial.reports} == steps


# --- two drivers ------------------------------------------------------------------------------------------------


DRIVER = """
    import sys, time
    from finesweep.events import *
    from finesweep.results.lease import Holder
    from finesweep.results.writer import open_writer

    writer = open_writer(sys.argv[1])
    writer.acquire("tickets", Holder.this_process())
    listener = writer.listener("tickets")
    print("acquired", flush=True)
"""
WAITS = """
    sys.stdin.readline()
"""
WRITES = """
    for number in range(100_000):
        listener([TrialSuggested(number, {"x": number}, {"x": number}, {"x": "{}"}, Source.SAMPLER, {}, {"n": number})])
        print(f"s {number}", flush=True)
        listener([AttemptStarted(number, 1)])
        for step in range(1, 4):
            report = Report(step * 100, {"accuracy": 0.1 * step}, step * 100)
            listener([Reported(number, 1, report, Decision.CONTINUE, {"step": step})])
            print(f"r {number} {step * 100}", flush=True)
        ended = AttemptEnded(number, 1, AttemptResult(Ending.DONE))
        listener([ended, TrialFinished(number, TrialState.COMPLETE, None, 0.3, 300)])
        print(f"f {number}", flush=True)
"""


def driver(url: str, *parts: str) -> subprocess.Popen[str]:
    """Start another process that acquires the sweep."""
    script = "".join(map(textwrap.dedent, (DRIVER, *parts)))
    process = subprocess.Popen(
        [sys.executable, "-c", script, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "acquired\n"
    return process


def test_a_live_driver_is_refused_and_a_killed_one_taken_over(sweep: str) -> None:
    process = driver(sweep, WAITS)
    with open_writer(sweep) as writer:
        with pytest.raises(SweepHeldError, match=rf"driven by process {process.pid} on {socket.gethostname()} since"):
            writer.acquire("tickets", Holder.this_process())
        assert open_results(sweep).sweeps()["driver"].tolist() == [f"{socket.gethostname()} {process.pid}"]
        process.kill()
        process.communicate()
        assert open_results(sweep).sweeps()["driver"].isna().all()
        writer.acquire("tickets", Holder.this_process())  # at once, long before the lease would have expired
        writer.listener("tickets")([suggested(0)])
        assert len(writer.history("tickets").trials) == 1


def test_a_driver_that_was_replaced_while_it_slept_writes_nothing(sweep: str) -> None:
    process = driver(sweep, WAITS, "listener([TrialSuggested(0, {}, {}, {}, Source.SAMPLER, {}, {})])\n")
    process.send_signal(signal.SIGSTOP)
    with open_writer(sweep) as writer:
        writer.acquire("tickets", Holder.this_process(), take_over=True)
        process.send_signal(signal.SIGCONT)
        process.communicate("go on\n")
        assert process.returncode == 1
        assert writer.history("tickets").trials == ()


@pytest.mark.parametrize("after", [1, 7, 40])
def test_a_driver_killed_in_the_midst_leaves_a_prefix(sweep: str, after: int) -> None:
    process = driver(sweep, WRITES)
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(after)]
    process.kill()
    lines += process.stdout.read().splitlines(keepends=True)
    process.communicate()
    acknowledged = [line.split() for line in lines if line.endswith("\n")]
    with open_writer(sweep) as writer:
        trials = writer.history("tickets").trials
    told_of = [("s", trial.number) for trial in trials]
    stored = []
    for trial in trials:
        stored.append(["s", str(trial.number)])
        stored += [["r", str(trial.number), str(report.step)] for report in trial.reports]
        if trial.state is TrialState.COMPLETE:
            stored.append(["f", str(trial.number)])
    assert told_of == [("s", number) for number in range(len(trials))]
    assert stored[: len(acknowledged)] == acknowledged  # whatever was acknowledged is there
    assert len(stored) - len(acknowledged) <= 1  # and at most the one event that was being told
    for trial in trials[:-1]:
        assert trial.state is TrialState.COMPLETE
        assert [report.step for report in trial.reports] == [100, 200, 300]


# --- errors -----------------------------------------------------------------------------------------------------


def test_frames_read_while_the_writer_is_open(sweep: str) -> None:
    with open_writer(sweep) as writer:
        listener = writer.listener("tickets")
        for batch in COMPLETED:
            listener(batch)
        results = open_results(sweep)
        best = results.best("tickets")
        assert best is not None
        assert (best.number, best.value) == (0, 0.6)
        assert results.points("tickets")["value"].tolist() == [0.5, -0.5, 0.6, -0.6]
        assert results.trials()["attempts"].tolist() == [1]


def test_a_wrong_password_and_a_missing_database_are_told_without_the_password(postgresql: Server) -> None:
    password = postgresql.url.partition("postgres:")[2].partition("@")[0]
    with pytest.raises(ResultsError, match="Check user and password") as caught:
        open_writer(f"{postgresql.url.replace(password, 'wrong-secret')}/postgres")
    assert "wrong-secret" not in str(caught.value)
    with pytest.raises(ResultsError, match=r'database "nowhere" does not exist.*Create it on the server'):
        open_results(f"{postgresql.url}/nowhere")


def test_a_server_that_is_not_there() -> None:
    pytest.importorskip("psycopg")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(ResultsError, match=r"refused.*Is the server running"):
        open_writer(f"postgresql://me:secret@127.0.0.1:{port}/x")
