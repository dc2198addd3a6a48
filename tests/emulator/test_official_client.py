"""The official client, unmodified, against the emulator: files, jobs, events, checkpoints, models, answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import openai
import pytest
from openai.types import Completion, FileObject, Model
from openai.types.chat import ChatCompletion
from openai.types.fine_tuning import FineTuningJob, FineTuningJobEvent
from openai.types.fine_tuning.jobs import FineTuningJobCheckpoint
from tests.emulator.conftest import KEY, Server, as_file, wait_for


@pytest.fixture
def client(serve: Callable[..., Server]) -> openai.OpenAI:
    return serve().client()


def uploaded(client: openai.OpenAI, rows: list[Any]) -> str:
    return client.files.create(file=("rows.jsonl", as_file(rows)), purpose="fine-tune").id


def test_from_a_file_to_an_answer(client: openai.OpenAI, rows: list[Any]) -> None:
    train, validation = uploaded(client, rows), uploaded(client, rows)
    created = client.fine_tuning.jobs.create(
        model="davinci-002",
        training_file=train,
        validation_file=validation,
        method={
            "type": "supervised",
            "supervised": {"hyperparameters": {"n_epochs": 30, "batch_size": 4, "learning_rate_multiplier": 500}},
        },
        suffix="animals",
        seed=3,
        metadata={"sweep": "tickets", "trial": "3"},
    )
    assert created.status in ("validating_files", "queued", "running")
    job = wait_for(created.id, client)
    assert (job.status, job.error, job.seed, job.metadata) == ("succeeded", None, 3, {"sweep": "tickets", "trial": "3"})
    assert job.hyperparameters.to_dict() == {"n_epochs": 30, "batch_size": 4, "learning_rate_multiplier": 500}
    assert job.fine_tuned_model.startswith("ft:davinci-002:emulator:animals:")
    assert job.trained_tokens > 12 * 30 * 4

    events = list(client.fine_tuning.jobs.list_events(job.id, limit=4))  # of several pages, the newest first
    curve = [event.data for event in reversed(events) if event.type == "metrics"]
    assert [point["step"] for point in curve] == [9 * place for place in range(1, 11)]  # 90 steps, ten reports
    assert curve[-1]["valid_loss"] < 0.5 * curve[0]["valid_loss"]
    assert curve[-1]["full_valid_loss"] == curve[-1]["valid_loss"]
    assert "successfully" in events[0].message

    last, *before_it = client.fine_tuning.jobs.checkpoints.list(job.id)
    assert (last.step_number, last.fine_tuned_model_checkpoint) == (90, job.fine_tuned_model)
    assert [checkpoint.step_number for checkpoint in before_it] == [81, 72]  # of ends of epochs that were reported
    told = {point["step"]: point["full_valid_loss"] for point in curve}
    assert [checkpoint.metrics.full_valid_loss for checkpoint in before_it] == [told[81], told[72]]
    assert job.fine_tuned_model in [model.id for model in client.models.list()]
    prompt = rows[0]["prompt"]
    answer = client.completions.create(model=job.fine_tuned_model, prompt=prompt, max_tokens=2, temperature=0)
    assert answer.choices[0].text.split() == rows[0]["completion"].split()
    for checkpoint in before_it:
        name = checkpoint.fine_tuned_model_checkpoint
        assert client.completions.create(model=name, prompt=prompt, max_tokens=2).model == name
    before = client.completions.create(model="davinci-002", prompt=prompt, max_tokens=2, temperature=0)
    assert before.choices[0].text != answer.choices[0].text
    asked = job.fine_tuned_model
    assert client.completions.create(model=asked, prompt=prompt, max_tokens=2, temperature=0).model == asked
    client.models.delete(asked)
    with pytest.raises(openai.NotFoundError):  # also while it is held in memory
        client.completions.create(model=asked, prompt=prompt, max_tokens=2)


def test_what_comes_is_what_the_clients_types_say(client: openai.OpenAI, rows: list[Any]) -> None:
    """Validated strictly: the client itself takes what comes as it is."""
    raw = client.with_raw_response
    file = raw.files.create(file=("rows.jsonl", as_file(rows)), purpose="fine-tune")
    FileObject.model_validate_json(file.text)
    created = raw.fine_tuning.jobs.create(
        model="davinci-002", training_file=file.parse().id, hyperparameters={"n_epochs": 1}
    )
    FineTuningJob.model_validate_json(created.text)
    job = wait_for(created.parse().id, client)
    FineTuningJob.model_validate_json(raw.fine_tuning.jobs.retrieve(job.id).text)
    for event in client.fine_tuning.jobs.list_events(job.id):
        FineTuningJobEvent.model_validate(event.to_dict())
    for checkpoint in client.fine_tuning.jobs.checkpoints.list(job.id):
        FineTuningJobCheckpoint.model_validate(checkpoint.to_dict())
    Model.model_validate_json(raw.models.retrieve(job.fine_tuned_model).text)
    Completion.model_validate_json(raw.completions.create(model=job.fine_tuned_model, prompt="a", max_tokens=2).text)
    assert client.files.content(file.parse().id).read() == as_file(rows)


def test_chats_train_and_answer(client: openai.OpenAI, rows: list[Any]) -> None:
    chats = [
        {
            "messages": [
                {"role": "user", "content": row["prompt"]},
                {"role": "assistant", "content": row["completion"].strip()},
            ]
        }
        for row in rows
    ]
    job = client.fine_tuning.jobs.create(model="gpt-4o-mini-2024-07-18", training_file=uploaded(client, chats))
    done = wait_for(job.id, client)
    assert done.status == "succeeded", done.error
    raw = client.with_raw_response.chat.completions.create(
        model=done.fine_tuned_model, messages=chats[0]["messages"][:1], max_tokens=3
    )
    ChatCompletion.model_validate_json(raw.text)
    curve = [event.data for event in client.fine_tuning.jobs.list_events(done.id) if event.type == "metrics"]
    assert all("valid_loss" not in point and point["train_loss"] > 0 for point in curve)  # no validation file


@pytest.mark.parametrize(
    ("hyperparameters", "param"),
    [
        ({"n_epochs": 0}, "n_epochs"),
        ({"n_epochs": 51}, "n_epochs"),
        ({"batch_size": 257}, "batch_size"),
        ({"learning_rate_multiplier": 0}, "learning_rate_multiplier"),
        ({"warmup_steps": 3}, "warmup_steps"),
    ],
)
def test_what_the_protocol_does_not_know_is_refused(
    client: openai.OpenAI, rows: list[Any], hyperparameters: Any, param: str
) -> None:
    file = uploaded(client, rows)
    with pytest.raises(openai.BadRequestError) as raised:
        client.fine_tuning.jobs.create(model="davinci-002", training_file=file, hyperparameters=hyperparameters)
    assert param in str(raised.value.param)
    assert list(client.fine_tuning.jobs.list()) == []


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda rows: rows[:9], "at least 10 examples"),
        (lambda rows: [*rows, {"prompt": "p"}], 'Example 13 cannot be used: it has no text "completion"'),
        (lambda rows: [{"messages": []}] * 12, "completion models take prompt and completion"),
    ],
)
def test_a_file_that_does_not_fit_fails_the_job(client: openai.OpenAI, rows: list[Any], spoil: Any, said: str) -> None:
    created = client.fine_tuning.jobs.create(model="davinci-002", training_file=uploaded(client, spoil(rows)))
    job = wait_for(created.id, client, "failed")
    assert job.error.code == "invalid_training_file"
    assert job.error.param == "training_file"
    assert said in job.error.message


def test_unknown_things_are_not_found(client: openai.OpenAI, rows: list[Any]) -> None:
    file = uploaded(client, rows)
    with pytest.raises(openai.NotFoundError) as raised:
        client.fine_tuning.jobs.create(model="gpt-99", training_file=file)
    assert raised.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError, match="invalid training_file"):
        client.fine_tuning.jobs.create(model="davinci-002", training_file="file-nope")
    for ask in (
        lambda: client.fine_tuning.jobs.retrieve("ftjob-nope"),
        lambda: client.fine_tuning.jobs.cancel("ftjob-nope"),
        lambda: client.files.retrieve("file-nope"),
        lambda: client.models.retrieve("ft:nope"),
        lambda: client.completions.create(model="davinci-nope", prompt="a"),
        lambda: client.files.retrieve("../../jobs/x"),
    ):
        with pytest.raises(openai.NotFoundError):
            ask()


def test_jobs_are_found_by_their_metadata(client: openai.OpenAI, rows: list[Any]) -> None:
    file = uploaded(client, rows)
    made = [
        client.fine_tuning.jobs.create(model="davinci-002", training_file=file, metadata={"trial": str(number % 2)}).id
        for number in range(4)
    ]
    found = [job.id for job in client.fine_tuning.jobs.list(metadata={"trial": "1"}, limit=1)]
    assert found == [made[3], made[1]]
    for job in made:
        client.fine_tuning.jobs.cancel(job)
    assert {job.status for job in client.fine_tuning.jobs.list()} == {"cancelled"}


def test_the_key_is_asked_for_and_kept_nowhere(
    serve: Callable[..., Server], rows: list[Any], capfd: pytest.CaptureFixture[str]
) -> None:
    server = serve(token=KEY)
    client = server.client()
    job = client.fine_tuning.jobs.create(model="davinci-002", training_file=uploaded(client, rows))
    wait_for(job.id, client)
    for key in ("sk-another-key", KEY + "x", KEY[:-1]):
        with pytest.raises(openai.AuthenticationError):
            server.client(api_key=key).models.list()
    folder = server.emulator.store.work_dir(server.emulator.store.jobs()[0]).parents[1]
    kept = [path for path in folder.rglob("*") if path.is_file()]
    assert kept
    assert not any(KEY.encode() in path.read_bytes() for path in kept)
    said = capfd.readouterr()
    assert KEY not in said.out + said.err


def test_a_page_of_elsewhere_is_not_answered(serve: Callable[..., Server]) -> None:
    """A name that leads to the loopback does not make its pages ours."""
    host = {"Host": "evil.example:8777"}
    with pytest.raises(openai.APIStatusError, match="answers to 127") as refused:
        serve().client(default_headers=host).models.list()
    assert refused.value.status_code == 421
    token = "sk-a-token-of-this-server"
    assert list(serve(token=token).client(api_key=token, default_headers=host).models.list())
