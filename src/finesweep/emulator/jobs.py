"""The life of jobs: checked, queued, trained in processes of their own, cancelled, paused, resumed.

In: a store of jobs. Out: their events, checkpoints and models. It must not know requests.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from finesweep.emulator.objects import Checkpoint, Job, Level, Status
from finesweep.emulator.reports import metrics_of, step_of, tokens_of
from finesweep.emulator.requests import RequestError, check_rows, is_chat_model
from finesweep.emulator.settings import LEARNING_RATE, Settings, settled
from finesweep.emulator.slots import CONTINUE, PAUSE, STOP, Slot
from finesweep.emulator.store import Store, new_id
from finesweep.emulator.worker import DONE, FAILED, PAUSED, Work
from finesweep.trainer import is_disk_full

MOST_ATTEMPTS = 3  # of a job whose process dies
MOST_KEPT = 2  # checkpoints beside the tuned model, as the protocol has it


class Jobs:
    """Trains jobs in a number of slots. Methods may be called from any thread."""

    def __init__(self, store: Store, settings: Settings, *, cache_dir: Path) -> None:
        self._store, self._settings, self._cache_dir = store, settings, cache_dir
        self._waiting: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._lock = threading.RLock()
        self._running: dict[str, Slot] = {}
        self._is_closing = False
        self._slots = [Slot(self, place, settings=settings, cache_dir=cache_dir) for place in range(settings.parallel)]

    def start(self) -> None:
        """Begin to train, and go on with what an earlier server left."""
        for job in reversed(self._store.jobs()):
            if job.status is Status.CANCELLED and job.trained_tokens is None:  # that server died before its process
                self._rest(job)
            if not job.status.is_final and job.status is not Status.PAUSED:
                self._waiting.put(job.id)
        for slot in self._slots:
            slot.thread.start()

    def close(self) -> None:
        """End the processes; what they were training goes on when the server is started again."""
        with self._lock:
            self._is_closing = True
            for slot in self._running.values():
                slot.control.value = PAUSE
        for _ in self._slots:
            self._waiting.put(None)
        for slot in self._slots:
            slot.close()

    def submit(self, job: Job, *, is_spoilt: bool = False) -> None:
        """Take a new job; one that is spoilt fails its validation."""
        self._store.add_job(job)
        self._store.note(job, f"Created fine-tuning job: {job.id}")
        self._store.note(job, f"Validating training file: {job.training_file}")
        if is_spoilt:
            with self._lock:
                self._fail(job, "The file could not be validated.", code="invalid_training_file", param="training_file")
            return
        self._waiting.put(job.id)

    def cancel(self, job: Job) -> None:
        """Raises RequestError for a job that is over."""
        with self._lock:
            if job.status.is_final:
                raise RequestError(400, f"The job {_said(job)} already.", code="invalid_job_state")
            slot = self._running.get(job.id)
            if slot is not None:
                slot.control.value = STOP
            self._finish(job, Status.CANCELLED, "Fine-tuning job cancelled")
            if slot is None:
                self._rest(job)

    def pause(self, job: Job) -> None:
        """Raises RequestError for a job that does not run."""
        with self._lock:
            slot = self._running.get(job.id)
            if job.status is not Status.RUNNING or slot is None:
                raise RequestError(400, f"Only a running job can be paused; this one {_said(job)}.")
            slot.control.value = PAUSE
            with self._store.changing(job):
                job.status = Status.PAUSED
        self._store.note(job, "Fine-tuning job paused")

    def resume(self, job: Job) -> None:
        """Raises RequestError for a job that is not paused."""
        with self._lock:
            if job.status is not Status.PAUSED:
                raise RequestError(400, f"Only a paused job can be resumed; this one {_said(job)}.")
            with self._store.changing(job):
                job.status = Status.QUEUED
        self._store.note(job, "Fine-tuning job resumed")
        self._waiting.put(job.id)

    # --- what slots do ------------------------------------------------------------------------------------------

    def next_work(self, slot: Slot) -> tuple[Job, Work] | None:
        """Wait for a job to train, and take it; None at the end."""
        while (job_id := self._waiting.get()) is not None:
            job = self._store.job(job_id)
            if job is None or job.status.is_final:
                continue
            try:
                work = self._taken(job, slot)
            except RequestError as error:
                self.fail(job, error.message, code=error.code or "invalid_training_file", param=error.param)
            except Exception as error:  # whatever it is, the slot must live on
                self.fail(job, said_of(error))
            else:
                if work is not None:
                    return job, work
        return None

    def _taken(self, job: Job, slot: Slot) -> Work | None:
        """Check a job and have it run in a slot; None where it is not to run now."""
        work = self._checked(job)
        with self._lock:
            if self._is_closing or job.status.is_final or job.status is Status.PAUSED or job.id in self._running:
                return None  # as one that was cancelled meanwhile
            slot.control.value = CONTINUE
            self._running[job.id] = slot
            with self._store.changing(job):
                job.status, job.attempts = Status.RUNNING, work.attempt
        self._store.note(job, "Fine-tuning job started")
        return work

    def fail(self, job: Job, message: str, *, code: str = "server_error", param: str | None = None) -> None:
        """End a job, unless it is over already; where nothing can be written, as long as this server runs."""
        with self._lock:
            self._running.pop(job.id, None)
            if job.status.is_final:
                return
            self._store.clear_work(job)  # first: it may make room for what follows
            with suppress(OSError):
                self._fail(job, message, code=code, param=param)
                self._store.remove_models(job)

    def _checked(self, job: Job) -> Work:
        settings = self._settings
        if job.model not in settings.aliases:  # the server that took it had it
            message = f"This server has no model {job.model}. Start it with --model {job.model}=MODEL, and ask again."
            raise RequestError(404, message, code="model_not_found", param="model")
        rows = {}
        for what, file_id in (("training_file", job.training_file), ("validation_file", job.validation_file)):
            if file_id is None:
                continue
            if self._store.file(file_id) is None:
                raise RequestError(404, f"No such File object: {file_id}", param=what)
            content = self._store.path_of(file_id).read_bytes()
            rows[what] = check_rows(content, is_chat=is_chat_model(job.model), what=what)
        train = rows["training_file"]
        asked = settled(job.hyperparameters, n_rows=train.n_rows)
        with self._lock:
            is_new = job.status is Status.VALIDATING
            if is_new:
                with self._store.changing(job):
                    job.status, job.hyperparameters = Status.QUEUED, asked
        if is_new:
            self._store.note(job, "Files validated, moving job to queued state")
        assert asked.n_epochs != "auto" and asked.batch_size != "auto" and asked.learning_rate_multiplier != "auto"
        return Work(
            model=settings.aliases[job.model],
            train=str(self._store.path_of(job.training_file)),
            validation=str(self._store.path_of(job.validation_file)) if job.validation_file else None,
            keys=train.keys,
            n_rows=train.n_rows,
            n_epochs=asked.n_epochs,
            batch_size=asked.batch_size,
            learning_rate=LEARNING_RATE * asked.learning_rate_multiplier,
            seed=job.seed,
            attempt=job.attempts + 1,
            folder=str(self._store.work_dir(job)),
            max_length=settings.max_length,
            device_batch_size=settings.device_batch_size,
            n_reports=settings.reports,
        )

    def tell(self, job: Job, told: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        """Take a report of a running job as an event."""
        if job.status.is_final:
            return
        step, total = step_of(told["examples_seen"], facts), int(facts["optimizer_steps"])
        metrics = metrics_of(told["metrics"], step, has_validation=job.validation_file is not None)
        said = f"Step {step}/{total}: training loss={metrics['train_loss']:.4g}"
        said += f", validation loss={metrics['valid_loss']:.4g}" if "valid_loss" in metrics else ""
        self._count(job, facts, told["examples_seen"])
        self._store.note(job, said, data={**metrics, "total_steps": total})

    @staticmethod
    def _count(job: Job, facts: Mapping[str, Any], examples_seen: int) -> None:
        """Count the tokens of an attempt, which goes on from what the earlier ones have seen."""
        job.tokens_so_far = max(job.tokens_so_far, tokens_of(facts, examples_seen))

    def keep(self, job: Job, step: int, weights: Path) -> None:
        """Keep the weights after an epoch as a checkpoint; of several the last."""
        with self._lock:
            if job.status.is_final:
                return
            name = f"{_model_name(job)}:ckpt-step-{step}"
            self._store.take_weights(weights, job, name)
            with self._store.changing(job):
                others = [checkpoint for checkpoint in job.checkpoints if checkpoint.model != name]
                kept = [*others, self._checkpoint(job, name, step)]
                dropped, job.checkpoints = kept[:-MOST_KEPT], kept[-MOST_KEPT:]
            for checkpoint in dropped:
                self._store.remove_weights(job, checkpoint.model)
        self._store.note(job, f"Checkpoint created at step {step}: {name}")

    def _checkpoint(self, job: Job, name: str, step: int) -> Checkpoint:
        """Describe weights by what was last told of them."""
        told = next((event.data for event in reversed(job.events) if event.data), {})
        metrics = {key: value for key, value in told.items() if key != "total_steps"}
        return Checkpoint(new_id("ftckpt_"), self._store.now(), name, step, metrics)

    def end(self, job: Job, kind: str, said: str | None, facts: Mapping[str, Any], examples_seen: int) -> None:
        """Take the end of an attempt at a job; `said` is where its weights are, or why it failed."""
        with self._lock:
            self._running.pop(job.id, None)
            self._count(job, facts, examples_seen)
            if job.status is Status.CANCELLED:
                self._rest(job)
            elif kind == DONE and said is not None:
                self._succeed(job, Path(said))
                self._store.clear_work(job)
            elif kind == FAILED:
                self.fail(job, said or "training failed", code="training_failed")
            elif kind == PAUSED:  # its checkpoint waits in its work folder
                with self._store.changing(job):  # what it took is on disk
                    if job.status is Status.QUEUED:  # it was resumed before it had come to rest
                        self._waiting.put(job.id)

    def lost(self, job: Job, code: int | None) -> None:
        """Take note that the process of a job died; have it begun again from its checkpoint, some times."""
        with self._lock:
            self._running.pop(job.id, None)
            if job.status is Status.CANCELLED:
                self._rest(job)
            if job.status not in (Status.RUNNING, Status.QUEUED) or self._is_closing:
                return  # QUEUED: it was resumed before it had come to rest, and its place in the queue may be used up
            if job.n_lost + 1 >= MOST_ATTEMPTS:
                self.fail(job, f"its process died {job.n_lost + 1} times (exit code {code})")
                return
            with self._store.changing(job):
                job.status, job.n_lost = Status.QUEUED, job.n_lost + 1
        self._store.note(job, f"The process that trained it died (exit code {code}); it is begun again", level="warn")
        self._waiting.put(job.id)

    def _succeed(self, job: Job, weights: Path) -> None:
        name = _model_name(job)
        self._store.take_weights(weights, job, name)
        with self._store.changing(job):
            job.fine_tuned_model, job.trained_tokens = name, job.tokens_so_far
            checkpoint = self._checkpoint(job, name, step=0)
            checkpoint.step = int(checkpoint.metrics.get("step", 0))
            job.checkpoints.append(checkpoint)
        self._store.note(job, f"New fine-tuned model created: {name}")
        self._finish(job, Status.SUCCEEDED, "The job has successfully completed")

    def _fail(self, job: Job, message: str, *, code: str, param: str | None = None) -> None:
        job.error, job.trained_tokens = {"code": code, "message": message, "param": param}, job.tokens_so_far
        self._finish(job, Status.FAILED, f"The job failed due to an error: {message}", level="error")

    def _rest(self, job: Job) -> None:
        """Tell what a cancelled job took, now that no process trains it, and remove what it has made."""
        self._store.clear_work(job)
        job.trained_tokens = job.tokens_so_far
        self._store.remove_models(job)

    def _finish(self, job: Job, status: Status, message: str, *, level: Level = "info") -> None:
        with self._store.changing(job):
            job.status, job.finished_at = status, self._store.now()
        self._store.note(job, message, level=level)


def _model_name(job: Job) -> str:
    return f"ft:{job.model}:emulator:{job.suffix or ''}:{job.id[-8:]}"


def said_of(error: Exception) -> str:
    """Say why this server could not go on with a job."""
    if is_disk_full(error):
        return "the server's disk is full; free some space there, and ask again"
    if isinstance(error, OSError):
        return f"its files cannot be read or written ({error.strerror or type(error).__name__})"
    return f"the server failed ({type(error).__name__}: {error})"


def _said(job: Job) -> str:
    return "is " + job.status.value.replace("_", " ")
