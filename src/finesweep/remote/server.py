"""A fine-tuning server as a sweep uses it: files uploaded once, a job for each trial and no second one, its events.

In: what a job is to be. Out: jobs as the client library gives them. It must not know trials' decisions.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
from filelock import FileLock
from openai.types.fine_tuning import FineTuningJob

from finesweep.errors import RemoteError
from finesweep.remote.calls import Calls, remote_error
from finesweep.remote.rows import JobFile
from finesweep.spec.sweep import AUTO, Remote

FINAL = ("succeeded", "failed", "cancelled")
SWEEP, TRIAL = "finesweep_sweep", "finesweep_trial"  # keys of a job's metadata
_MOST_LISTED = 100


@dataclass(frozen=True, slots=True)
class Metrics:
    """What a job's event tells at a step of its training."""

    step: int  # optimizer steps made
    values: Mapping[str, float]


def connect(remote: Remote) -> openai.OpenAI:
    """Make a client. Raises RemoteError where the key is not in the environment."""
    key = os.environ.get(remote.api_key_env)
    if not key:
        raise RemoteError(
            f"remote.api_key_env: the environment variable {remote.api_key_env} is not set. Put the server's key in it;"
            " for a server that asks for none, the word none."
        )
    return openai.OpenAI(base_url=remote.base_url, api_key=key, timeout=remote.timeout_s, max_retries=0)


class Server:
    """Asks a server for one sweep. `uid` is what its jobs are found by."""

    def __init__(self, client: openai.OpenAI, remote: Remote, calls: Calls, *, uid: str, folder: Path) -> None:
        self._client, self._remote, self._calls, self._uid, self._folder = client, remote, calls, uid, folder

    def upload(self, file: JobFile) -> str:
        """Give the id of a file of these contents, uploaded by whoever comes first. Raises RemoteError."""
        name = f"finesweep-{file.digest}.jsonl"
        with FileLock(self._folder / f"{file.digest}.lock"):
            found = self._calls.ask(lambda: self._file_named(name, file.n_bytes), what="listing files")
            if found:
                return found
            return self._calls.ask(
                lambda: self._client.files.create(file=(name, file.path.read_bytes()), purpose="fine-tune").id,
                what="uploading a file",
                found=lambda: self._file_named(name, file.n_bytes) or None,
            )

    def _file_named(self, name: str, n_bytes: int) -> str:
        for file in self._client.files.list(purpose="fine-tune"):
            if file.filename == name and file.bytes == n_bytes and file.status != "error":
                return file.id
        return ""

    def job_of(self, trial: int) -> FineTuningJob | None:
        """Find the job of a trial that is under way or has succeeded; others of it that run are cancelled."""
        jobs = [job for job in self.jobs() if (job.metadata or {}).get(TRIAL) == str(trial)]
        wanted = [job for job in jobs if job.status not in ("failed", "cancelled")]
        if not wanted:
            return None
        kept = next((job for job in wanted if job.status == "succeeded"), wanted[-1])  # the oldest
        for job in wanted:
            if job.id != kept.id and job.status not in FINAL:
                self.cancel(job.id)
        return kept

    def jobs(self) -> Sequence[FineTuningJob]:
        """List the sweep's jobs, newest first. Servers that do not choose by metadata give all; these are sifted."""
        return self._calls.ask(self._listed, what="listing jobs")

    def _listed(self) -> list[FineTuningJob]:
        own = {SWEEP: self._uid}
        found = self._client.fine_tuning.jobs.list(limit=_MOST_LISTED, metadata=own)
        return [job for job in found if (job.metadata or {}).get(SWEEP) == self._uid]

    def create(self, trial: int, settings: Mapping[str, Any], *, seed: int, train: str, validation: str) -> str:
        """Begin a job, once, whatever becomes of the answers. Raises RemoteError where the server refuses it."""
        asked = {name: value for name, value in settings.items() if value != AUTO}
        if self._remote.hyperparameters == "method":
            form: dict[str, Any] = {"method": {"type": "supervised", "supervised": {"hyperparameters": asked}}}
        else:
            form = {"hyperparameters": asked}
        if self._remote.suffix is not None:
            form["suffix"] = self._remote.suffix

        def found() -> FineTuningJob | None:
            jobs = [job for job in self._listed() if (job.metadata or {}).get(TRIAL) == str(trial)]
            return next((job for job in jobs if job.status not in ("failed", "cancelled")), None)

        job = self._calls.ask(
            lambda: self._client.fine_tuning.jobs.create(
                model=self._remote.model,
                training_file=train,
                validation_file=validation,
                seed=seed,
                metadata={SWEEP: self._uid, TRIAL: str(trial)},
                **form,
            ),
            what="beginning a job",
            found=found,
        )
        return job.id

    def job(self, job_id: str) -> FineTuningJob:
        return self._calls.ask(lambda: self._client.fine_tuning.jobs.retrieve(job_id), what=f"job {job_id}")

    def metrics(self, job_id: str) -> list[Metrics]:
        """Give what a job's events tell so far, by rising steps; what several say of one step is put together."""
        events = self._calls.ask(
            lambda: list(self._client.fine_tuning.jobs.list_events(job_id, limit=_MOST_LISTED)),
            what=f"events of job {job_id}",
        )
        by_step: dict[int, dict[str, float]] = {}
        for event in reversed(events):
            data = event.data if isinstance(event.data, dict) else {}
            if isinstance(data.get("step"), int | float):
                numbers = {name: value for name, value in data.items() if is_number(value)}
                by_step.setdefault(int(data["step"]), {}).update(numbers)
        return [
            Metrics(step, {name: value for name, value in values.items() if name not in ("step", "total_steps")})
            for step, values in sorted(by_step.items())
        ]

    def checkpoints(self, job_id: str) -> list[dict[str, Any]]:
        """List a job's checkpoints, newest first; none where the server has no such thing."""
        try:
            found = self._calls.ask(
                lambda: list(self._client.fine_tuning.jobs.checkpoints.list(job_id)), what=f"checkpoints of {job_id}"
            )
        except RemoteError:
            return []
        return [checkpoint.to_dict() for checkpoint in found]

    def cancel(self, job_id: str) -> FineTuningJob:
        """Cancel a job and give it as it is then; one that is over already is left as it is."""

        def ask() -> FineTuningJob:
            try:
                return self._client.fine_tuning.jobs.cancel(job_id)
            except openai.BadRequestError as error:
                job = self._client.fine_tuning.jobs.retrieve(job_id)
                if job.status in FINAL:
                    return job
                raise remote_error(error, f"cancelling job {job_id}") from None

        return self._calls.ask(ask, what=f"cancelling job {job_id}")


def make_server(
    remote: Remote, *, uid: str, folder: Path, sleep: Callable[[float], None], chance: random.Random | None = None
) -> Server:
    """Connect, with patience. `folder` is for locks. Raises RemoteError without a key."""
    folder.mkdir(parents=True, exist_ok=True)
    calls = Calls(patience_s=60 * remote.patience_minutes, sleep=sleep, chance=chance)
    return Server(connect(remote), remote, calls, uid=uid, folder=folder)


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
