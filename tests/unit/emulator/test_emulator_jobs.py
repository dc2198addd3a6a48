"""Jobs before they are trained: checked, cancelled, refused; nothing ends a slot."""

from __future__ import annotations

import errno
import json
import threading
from pathlib import Path
from typing import Any

import pytest

from finesweep.emulator.jobs import MOST_ATTEMPTS, Jobs
from finesweep.emulator.objects import Hyperparameters, Job, Status
from finesweep.emulator.requests import RequestError
from finesweep.emulator.settings import Settings
from finesweep.emulator.store import Store, new_id

ROWS = "".join(json.dumps({"prompt": f"{n}", "completion": f" {n}"}) + "\n" for n in range(12)).encode()


class Slot:
    """A slot's side of the seam, without a process."""

    class control:  # noqa: N801  # as a number that processes share
        value = 0


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


@pytest.fixture
def jobs(store: Store, tmp_path: Path) -> Jobs:
    """Make jobs whose slots are not started: what they would take is taken by the test."""
    return Jobs(store, Settings(aliases={"davinci-002": "/models/tiny"}), cache_dir=tmp_path / "cache")


def submit(jobs: Jobs, store: Store, content: bytes = ROWS, **fields: Any) -> Job:
    file = store.add_file(content, filename="rows.jsonl", purpose="fine-tune")
    made = {"id": new_id("ftjob-"), "created_at": 1, "model": "davinci-002", "training_file": file.id, "seed": 1}
    job = Job(**{**made, "validation_file": None, "hyperparameters": Hyperparameters(), **fields})
    jobs.submit(job)
    return job


def take(jobs: Jobs) -> Any:
    """Take what a slot would; None where nothing is left."""
    jobs._waiting.put(None)
    taken = jobs.next_work(Slot)  # type: ignore[arg-type]
    left = [jobs._waiting.get() for _ in range(jobs._waiting.qsize())]
    for job in left:
        if job is not None:
            jobs._waiting.put(job)
    return taken


def test_jobs_are_taken_in_order_with_what_auto_comes_to(jobs: Jobs, store: Store) -> None:
    first, second = submit(jobs, store), submit(jobs, store, hyperparameters=Hyperparameters(7, 2, 0.5))
    job, work = take(jobs)
    assert (job.id, job.status, job.attempts) == (first.id, Status.RUNNING, 1)
    assert job.hyperparameters == Hyperparameters(3, 1, 1.0)
    assert (work.n_rows, work.n_epochs, work.batch_size, work.keys) == (12, 3, 1, ("prompt", "completion"))
    job, work = take(jobs)
    assert (job.id, work.n_epochs, work.learning_rate) == (second.id, 7, 1e-5)
    assert take(jobs) is None


def test_a_job_that_is_cancelled_while_it_waits_is_not_taken(jobs: Jobs, store: Store) -> None:
    job = submit(jobs, store)
    jobs.cancel(job)
    assert take(jobs) is None
    assert job.status is Status.CANCELLED
    with pytest.raises(RequestError, match="is cancelled already"):
        jobs.cancel(job)


def test_a_file_that_does_not_fit_fails_its_job_alone(jobs: Jobs, store: Store) -> None:
    bad = submit(jobs, store, ROWS + b"[" * 100_000)
    good = submit(jobs, store)
    assert take(jobs)[0] is good
    assert (bad.status, bad.error["code"]) == (Status.FAILED, "invalid_training_file")  # type: ignore[index]


def test_a_file_that_is_deleted_meanwhile_fails_its_job_alone(jobs: Jobs, store: Store) -> None:
    deleted, gone, good = submit(jobs, store), submit(jobs, store), submit(jobs, store)
    store.delete_file(deleted.training_file)
    store.path_of(gone.training_file).unlink()
    assert take(jobs)[0] is good
    assert [job.status for job in (deleted, gone)] == [Status.FAILED] * 2
    assert gone.error is not None
    assert "cannot be read or written" in str(gone.error["message"])


def test_only_what_runs_can_be_paused_and_only_that_resumed(jobs: Jobs, store: Store) -> None:
    job = submit(jobs, store)
    with pytest.raises(RequestError, match="Only a running job can be paused; this one is validating files"):
        jobs.pause(job)
    assert take(jobs)[0] is job
    with pytest.raises(RequestError, match="Only a paused job can be resumed; this one is running"):
        jobs.resume(job)
    jobs.pause(job)
    jobs.end(job, "paused", None, {}, 0)
    assert take(jobs) is None
    jobs.resume(job)
    _, work = take(jobs)
    assert work.attempt == 2


def test_a_job_whose_process_dies_is_begun_again_some_times(jobs: Jobs, store: Store) -> None:
    job = submit(jobs, store)
    for attempt in range(1, MOST_ATTEMPTS + 1):
        assert take(jobs)[1].attempt == attempt
        jobs.lost(job, -9)
    assert (job.status, take(jobs)) == (Status.FAILED, None)


def test_what_a_cancelled_job_had_trained_is_counted(jobs: Jobs, store: Store) -> None:
    job = submit(jobs, store)
    take(jobs)
    jobs.cancel(job)
    assert job.trained_tokens is None  # not yet: its process has not come to rest
    jobs.end(job, "done", None, {"examples_per_epoch": 12, "tokens_per_epoch": 120}, 6)
    assert (job.status, job.trained_tokens, job.fine_tuned_model) == (Status.CANCELLED, 60, None)


def test_a_server_that_is_started_again_takes_what_waited(jobs: Jobs, store: Store, tmp_path: Path) -> None:
    waits, runs, over = (submit(jobs, store) for _ in range(3))
    jobs.cancel(over)
    with store.changing(runs):
        runs.status, runs.attempts = Status.RUNNING, 1
    again = Store(tmp_path)
    later = Jobs(again, Settings(aliases={"davinci-002": "/models/tiny"}, parallel=0), cache_dir=tmp_path / "cache")
    later.start()
    assert [(job.id, work.attempt) for job, work in (take(later), take(later))] == [(waits.id, 1), (runs.id, 2)]
    assert take(later) is None


def test_a_job_whose_model_this_server_lacks_fails_alone(jobs: Jobs, store: Store) -> None:
    """As after a start with other --model options."""
    unknown, good = submit(jobs, store, model="babbage-002"), submit(jobs, store)
    assert take(jobs)[0] is good
    assert (unknown.status, unknown.error["code"]) == (Status.FAILED, "model_not_found")  # type: ignore[index]
    assert "--model babbage-002=MODEL" in str(unknown.error)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the server's disk is full"),
        (MemoryError("much"), "the server failed (MemoryError: much)"),
    ],
)
def test_no_error_ends_a_slot(
    jobs: Jobs, store: Store, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    """Nor does a disk on which nothing can be written, the failure neither."""
    bad, good = submit(jobs, store), submit(jobs, store)
    write = store._write

    def fail_for_one(job: Job) -> None:
        if job is bad:
            raise error if not bad.status.is_final else OSError(errno.ENOSPC, "No space left on device")
        write(job)

    monkeypatch.setattr(store, "_write", fail_for_one)
    assert take(jobs)[0] is good
    assert (bad.status, bad.error["code"]) == (Status.FAILED, "server_error")  # type: ignore[index]
    assert said in str(bad.error)
    assert bad.id not in jobs._running


def test_a_job_that_is_cancelled_while_its_rows_are_read_stays_so(
    jobs: Jobs, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submit(jobs, store)

    def cancel_meanwhile(*_: Any, **__: Any) -> Any:
        jobs.cancel(job)
        raise RequestError(400, "no rows")

    monkeypatch.setattr("finesweep.emulator.jobs.check_rows", cancel_meanwhile)
    assert take(jobs) is None
    assert (job.status, job.error) == (Status.CANCELLED, None)


FACTS = {
    "examples_per_epoch": 12,
    "tokens_per_epoch": 120,
    "optimizer_steps": 36,
    "device_batch_size": 1,
    "accumulation": 1,
}


def told(examples_seen: int) -> dict[str, Any]:
    return {"metrics": {"train_loss": 1.0}, "examples_seen": examples_seen, "final": False}


def test_what_a_cancelled_job_took_is_told_whenever_it_was_cancelled(jobs: Jobs, store: Store, tmp_path: Path) -> None:
    fresh = submit(jobs, store)
    jobs.cancel(fresh)
    assert fresh.trained_tokens == 0

    paused = submit(jobs, store)
    take(jobs)
    jobs.pause(paused)
    jobs.end(paused, "paused", None, FACTS, 6)
    [kept] = [job for job in Store(tmp_path).jobs() if job.id == paused.id]
    assert (kept.tokens_so_far, kept.trained_tokens) == (60, None)
    jobs.resume(paused)
    take(jobs)
    jobs.cancel(paused)
    jobs.end(paused, "stopped", None, {}, 0)  # before its second attempt had told anything
    assert paused.trained_tokens == 60

    again = submit(jobs, store)
    take(jobs)
    jobs.pause(again)
    jobs.end(again, "paused", None, FACTS, 3)
    jobs.cancel(again)
    assert again.trained_tokens == 30


def test_what_a_job_took_is_told_where_its_process_died(jobs: Jobs, store: Store, tmp_path: Path) -> None:
    failed, unsettled = submit(jobs, store), submit(jobs, store)
    for _ in range(MOST_ATTEMPTS):
        while take(jobs)[0] is not failed:
            pass
        jobs.tell(failed, told(9), FACTS)
        jobs.lost(failed, -9)
    assert (failed.status, failed.trained_tokens) == (Status.FAILED, 90)

    jobs.tell(unsettled, told(4), FACTS)
    jobs.cancel(unsettled)
    assert unsettled.trained_tokens is None
    again = Store(tmp_path)  # as after the death of the server
    Jobs(again, Settings(parallel=0), cache_dir=tmp_path / "cache").start()
    [settled] = [job for job in again.jobs() if job.id == unsettled.id]
    assert (settled.status, settled.trained_tokens) == (Status.CANCELLED, 40)


def test_a_job_that_is_resumed_before_its_process_dies_waits_again(jobs: Jobs, store: Store) -> None:
    job = submit(jobs, store)
    take(jobs)
    jobs.pause(job)
    jobs.resume(job)
    assert take(jobs) is None  # it has not come to rest
    jobs.lost(job, -9)
    taken, work = take(jobs)
    assert (taken, work.attempt, job.n_lost) == (job, 2, 1)
    assert take(jobs) is None


def test_of_a_cancelled_job_whose_process_dies_nothing_is_left(jobs: Jobs, store: Store) -> None:
    job = submit(jobs, store)
    take(jobs)
    store.work_dir(job).mkdir(parents=True)
    jobs.tell(job, told(6), FACTS)
    jobs.cancel(job)
    jobs.lost(job, -9)
    assert (job.status, job.trained_tokens, store.work_dir(job).exists()) == (Status.CANCELLED, 60, False)


def test_a_training_that_fails_ends_its_job_and_leaves_the_slot_free(jobs: Jobs, store: Store) -> None:
    job = submit(jobs, store)
    take(jobs)
    ending = threading.Thread(target=jobs.end, args=(job, "failed", "no such model", FACTS, 6), daemon=True)
    ending.start()
    ending.join(timeout=30)
    assert not ending.is_alive()
    assert (job.status, job.trained_tokens) == (Status.FAILED, 60)
    following = submit(jobs, store)
    assert take(jobs)[0] is following
