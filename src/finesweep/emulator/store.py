"""Files and jobs in a folder: they outlive the server. In: a folder, a clock. Out: objects, changed under one lock."""

from __future__ import annotations

import json
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from finesweep.durable import write_whole
from finesweep.emulator.objects import Event, File, Job, Level, job_of


class Store:
    """All methods may be called from any thread."""

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._folder, self._clock = folder, clock
        self._lock = threading.RLock()
        for part in ("files", "jobs", "models", "work"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        self._files = {path.stem: File(**json.loads(path.read_text())) for path in (folder / "files").glob("*.json")}
        self._jobs = {path.stem: job_of(json.loads(path.read_text())) for path in (folder / "jobs").glob("*.json")}

    def now(self) -> int:
        return int(self._clock())

    # --- files --------------------------------------------------------------------------------------------------

    def add_file(self, content: bytes, *, filename: str, purpose: str) -> File:
        file = File(new_id("file-"), filename, purpose, len(content), self.now())
        with self._lock:
            write_whole(self.path_of(file.id), content, synced=False)
            write_whole(self._folder / "files" / f"{file.id}.json", json.dumps(asdict(file)).encode(), synced=False)
            self._files[file.id] = file
        return file

    def path_of(self, file_id: str) -> Path:
        return self._folder / "files" / f"{file_id}.jsonl"

    def file(self, file_id: str) -> File | None:
        with self._lock:
            return self._files.get(file_id)

    def files(self) -> list[File]:
        """List the files, newest first."""
        with self._lock:
            return sorted(self._files.values(), key=lambda file: file.id, reverse=True)

    def delete_file(self, file_id: str) -> bool:
        with self._lock:
            known = self._files.pop(file_id, None)
            if known is not None:
                (self._folder / "files" / f"{file_id}.json").unlink(missing_ok=True)
                self.path_of(file_id).unlink(missing_ok=True)
            return known is not None

    # --- jobs ---------------------------------------------------------------------------------------------------

    def add_job(self, job: Job) -> None:
        with self._lock:
            self._jobs[job.id] = job
            self._write(job)

    def job(self, job_id: str) -> Job | None:
        with self._lock:
            return self._jobs.get(job_id)

    def jobs(self) -> list[Job]:
        """List the jobs, newest first."""
        with self._lock:
            return sorted(self._jobs.values(), key=lambda job: job.id, reverse=True)

    @contextmanager
    def changing(self, job: Job) -> Iterator[Job]:
        """Change a job; it is on disk afterwards. What is raised within changes nothing on disk."""
        with self._lock:
            yield job
            self._write(job)

    def note(self, job: Job, message: str, *, level: Level = "info", data: dict[str, Any] | None = None) -> None:
        """Add an event to a job."""
        with self.changing(job):
            job.events.append(Event(new_id("ftevent-"), self.now(), level, message, data))

    def _write(self, job: Job) -> None:
        write_whole(self._folder / "jobs" / f"{job.id}.json", json.dumps(asdict(job)).encode(), synced=False)

    # --- models -------------------------------------------------------------------------------------------------

    def model_folder(self, name: str) -> Path | None:
        """Find the folder of a fine-tuned model, or of a checkpoint of one."""
        with self._lock:
            job = next((job for job in self._jobs.values() if name in _models_of(job)), None)
        return None if job is None else self._folder_of(job, name)

    def take_weights(self, weights: Path, job: Job, name: str) -> None:
        """Take a model folder over as that of a model of a job."""
        folder = self._folder_of(job, name)
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(weights, folder)

    def remove_weights(self, job: Job, name: str) -> None:
        shutil.rmtree(self._folder_of(job, name), ignore_errors=True)

    def remove_models(self, job: Job) -> None:
        """Remove all that a job has made."""
        with self.changing(job):
            job.fine_tuned_model = None
            job.checkpoints.clear()
        shutil.rmtree(self._folder / "models" / job.id, ignore_errors=True)

    def _folder_of(self, job: Job, name: str) -> Path:
        return self._folder / "models" / job.id / name.rpartition(":")[2]

    def work_dir(self, job: Job) -> Path:
        return self._folder / "work" / job.id

    def clear_work(self, job: Job) -> None:
        shutil.rmtree(self.work_dir(job), ignore_errors=True)

    def delete_model(self, name: str) -> bool:
        with self._lock:
            job = next((job for job in self._jobs.values() if job.fine_tuned_model == name), None)
        if job is not None:
            self.remove_models(job)
        return job is not None


def _models_of(job: Job) -> set[str]:
    return {checkpoint.model for checkpoint in job.checkpoints} | {job.fine_tuned_model or ""}


def new_id(prefix: str) -> str:
    """Make an id; those made later sort after those made before."""
    return f"{prefix}{time.time_ns():016x}{secrets.token_hex(4)}"
