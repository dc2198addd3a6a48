"""Remote sweeps when things go wrong: storms of faults, drivers that die between any two requests, budgets."""

from __future__ import annotations

import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from tests.emulator.conftest import KEY, Server, wait_for
from tests.emulator.test_remote_sweeps import _key as _key
from tests.emulator.test_remote_sweeps import make_sweep as make_sweep
from tests.emulator.test_remote_sweeps import results as results
from tests.emulator.test_remote_sweeps import run

from finesweep import sweeps
from finesweep.emulator.faults import KINDS, Faults
from finesweep.errors import ServerAwayError
from finesweep.events import Decision, Ending, Grid, Report, TrialSpec
from finesweep.remote import calls, server, trainer
from finesweep.remote.ledger import SPENT
from finesweep.remote.rows import prepare_rows
from finesweep.results.frames import Results
from finesweep.spec.sweep import RemoteSweep

Sweeps = Callable[..., RemoteSweep]
GRID = Grid("examples", 12, 120)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "FIRST_WAIT_S", 0.01)


class Recorder:
    """A sweep's side of the seam: whatever is reported is answered by `decide`."""

    def __init__(self, decide: Callable[[int], Decision] = lambda n: Decision.CONTINUE) -> None:
        self.reports: list[Report] = []
        self.facts: dict[str, Any] = {}
        self._decide = decide

    def describe(self, facts: Any) -> None:
        self.facts |= facts

    def report(self, report: Report) -> Decision:
        self.reports.append(report)
        return self._decide(len(self.reports))

    def poll(self) -> Decision:
        return self._decide(len(self.reports)) if self.reports else Decision.CONTINUE


def make_trainer(spec: RemoteSweep, folder: Path) -> trainer.RemoteTrainer:
    files = prepare_rows(spec, cache_dir=folder / "cache")
    return trainer.RemoteTrainer(spec, GRID, files, artifact_dir=folder / "artifacts" / spec.name, uid="a-sweep")


def live_jobs(served: Server) -> Counter[str]:
    """Count the jobs of each trial that somebody pays for."""
    jobs = [job for job in served.emulator.store.jobs() if job.status not in ("failed", "cancelled")]
    return Counter(job.metadata["finesweep_trial"] for job in jobs)


def test_in_a_storm_no_job_is_lost_or_doubled_and_the_budget_holds(
    serve: Callable[..., Server], make_sweep: Sweeps, results: Callable[[], Results]
) -> None:
    """Every kind of fault, hundreds of requests; an answer that takes longer than a client waits is lost as well."""
    rates = {**dict.fromkeys(KINDS, 0.07), "slow": 0.03, "validation": 0.25}
    faults = Faults(rates, retry_after_s=0.02, delay_s=0.6, seed=5)
    served = serve(faults=faults)
    trials = 16
    spec = make_sweep(served)
    limit = 5 * len(served_rows(spec)) + 200  # the first job fits by the most that it can take, and not all 16 do
    study = {
        "objective": {"metric": "valid_loss", "direction": "minimize"},
        "sampler": {"type": "random", "seed": 0},
        "parameters": {"learning_rate_multiplier": {"type": "float", "low": 1, "high": 1000, "log": True}},
    }
    training = {"batch_size": 4, "n_epochs": 5, "seed": 1}
    budget = {"trials": trials, "stop_after_failures": 0, "tokens": limit}
    end = run(make_sweep(served, remote={"timeout_s": 0.3}, study=study, training=training, budget=budget))
    assert end.reason == SPENT
    paid = [job.trained_tokens or 0 for job in served.emulator.store.jobs()]
    assert limit - max(paid) < sum(paid) <= limit
    sweeps.extend("animals", tokens=10 * limit, results=spec.results)
    end = sweeps.resume("animals", results=spec.results, backend="inline")
    assert end.state == "FINISHED"
    assert faults.n_requests > 300
    assert all(faults.counts[kind] > 0 for kind in KINDS), faults.counts
    jobs = served.emulator.store.jobs()
    told = {int(job.metadata["finesweep_trial"]): job for job in jobs}
    assert sorted(told) == list(range(trials)) and len(jobs) == trials
    assert len(served.emulator.store.files()) == 1
    outcomes = {"succeeded": "COMPLETE", "failed": "FAILED"}  # some files failed their validation
    states = dict(results().trials("animals")[["number", "state"]].to_numpy().tolist())
    assert states == {number: outcomes[job.status] for number, job in told.items()}
    assert {*states.values()} == {"COMPLETE", "FAILED"}
    for number, job in told.items():  # the curve is whole, whatever was shown late
        steps = [event.data["step"] for event in job.events if event.data]
        assert [report.examples_seen / 4 for report in results().trial("animals", number).reports] == steps


class _Killed(BaseException):
    """The end of a driver, between two of its instructions."""


class _Deadly(httpx2.HTTPTransport):
    """Ends the driver at a request: before it is sent, or when its answer has come."""

    def __init__(self, at: int, *, after: bool) -> None:
        super().__init__()
        self._left, self._after = at, after

    def handle_request(self, request: Any) -> Any:
        self._left -= 1
        if self._left < 0 and not self._after:
            raise _Killed
        answer = super().handle_request(request)
        if self._left < 0:
            raise _Killed
        return answer


@pytest.fixture
def deadly(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Return a function that has the next driver die at a request."""
    honest = server.connect
    made: list[Any] = []

    def arm(at: int | None, *, after: bool = False) -> None:
        def connect(remote: Any) -> openai.OpenAI:
            client = honest(remote)
            if at is not None:
                made.append(client)
                made.append(httpx2.Client(transport=_Deadly(at, after=after)))
                client = client.copy(http_client=made[-1])
            return client

        monkeypatch.setattr(server, "connect", connect)

    yield arm
    for one in made:
        one.close()


def test_a_driver_that_dies_at_any_request_pays_for_no_job_twice(
    serve: Callable[..., Server], make_sweep: Sweeps, tmp_path: Path, deadly: Callable[..., None]
) -> None:
    served = serve()
    spec = make_sweep(served)
    n_deaths = 0
    for at in range(10):
        for after in (False, True):
            trial = TrialSpec(n_deaths, 1, {"n_epochs": 1, "learning_rate_multiplier": 1.0})
            deadly(at, after=after)
            with suppress(_Killed):  # at last it dies when the job is done, or not at all
                make_trainer(spec, tmp_path).run(trial, Recorder())
                assert at > 5, "a job takes more requests than that"
            deadly(None)
            told = Recorder()
            assert make_trainer(spec, tmp_path).run(trial, told).ending is Ending.DONE
            assert told.reports
            n_deaths += 1
    assert live_jobs(served) == {str(number): 1 for number in range(n_deaths)}
    assert len(served.emulator.store.jobs()) == n_deaths  # and none that was cancelled afterwards
    paid = sum(job.trained_tokens or 0 for job in served.emulator.store.jobs())
    ledger = make_trainer(spec, tmp_path)._ledger.spent()
    assert (ledger.settled, ledger.reserved) == (paid, 0)


def test_a_paused_trial_leaves_its_job_and_finds_it_again(
    serve: Callable[..., Server], make_sweep: Sweeps, tmp_path: Path
) -> None:
    served = serve()
    spec = make_sweep(served, training={"batch_size": 1, "seed": 1})
    trial = TrialSpec(0, 1, {"n_epochs": 10, "learning_rate_multiplier": 1.0})
    first = Recorder(lambda n: Decision.PAUSE)
    assert make_trainer(spec, tmp_path).run(trial, first).ending is Ending.PAUSED
    [job] = served.emulator.store.jobs()
    wait_for(job.id, served.client(), "succeeded")  # it went on by itself
    second = Recorder()
    assert make_trainer(spec, tmp_path).run(TrialSpec(0, 2, trial.configuration), second).ending is Ending.DONE
    assert len(served.emulator.store.jobs()) == 1
    assert [report.step for report in second.reports][: len(first.reports)] == [report.step for report in first.reports]


def test_a_stopped_trial_cancels_its_job(serve: Callable[..., Server], make_sweep: Sweeps, tmp_path: Path) -> None:
    served = serve()
    spec = make_sweep(served, training={"batch_size": 1, "seed": 1})
    trial = TrialSpec(0, 1, {"n_epochs": 50, "learning_rate_multiplier": 1.0})
    assert make_trainer(spec, tmp_path).run(trial, Recorder(lambda n: Decision.STOP)).ending is Ending.STOPPED
    [job] = served.emulator.store.jobs()
    assert job.status == "cancelled"
    spent = make_trainer(spec, tmp_path)._ledger.spent()
    assert (spent.settled, spent.reserved) == (job.trained_tokens, 0)


def test_the_budget_of_tokens_is_not_exceeded(
    serve: Callable[..., Server], make_sweep: Sweeps, results: Callable[[], Results]
) -> None:
    served = serve()
    training = {"batch_size": 4, "n_epochs": 5, "seed": 1}
    study = {
        "objective": {"metric": "valid_loss", "direction": "minimize"},
        "sampler": {"type": "random", "seed": 0},
        "parameters": {"learning_rate_multiplier": {"type": "float", "low": 1, "high": 2}},
    }
    n_bytes = 5 * len(served_rows(make_sweep(served)))
    limit = n_bytes + 100  # the first job fits by the most that it can take, then by what jobs were seen to take
    end = run(make_sweep(served, training=training, study=study, budget={"trials": 50, "tokens": limit}))
    assert end.state == "INTERRUPTED"
    assert end.reason == SPENT
    jobs = served.emulator.store.jobs()
    tokens = [job.trained_tokens for job in jobs]
    assert len(jobs) > 3
    assert limit - max(tokens) < sum(tokens) <= limit
    states = results().trials("animals")["state"].value_counts()
    assert (states["COMPLETE"], states["INTERRUPTED"]) == (len(jobs), 1)

    url = results().url
    shutil.rmtree(results().artifact_dir("animals") / "remote")  # whatever becomes of the ledger, the server knows
    assert sweeps.resume("animals", results=url, backend="inline").reason == SPENT
    assert len(served.emulator.store.jobs()) == len(jobs)
    more = limit + 2 * max(tokens)
    sweeps.extend("animals", tokens=more, results=url)
    assert sweeps.resume("animals", results=url, backend="inline").reason == SPENT
    after = [job.trained_tokens for job in served.emulator.store.jobs()]
    assert len(after) > len(jobs)
    assert more - max(tokens) < sum(after) <= more


def served_rows(spec: RemoteSweep) -> bytes:
    return prepare_rows(spec, cache_dir=Path(spec.artifacts.folder or "") / "cache").train.path.read_bytes()


def test_jobs_that_nobody_waits_for_are_cancelled(
    serve: Callable[..., Server], make_sweep: Sweeps, results: Callable[[], Results], tmp_path: Path
) -> None:
    served = serve()
    spec = make_sweep(served, budget={"trials": 1})
    run(spec)
    client, [done] = served.client(), served.emulator.store.jobs()
    left = client.fine_tuning.jobs.create(  # as of a driver that died, whose trial has since been pruned
        model="davinci-002",
        training_file=done.training_file,
        hyperparameters={"n_epochs": 50, "batch_size": 1},
        metadata={**done.metadata, "finesweep_trial": "0"},
    )
    sweeps.extend("animals", 2, results=spec.results)
    sweeps.resume("animals", results=spec.results, backend="inline")
    assert client.fine_tuning.jobs.retrieve(left.id).status == "cancelled"
    assert results().trials("animals")["state"].tolist() == ["COMPLETE"] * 2


def test_a_sweep_is_deleted_with_its_jobs_or_leaves_them(
    serve: Callable[..., Server], make_sweep: Sweeps, results: Callable[[], Results], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeps, "CANCELLING_PATIENCE_MINUTES", 0.001)
    faults = Faults()
    served = serve(faults=faults)
    training = {"batch_size": 1, "n_epochs": 50, "seed": 1}
    study = {
        "objective": {"metric": "loss", "direction": "minimize"},
        "parameters": {"learning_rate_multiplier": {"type": "float", "low": 1, "high": 2}},
    }
    spec = make_sweep(served, training=training, study=study, budget={"trials": 1})
    stop = threading.Thread(target=stop_when_begun, args=(served, results))
    stop.start()
    assert run(spec).state == "INTERRUPTED"
    stop.join()
    faults.rates["server_error"] = 1.0
    with pytest.raises(ServerAwayError, match="did not answer"):
        sweeps.delete("animals", results=spec.results)
    assert results().sweeps()["sweep"].tolist() == ["animals"]
    faults.rates.clear()
    assert sweeps.delete("animals", results=spec.results) == ()
    [job] = served.emulator.store.jobs()
    assert job.status == "cancelled"
    assert results().sweeps().empty
    run(make_sweep(served, budget={"trials": 1}))
    faults.rates["server_error"] = 1.0
    sweeps.delete("animals", results=spec.results)  # nothing runs: nobody is asked


def test_a_job_that_could_not_be_cancelled_is_when_the_sweep_is_over(
    serve: Callable[..., Server], make_sweep: Sweeps, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        raise ServerAwayError("the server is away")

    monkeypatch.setattr(trainer.RemoteTrainer, "_cancel", away)
    served = serve()
    study = {
        "objective": {"metric": "loss", "direction": "minimize"},
        "pruner": {"type": "threshold", "upper": 0.5},
        "parameters": {"learning_rate_multiplier": {"type": "float", "low": 1, "high": 2}},
    }
    training = {"batch_size": 1, "n_epochs": 50, "seed": 1, "eval_every": 60}
    said: list[str] = []
    spec = make_sweep(served, study=study, training=training, budget={"trials": 1})
    assert run(spec, view=sweeps.PlainView(said.append)).state == "FINISHED"
    [job] = served.emulator.store.jobs()
    assert job.status == "cancelled"
    assert f"job {job.id} is cancelled: no trial waits for it." in said


def stop_when_begun(served: Server, results: Callable[[], Results]) -> None:
    while not [job for job in served.emulator.store.jobs() if any(event.data for event in job.events)]:
        time.sleep(0.05)
    sweeps.stop("animals", results=results().url)


def test_a_failed_job_fails_its_trial_with_the_servers_words(
    serve: Callable[..., Server], make_sweep: Sweeps, results: Callable[[], Results]
) -> None:
    served = serve(faults=Faults({"validation": 1.0}))
    run(make_sweep(served, budget={"trials": 1, "stop_after_failures": 0}))
    [trial] = results().trials("animals").to_dict("records")
    assert trial["state"] == "FAILED"
    assert "failed (invalid_training_file): The file could not be validated." in trial["reason"]


def test_an_unknown_model_pauses_the_sweep(serve: Callable[..., Server], make_sweep: Sweeps) -> None:
    served = serve()
    end = run(make_sweep(served, remote={"model": "gpt-99"}))
    assert end.state == "INTERRUPTED"
    assert "404 (model_not_found)" in end.reason
    assert served.emulator.store.jobs() == []


def test_a_server_that_is_away_pauses_the_sweep(serve: Callable[..., Server], make_sweep: Sweeps) -> None:
    faults = Faults({"server_error": 1.0})
    served = serve(faults=faults)
    spec = make_sweep(served, remote={"patience_minutes": 0.01}, budget={"trials": 1})
    end = run(spec)
    assert end.state == "INTERRUPTED"
    assert "did not answer for" in end.reason
    faults.rates.clear()
    assert sweeps.resume("animals", results=spec.results, backend="inline").state == "FINISHED"


def test_the_key_is_written_nowhere(
    serve: Callable[..., Server], make_sweep: Sweeps, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    faults = Faults({"server_error": 0.1, "rate_limit": 0.1}, retry_after_s=0.01)
    spec = make_sweep(serve(faults=faults), budget={"trials": 2})
    run(spec, view=sweeps.PlainView(print))
    kept = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.suffix == ".db" for path in kept)
    assert not [path for path in kept if KEY.encode() in path.read_bytes()]
    said = capfd.readouterr()
    assert KEY not in said.out + said.err


@pytest.mark.slow
def test_several_jobs_at_once_on_ray(
    serve: Callable[..., Server], make_sweep: Sweeps, results: Callable[[], Results]
) -> None:
    served = serve(parallel=2)
    spec = make_sweep(served, remote={"max_concurrent": 4}, budget={"trials": 6}, training={"batch_size": 1, "seed": 1})
    end = run(spec, backend="ray")
    assert end.state == "FINISHED"
    assert live_jobs(served) == {str(number): 1 for number in range(6)}
    attempts = results().attempts("animals")
    assert len({facts["pid"] for facts in attempts["facts"]}) == 4
