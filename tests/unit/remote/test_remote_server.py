"""A server as a sweep uses it: files once, one job a trial, events; whatever servers do differently."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from tests.unit.remote.conftest import KEY, UID, URL, Fake, Time, event, refusal

from finesweep.errors import RemoteError, ServerAwayError
from finesweep.remote.rows import JobFile
from finesweep.remote.server import Server, connect
from finesweep.spec.sweep import Remote

Make = Callable[..., Server]
JOBS = "/fine_tuning/jobs"
PAGE = httpx2.Response(200, text="<html>Welcome</html>", headers={"content-type": "text/html"})


def create(server: Server, trial: int = 0, **asked: Any) -> Any:
    return server.create(trial, {"n_epochs": 2, **asked}, seed=7, train="file-0", validation="file-1")


# --- the key ----------------------------------------------------------------------------------------------------


REMOTE = Remote.model_validate({"base_url": URL, "model": "m", "api_key_env": "TRIED_KEY"})


@pytest.mark.parametrize("value", [None, "", "  ", "\n"])
def test_without_a_key_the_variable_is_named(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    monkeypatch.delenv("TRIED_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("TRIED_KEY", value)
    with pytest.raises(RemoteError, match=r"remote\.api_key_env: the environment variable TRIED_KEY is not set"):
        connect(REMOTE)


def test_a_line_end_after_the_key_is_no_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIED_KEY", f"{KEY}\r\n")
    assert connect(REMOTE).api_key == KEY


@pytest.mark.parametrize("value", ["sk-one two-three", "sk-one\nsk-two", "sk-ключ", "sk-\x00null"[:3] + "\x07"])
def test_what_cannot_be_a_key_is_refused_and_not_repeated(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("TRIED_KEY", value)
    with pytest.raises(RemoteError, match="TRIED_KEY holds cannot be a key") as raised:
        connect(REMOTE)
    assert value not in str(raised.value)


def test_the_client_itself_does_not_ask_again() -> None:
    remote = Remote.model_validate({"base_url": URL, "model": "m", "timeout_s": 3})
    client = connect(remote)
    assert (client.max_retries, client.timeout) == (0, 3)


# --- files ------------------------------------------------------------------------------------------------------


def test_a_file_is_uploaded_once(fake: Fake, make_server: Make, file: JobFile) -> None:
    assert make_server().upload(file) == make_server("another sweep").upload(file) == "file-0"
    assert fake.count("POST", "/files") == 1
    assert (fake.files[0]["filename"], fake.files[0]["bytes"]) == ("finesweep-d1.jsonl", 10)


@pytest.mark.parametrize("differs", [{"filename": "finesweep-d2.jsonl"}, {"bytes": 9}, {"status": "error"}])
def test_a_file_is_known_by_its_name_and_size(
    fake: Fake, make_server: Make, file: JobFile, differs: dict[str, Any]
) -> None:
    make_server().upload(file)
    fake.files[0] |= differs
    assert make_server().upload(file) == "file-1"


def test_a_file_is_found_on_a_later_page(fake: Fake, make_server: Make, file: JobFile) -> None:
    make_server().upload(file)
    fake.files += [{**fake.files[0], "id": f"file-{n}", "filename": "another"} for n in range(1, 8)]
    fake.page_size = 3
    assert make_server().upload(file) == "file-0"
    assert fake.count("POST", "/files") == 1


def test_an_upload_whose_answer_is_lost_is_not_repeated(fake: Fake, make_server: Make, file: JobFile) -> None:
    fake.lost = {1}
    assert make_server().upload(file) == "file-0"
    assert fake.count("POST", "/files") == 1


def test_an_upload_that_is_answered_by_a_proxys_page_is_looked_for(
    fake: Fake, make_server: Make, file: JobFile
) -> None:
    fake.script = [None, PAGE]
    assert make_server().upload(file) == "file-0"
    assert fake.count("POST", "/files") == 2


# --- lists ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("heeds_after", "tells_has_more"), [(False, False), (False, True), (True, False)])
def test_lists_end_whatever_servers_make_of_pages(
    fake: Fake, make_server: Make, heeds_after: bool, tells_has_more: bool
) -> None:
    """Some give the same page for ever, as LiteLLM did (its issue 36324)."""
    for trial in range(5):
        fake.add_job(trial=trial)
    fake.heeds_after, fake.tells_has_more = heeds_after, tells_has_more
    fake.page_size = 5 if not heeds_after else 2
    assert [job.id for job in make_server().jobs()] == [f"ftjob-{n}" for n in (4, 3, 2, 1, 0)]
    if not heeds_after and tells_has_more:
        fake.page_size = 3  # what is beyond cannot be seen; but it does not go on for ever
        assert len(make_server().jobs()) == 3


def test_a_page_of_a_proxy_is_no_list(fake: Fake, make_server: Make) -> None:
    fake.add_job(trial=0)
    fake.script = [PAGE, PAGE]
    assert [job.id for job in make_server().jobs()] == ["ftjob-0"]
    assert len(fake.requests) == 3
    fake.script = [PAGE] * 50
    with pytest.raises(ServerAwayError, match=r"listing jobs: .*its answer is no list; does remote\.base_url end as"):
        make_server(patience_s=5).jobs()


@pytest.mark.parametrize("data", [None, [], [None, "x", {"object": "fine_tuning.job"}]])
def test_odd_entries_of_lists_are_left_out(fake: Fake, make_server: Make, data: Any) -> None:
    fake.script = [(200, {"object": "list", "data": data, "has_more": False})]
    assert make_server().jobs() == []


# --- jobs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["method", "top-level"])
def test_both_forms_of_a_request(fake: Fake, make_server: Make, where: str) -> None:
    job = create(make_server(hyperparameters=where, suffix="owl"), 3, batch_size="auto", learning_rate_multiplier=0.5)
    asked = {"n_epochs": 2, "learning_rate_multiplier": 0.5}  # what is auto is left to the server
    form = (
        {"method": {"type": "supervised", "supervised": {"hyperparameters": asked}}}
        if where == "method"
        else {"hyperparameters": asked}
    )
    assert fake.bodies == [
        {
            "model": "davinci-002",
            "training_file": "file-0",
            "validation_file": "file-1",
            "seed": 7,
            "suffix": "owl",
            "metadata": {"finesweep_sweep": UID, "finesweep_trial": "3"},
            **form,
        }
    ]
    assert (job.id, job.metadata["finesweep_trial"]) == ("ftjob-0", "3")


def test_without_a_suffix_none_is_sent(fake: Fake, make_server: Make) -> None:
    create(make_server())
    assert "suffix" not in fake.bodies[0]


def test_jobs_of_others_are_left_alone(fake: Fake, make_server: Make) -> None:
    fake.add_job(trial=0, uid="another sweep")
    fake.add_job()  # somebody's, without metadata
    mine = fake.add_job(trial=0)
    server = make_server()
    assert [job.id for job in server.jobs()] == [mine["id"]]
    assert server.job_of(0).id == mine["id"]
    assert server.job_of(1) is None
    assert [job["status"] for job in fake.jobs] == ["running"] * 3


def test_a_trials_job_is_one_that_runs_or_has_succeeded(fake: Fake, make_server: Make) -> None:
    server = make_server()
    for status in ("failed", "cancelled"):
        fake.add_job(trial=0, status=status)
    assert server.job_of(0) is None
    first = fake.add_job(trial=0)
    second = fake.add_job(trial=0)
    assert server.job_of(0).id == first["id"]  # the oldest is furthest
    assert [twin.id for twin in server.twins_of(0, first["id"])] == [second["id"]]
    done = fake.add_job(trial=0, status="succeeded")
    assert server.job_of(0).id == done["id"]
    assert {twin.id for twin in server.twins_of(0, done["id"])} == {first["id"], second["id"]}


def test_a_job_whose_answer_is_lost_is_not_begun_again(fake: Fake, make_server: Make) -> None:
    fake.lost = {1}
    assert create(make_server()).id == "ftjob-0"
    assert len(fake.bodies) == 1


@pytest.mark.parametrize("n_lists", [1, 2, 3])
def test_nor_is_one_that_is_listed_late(fake: Fake, make_server: Make, time: Time, n_lists: int) -> None:
    fake.lost, fake.n_lists_late = {1}, n_lists
    assert create(make_server()).id == "ftjob-0"
    assert len(fake.bodies) == 1
    assert time.now_s > 0.5 * n_lists


def test_one_that_is_listed_very_late_is_a_twin(fake: Fake, make_server: Make) -> None:
    fake.lost, fake.n_lists_late = {1}, 4
    server = make_server()
    job = create(server, 5)
    assert job.id == "ftjob-1"
    [twin] = server.twins_of(5, job.id)
    assert twin.id == "ftjob-0"
    server.cancel(twin.id)
    assert server.twins_of(5, job.id) == []


def test_where_no_answer_was_lost_nobody_looks_for_twins(fake: Fake, make_server: Make) -> None:
    server = make_server()
    job = create(server)
    n_requests = len(fake.requests)
    assert server.twins_of(0, job.id) == []
    assert len(fake.requests) == n_requests


def test_another_trials_job_is_not_taken_for_the_lost_one(fake: Fake, make_server: Make) -> None:
    fake.add_job(trial=1)
    fake.add_job(trial=0, status="cancelled")
    server = make_server()
    assert server.job_of(0) is None
    fake.script = [httpx2.ReadTimeout("slow")]
    assert create(server).id == "ftjob-2"


def test_a_job_that_failed_while_its_answer_was_lost_is_not_begun_again(fake: Fake, make_server: Make) -> None:
    fake.add_job(trial=0, status="failed")
    server = make_server()
    assert server.job_of(0) is None
    fake.lost, fake.fails_at_once = {1}, True
    job = create(server)
    assert (job.id, job.outcome) == ("ftjob-1", "failed")
    assert len(fake.bodies) == 1


def test_files_that_are_not_ready_are_waited_for(fake: Fake, make_server: Make, time: Time) -> None:
    busy = refusal(400, "File 'file-0' is still being processed and is not ready to be used for fine-tuning.")
    fake.script = [busy, None, busy, None]
    assert create(make_server()).id == "ftjob-0"
    assert fake.count("POST", JOBS) == 3
    fake.script = [busy, None] * 100
    with pytest.raises(ServerAwayError, match="still being processed"):
        create(make_server(patience_s=60), 1)


def test_a_refusal_is_told(fake: Fake, make_server: Make) -> None:
    fake.script = [refusal(400, "batch_size too large", "invalid_value")]
    with pytest.raises(
        RemoteError, match=r"beginning a job: the server says 400 \(invalid_value\): batch_size"
    ) as said:
        create(make_server())
    assert (said.value.code, said.value.status) == ("invalid_value", 400)


def test_a_server_that_keeps_no_metadata_is_told_of(
    fake: Fake, make_server: Make, caplog: pytest.LogCaptureFixture
) -> None:
    fake.keeps_metadata = False
    assert create(make_server()).id == "ftjob-0"
    assert "does not keep metadata" in caplog.text


def test_a_job_that_is_over_is_not_cancelled(fake: Fake, make_server: Make) -> None:
    done = fake.add_job(trial=0, status="succeeded", trained_tokens=5)
    assert make_server().cancel(done["id"]).trained_tokens == 5
    fake.script = [refusal(409, "conflict: it has ended")]  # as other servers say it
    assert make_server().cancel(done["id"]).outcome == "succeeded"


def test_a_job_that_cannot_be_cancelled_is_told_of(fake: Fake, make_server: Make) -> None:
    job = fake.add_job(trial=0)
    fake.script = [refusal(400, "jobs cannot be cancelled here")]
    with pytest.raises(RemoteError, match=r"cancelling job ftjob-0: .* jobs cannot be cancelled here"):
        make_server().cancel(job["id"])


def test_a_job_that_is_not_there(make_server: Make) -> None:
    assert make_server().job_if_there("ftjob-9") is None
    with pytest.raises(RemoteError, match="404"):
        make_server().job("ftjob-9")


# --- what jobs tell ---------------------------------------------------------------------------------------------


def test_events_of_several_pages_are_put_together_by_step(fake: Fake, make_server: Make) -> None:
    fake.page_size = 2
    fake.events["j"] = [event("hello", 1, {})]
    fake.add_job(trial=0, id="j")
    for step in (1, 2):
        fake.tell("j", step, train_loss=3.0 - step, total_steps=2)
        fake.tell("j", step, full_valid_loss=2.0 - step)
    points = make_server().metrics("j")
    assert [(point.step, dict(point.values), point.n_steps) for point in points] == [
        (1, {"train_loss": 2.0, "full_valid_loss": 1.0}, 2),
        (2, {"train_loss": 1.0, "full_valid_loss": 0.0}, 2),
    ]


def test_what_is_said_last_of_a_step_counts(fake: Fake, make_server: Make) -> None:
    fake.add_job(trial=0, id="j")
    fake.tell("j", 1, valid_loss=2.0)
    fake.tell("j", 1, valid_loss=1.5)
    fake.tell("j", 1, created_at=5, valid_loss=1.0)
    assert make_server().metrics("j")[0].values["valid_loss"] == 1.0


def test_of_many_events_only_new_ones_are_asked_for(fake: Fake, make_server: Make) -> None:
    fake.add_job(trial=0, id="j")
    fake.page_size = 10
    for step in range(1, 101):
        fake.tell("j", step, created_at=step, valid_loss=1.0)
    server = make_server()
    assert len(server.metrics("j")) == 100
    assert len(fake.requests) == 10
    for step in range(101, 104):
        fake.tell("j", step, created_at=step, valid_loss=1.0)
    assert [point.step for point in server.metrics("j")] == list(range(1, 104))
    assert len(fake.requests) == 12  # the page of what is new, and one that holds nothing new
    assert len(server.metrics("j")) == 103
    assert len(fake.requests) == 13


def test_where_the_order_is_not_sure_all_are_asked_for(fake: Fake, make_server: Make) -> None:
    """All of one second: the newest may stand on the last page."""
    fake.add_job(trial=0, id="j")
    fake.page_size = 2
    for step in range(1, 7):
        fake.tell("j", step, created_at=3, valid_loss=1.0)
    server = make_server()
    server.metrics("j")
    fake.events["j"].insert(0, event("late", 3, {"step": 7, "valid_loss": 0.5}))
    assert [point.step for point in server.metrics("j")] == list(range(1, 8))


def test_events_that_come_oldest_first_are_read_as_well(fake: Fake, make_server: Make) -> None:
    fake.add_job(trial=0, id="j")
    fake.page_size = 2
    server = make_server()
    for n_steps in (3, 6):
        fake.events["j"] = [event(f"e{n}", n, {"step": n, "valid_loss": 1.0 / n}) for n in range(n_steps, 0, -1)]
        assert [point.step for point in server.metrics("j")] == list(range(1, n_steps + 1))


@pytest.mark.parametrize("status", [404, 405, 501])
def test_a_server_without_checkpoints_has_none(fake: Fake, make_server: Make, time: Time, status: int) -> None:
    fake.add_job(trial=0, id="j")
    fake.script = [refusal(status, "no such thing")]
    assert make_server().checkpoints("j") == []
    assert time.sleeps == []


def test_checkpoints_come_newest_first(fake: Fake, make_server: Make) -> None:
    fake.add_job(trial=0, id="j")
    assert fake.checkpoints is not None
    fake.checkpoints["j"] = [
        {"id": f"c{n}", "fine_tuned_model_checkpoint": f"ft:{n}", "metrics": {"full_valid_loss": n}} for n in range(3)
    ]
    assert [point["fine_tuned_model_checkpoint"] for point in make_server().checkpoints("j")] == [
        "ft:2",
        "ft:1",
        "ft:0",
    ]


def test_a_real_client_is_made_with_the_key(tmp_path: Path) -> None:
    client = connect(Remote.model_validate({"base_url": URL, "model": "m"}))
    assert isinstance(client, openai.OpenAI)
    assert client.api_key == KEY
