"""Jobs that are cancelled, paused, lost with their process or with the whole server; and faults on the way."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest
from tests.emulator.conftest import Server, as_file, wait_for

from finesweep.emulator.faults import KINDS, Faults
from finesweep.emulator.objects import Hyperparameters
from finesweep.emulator.settings import settled
from finesweep.errors import ResourcesError

LONG = {"n_epochs": 50, "batch_size": 1, "learning_rate_multiplier": 1}  # 600 steps


def begun(client: openai.OpenAI, rows: list[Any], **options: Any) -> str:
    file = client.files.create(file=("rows.jsonl", as_file(rows)), purpose="fine-tune").id
    asked = {"model": "davinci-002", "training_file": file, "validation_file": file, "hyperparameters": LONG, "seed": 1}
    return client.fine_tuning.jobs.create(**{**asked, **options}).id


def curve(client: openai.OpenAI, job: str) -> list[tuple[float, float]]:
    events = reversed(list(client.fine_tuning.jobs.list_events(job)))
    return [(event.data["step"], event.data["valid_loss"]) for event in events if event.type == "metrics"]


def wait_for_a_report(client: openai.OpenAI, job: str) -> None:
    while not curve(client, job):
        time.sleep(0.02)


def test_a_cancelled_job_stops_and_leaves_no_model(serve: Callable[..., Server], rows: list[Any]) -> None:
    server = serve()
    client = server.client()
    job = begun(client, rows)
    wait_for_a_report(client, job)
    assert client.fine_tuning.jobs.cancel(job).status == "cancelled"
    following = begun(client, rows, hyperparameters={"n_epochs": 1})
    assert wait_for(following, client).status == "succeeded"  # the slot is free
    cancelled = client.fine_tuning.jobs.retrieve(job)
    assert cancelled.fine_tuned_model is None
    assert 0 < cancelled.trained_tokens < 50 * 12 * 8
    assert len(curve(client, job)) < 10
    with pytest.raises(openai.BadRequestError, match="is cancelled already"):
        client.fine_tuning.jobs.cancel(job)


def test_a_paused_job_goes_on_as_if_it_had_not_been(serve: Callable[..., Server], rows: list[Any]) -> None:
    client = serve().client()
    unbroken, job = begun(client, rows), begun(client, rows)
    wait_for(unbroken, client)
    wait_for_a_report(client, job)
    assert client.fine_tuning.jobs.pause(job).status == "paused"
    assert client.fine_tuning.jobs.resume(job).status == "queued"
    assert wait_for(job, client).status == "succeeded"
    assert curve(client, job) == curve(client, unbroken)


def test_a_job_whose_process_is_killed_is_begun_again(serve: Callable[..., Server], rows: list[Any]) -> None:
    server = serve()
    client = server.client()
    job = begun(client, rows)
    wait_for_a_report(client, job)
    os.kill(server.emulator.jobs._slots[0]._process.pid, signal.SIGKILL)
    assert wait_for(job, client).status == "succeeded"
    said = [event.message for event in client.fine_tuning.jobs.list_events(job)]
    assert any("died (exit code -9); it is begun again" in message for message in said)


def test_a_server_that_is_started_again_goes_on(serve: Callable[..., Server], rows: list[Any], tmp_path: Path) -> None:
    first = serve(folder=tmp_path / "kept")
    client = first.client()
    done, job = begun(client, rows, hyperparameters={"n_epochs": 1}), begun(client, rows)
    made = wait_for(done, client).fine_tuned_model
    wait_for_a_report(client, job)
    with pytest.raises(ResourcesError, match="another emulator serves"):
        serve(folder=tmp_path / "kept")
    first.end()
    client = serve(folder=tmp_path / "kept").client()
    assert wait_for(job, client).status == "succeeded"
    assert client.models.retrieve(made).id == made
    assert client.completions.create(model=made, prompt=rows[0]["prompt"], max_tokens=1).choices[0].text


def test_a_disk_that_is_full_fails_the_job_and_not_the_server(
    serve: Callable[..., Server], rows: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve()
    client = server.client()
    tell = server.emulator.jobs.tell

    def full(*_: object) -> None:
        monkeypatch.setattr(server.emulator.jobs, "tell", tell)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(server.emulator.jobs, "tell", full)
    failed = wait_for(begun(client, rows), client)
    assert (failed.status, failed.error.code) == ("failed", "server_error")
    assert "No space left on device" in failed.error.message
    assert wait_for(begun(client, rows, hyperparameters={"n_epochs": 1}), client).status == "succeeded"


def test_several_jobs_train_at_once(serve: Callable[..., Server], rows: list[Any]) -> None:
    client = serve(parallel=2).client()
    jobs = [begun(client, rows) for _ in range(2)]
    for job in jobs:
        wait_for(job, client, "running")
    assert [client.fine_tuning.jobs.retrieve(job).status for job in jobs] == ["running", "running"]
    assert [wait_for(job, client).status for job in jobs] == ["succeeded", "succeeded"]
    assert curve(client, jobs[0]) == curve(client, jobs[1])  # of one seed


@pytest.mark.parametrize("kind", ["rate_limit", "server_error", "reset_before", "reset_after", "slow"])
def test_each_fault_befalls_the_client(serve: Callable[..., Server], kind: str) -> None:
    faults = Faults({kind: 1.0}, delay_s=0.3)
    server = serve(faults=faults)
    errors = {
        "rate_limit": openai.RateLimitError,
        "server_error": openai.InternalServerError,
        "reset_before": openai.APIConnectionError,
        "reset_after": openai.APIConnectionError,
        "slow": openai.APITimeoutError,
    }
    with pytest.raises(errors[kind]) as raised:
        server.client(timeout=0.1).models.list()
    if kind == "rate_limit":
        assert raised.value.response.headers["Retry-After"] == "0.2"
    assert faults.counts[kind] == 1
    faults.rates[kind] = 0.0
    faults._burst_left = 0
    assert list(server.client().models.list())


def test_a_request_whose_answer_is_lost_was_acted_on(serve: Callable[..., Server], rows: list[Any]) -> None:
    faults = Faults()
    server = serve(faults=faults)
    client = server.client()
    file = client.files.create(file=("rows.jsonl", as_file(rows)), purpose="fine-tune").id
    faults.rates["reset_after"] = 1.0
    with pytest.raises(openai.APIConnectionError):
        client.fine_tuning.jobs.create(model="davinci-002", training_file=file, metadata={"trial": "7"})
    faults.rates["reset_after"] = 0.0
    assert len(list(client.fine_tuning.jobs.list(metadata={"trial": "7"}))) == 1


def test_slow_events_and_failed_validations(serve: Callable[..., Server], rows: list[Any]) -> None:
    faults = Faults({"validation": 1.0})
    client = serve(faults=faults).client()
    spoilt = client.fine_tuning.jobs.retrieve(begun(client, rows))
    assert (spoilt.status, spoilt.error.code) == ("failed", "invalid_training_file")
    faults.rates = {"slow_events": 1.0}
    late = list(client.fine_tuning.jobs.list_events(spoilt.id))
    faults.rates = {}
    assert len(list(client.fine_tuning.jobs.list_events(spoilt.id))) == len(late) + 3


def test_faults_are_known_and_between_0_and_1() -> None:
    with pytest.raises(ValueError, match=r"no fault 'fire'\. Known: rate_limit"):
        Faults({"fire": 0.5})
    with pytest.raises(ValueError, match=r"slow is 1\.5, but must be from 0 to 1"):
        Faults({"slow": 1.5})
    often = Faults({"server_error": 0.25}, seed=1)
    struck = sum(often.strikes("server_error") for _ in range(4000))
    assert 900 < struck < 1100
    assert often.counts == {**dict.fromkeys(KINDS, 0), "server_error": struck}


def test_what_auto_comes_to() -> None:
    assert settled(Hyperparameters(), n_rows=1000) == Hyperparameters(3, 8, 1.0)
    assert settled(Hyperparameters(), n_rows=12) == Hyperparameters(3, 1, 1.0)
    assert settled(Hyperparameters(5, "auto", 0.5), n_rows=100) == Hyperparameters(5, 2, 0.5)
