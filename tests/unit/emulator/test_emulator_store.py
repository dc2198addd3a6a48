"""Files and jobs on disk: whole, as they were, also for the next server."""

from __future__ import annotations

import json
import threading
from dataclasses import asdict
from pathlib import Path

import pytest

from finesweep.emulator.objects import Checkpoint, Event, Hyperparameters, Job, Status, job_of, listed
from finesweep.emulator.store import Store, new_id


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path, clock=lambda: 1700000000.9)


def make_job(name: str = "ftjob-1", **fields: object) -> Job:
    return Job(
        **{
            "id": name,
            "created_at": 1,
            "model": "davinci-002",
            "training_file": "file-1",
            "validation_file": None,
            "hyperparameters": Hyperparameters(3, "auto", 0.5),
            "seed": 7,
            **fields,
        }  # type: ignore[arg-type]
    )


WHOLE = {
    "suffix": "owl",
    "metadata": {"trial": "3"},
    "is_legacy": True,
    "status": Status.SUCCEEDED,
    "error": {"code": "c", "message": "m", "param": None},
    "attempts": 2,
    "fine_tuned_model": "ft:davinci-002:emulator:owl:1",
    "finished_at": 9,
    "trained_tokens": 50,
    "events": [Event("e1", 1, "info", "hello"), Event("e2", 2, "warn", "step", {"step": 3.0, "valid_loss": 1e30})],
    "checkpoints": [Checkpoint("c1", 3, "ft:x:ckpt-step-3", 3, {"valid_loss": 0.5})],
}


@pytest.mark.parametrize("job", [make_job(), make_job(**WHOLE)])
def test_a_job_is_read_as_it_was_written(job: Job) -> None:
    assert job_of(json.loads(json.dumps(asdict(job)))) == job


def test_how_a_job_is_shown() -> None:
    shown = make_job().shown()
    made = {"n_epochs": 3, "batch_size": "auto", "learning_rate_multiplier": 0.5}
    assert shown["hyperparameters"] == shown["method"]["supervised"]["hyperparameters"] == made
    assert (shown["status"], shown["metadata"], shown["trained_tokens"]) == ("validating_files", None, None)
    assert make_job(is_legacy=True).shown()["method"] is None


def test_how_events_and_lists_are_shown() -> None:
    message, metrics = (event.shown() for event in make_job(**WHOLE).events)
    assert (message["type"], message["data"]) == ("message", {})
    assert (metrics["type"], metrics["data"]["step"]) == ("metrics", 3.0)
    assert listed([message, metrics], has_more=True) == {
        "object": "list",
        "data": [message, metrics],
        "has_more": True,
        "first_id": "e1",
        "last_id": "e2",
    }
    assert listed([], has_more=False)["last_id"] is None


def test_a_file_is_kept_for_the_next_server(store: Store, tmp_path: Path) -> None:
    file = store.add_file(b"rows", filename="a.jsonl", purpose="fine-tune")
    again = Store(tmp_path)
    assert again.file(file.id) == file
    assert again.path_of(file.id).read_bytes() == b"rows"
    assert (file.n_bytes, file.created_at) == (4, 1700000000)


def test_a_file_that_is_deleted_is_gone(store: Store, tmp_path: Path) -> None:
    file = store.add_file(b"rows", filename="a.jsonl", purpose="fine-tune")
    assert store.delete_file(file.id)
    assert not store.delete_file(file.id)
    assert store.file(file.id) is None
    assert Store(tmp_path).files() == []
    assert not list((tmp_path / "files").iterdir())


def test_a_job_is_kept_with_every_change(store: Store, tmp_path: Path) -> None:
    job = make_job()
    store.add_job(job)
    store.note(job, "begun", data={"step": 1.0})
    with store.changing(job):
        job.status = Status.RUNNING
    [kept] = Store(tmp_path).jobs()
    assert kept == job
    assert (kept.status, kept.events[0].message) == (Status.RUNNING, "begun")


def test_what_goes_wrong_in_a_change_is_not_on_disk(store: Store, tmp_path: Path) -> None:
    job = make_job()
    store.add_job(job)
    with pytest.raises(ZeroDivisionError), store.changing(job):
        job.trained_tokens = 1 // 0
    assert Store(tmp_path).jobs() == [make_job()]


def test_what_a_crash_left_half_written_is_not_read(store: Store, tmp_path: Path) -> None:
    store.add_job(make_job())
    (tmp_path / "jobs" / ".ftjob-1.json.0a1b2c3d").write_text('{"id": "ftj')
    (tmp_path / "files" / "file-9.jsonl").write_bytes(b"rows")  # its description was not written yet
    again = Store(tmp_path)
    assert [job.id for job in again.jobs()] == ["ftjob-1"]
    assert again.files() == []


def test_the_newest_stand_first(store: Store) -> None:
    names = [new_id("ftjob-") for _ in range(20)]
    assert len(set(names)) == 20
    for name in names[::-1]:
        store.add_job(make_job(name))
    files = [store.add_file(b"", filename=str(n), purpose="fine-tune").id for n in range(3)]
    assert [job.id for job in store.jobs()] == sorted(names, reverse=True)
    assert [file.id for file in store.files()] == files[::-1]


def test_notes_of_many_threads_are_all_there(store: Store, tmp_path: Path) -> None:
    job = make_job()
    store.add_job(job)
    threads = [threading.Thread(target=lambda: [store.note(job, "x") for _ in range(5)]) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    [kept] = Store(tmp_path).jobs()
    assert len(kept.events) == len({event.id for event in kept.events}) == 30


def test_weights_are_found_by_their_models_names(store: Store, tmp_path: Path) -> None:
    job = make_job()
    store.add_job(job)
    for name in ("ft:davinci-002:emulator::ftjob-1", "ft:davinci-002:emulator::ftjob-1:ckpt-step-3"):
        made = tmp_path / "made"
        made.mkdir()
        (made / "model.safetensors").write_text(name)
        store.take_weights(made, job, name)
    with store.changing(job):
        job.fine_tuned_model = "ft:davinci-002:emulator::ftjob-1"
        job.checkpoints.append(Checkpoint("c", 1, "ft:davinci-002:emulator::ftjob-1:ckpt-step-3", 3, {}))
    for name in (job.fine_tuned_model, job.checkpoints[0].model):
        folder = store.model_folder(name)
        assert folder is not None
        assert (folder / "model.safetensors").read_text() == name
    assert store.model_folder("ft:nobody") is None
    assert store.model_folder("") is None
    assert store.delete_model(job.fine_tuned_model)
    assert store.model_folder("ft:davinci-002:emulator::ftjob-1:ckpt-step-3") is None
    assert not store.delete_model("ft:nobody")
    assert not list((tmp_path / "models").iterdir())
