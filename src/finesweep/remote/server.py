"""A fine-tuning server as a sweep uses it: files uploaded once, a job for each trial and no second one, its events.

In: what a job is to be. Out: jobs, what they tell. It must not know trials' decisions.
"""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import openai
from filelock import FileLock
from openai.types import FileObject
from openai.types.fine_tuning import FineTuningJobEvent

from finesweep.errors import RemoteError
from finesweep.remote.answers import Job, Metrics, is_newest_first, metrics_of, read_job, read_list
from finesweep.remote.calls import Calls, NotOfProtocolError, NotYetError, remote_error
from finesweep.remote.rows import JobFile
from finesweep.spec.protocol import request_part
from finesweep.spec.sweep import AUTO, Remote

SWEEP, TRIAL = "finesweep_sweep", "finesweep_trial"  # keys of a job's metadata
_MOST_LISTED = 100
_NOT_READY = ("not ready", "still being processed")  # what servers say of files that they are reading

_log = logging.getLogger(__name__)


def connect(remote: Remote) -> openai.OpenAI:
    """Make a client. Raises RemoteError where there is no key in the environment that can be sent."""
    key = os.environ.get(remote.api_key_env, "").strip()  # files of keys end in a new line
    if not key:
        raise RemoteError(
            f"remote.api_key_env: the environment variable {remote.api_key_env} is not set. Put the server's key in it;"
            " for a server that asks for none, the word none."
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        raise RemoteError(
            f"remote.api_key_env: what the environment variable {remote.api_key_env} holds cannot be a key: it has"
            " spaces, or characters that no key has. Copy the key once more."
        )
    return openai.OpenAI(base_url=remote.base_url, api_key=key, timeout=remote.timeout_s, max_retries=0)


class Server:
    """Asks a server for one sweep. `uid` is what its jobs are found by."""

    def __init__(self, client: openai.OpenAI, remote: Remote, calls: Calls, *, uid: str, folder: Path) -> None:
        self._client, self._remote, self._calls, self._uid, self._folder = client, remote, calls, uid, folder
        self._events: dict[str, dict[str, FineTuningJobEvent]] = {}  # job -> those it has told, by id
        self._known: dict[int, frozenset[str]] = {}  # trial -> its jobs before one is begun
        self._begun_again: set[int] = set()  # trials of whose job a first request may have been acted on later

    # --- files --------------------------------------------------------------------------------------------------

    def upload(self, file: JobFile) -> str:
        """Give the id of a file of these contents, uploaded by whoever comes first. Raises RemoteError."""
        name = f"finesweep-{file.digest}.jsonl"

        def send() -> str:
            told = self._client.files.create(file=(name, file.path.read_bytes()), purpose="fine-tune")
            if not isinstance(told, FileObject) or not told.id:
                raise NotOfProtocolError("its answer is no file")
            return told.id

        with FileLock(self._folder / f"{file.digest}.lock"):
            found = self._calls.ask(lambda: self._file_named(name, file.n_bytes), what="listing files")
            if found:
                return found
            return self._calls.ask(
                send, what="uploading a file", found=lambda: self._file_named(name, file.n_bytes) or None
            )

    def _file_named(self, name: str, n_bytes: int) -> str:
        for file in read_list(lambda: self._client.files.list(purpose="fine-tune")):
            if file.filename == name and file.bytes == n_bytes and file.status not in ("error", "deleted"):
                return str(file.id)
        return ""

    # --- jobs ---------------------------------------------------------------------------------------------------

    def job_of(self, trial: int) -> Job | None:
        """Find the job of a trial that is under way or has succeeded: of several the oldest. See `twins_of`."""
        jobs = [job for job in self.jobs() if job.metadata.get(TRIAL) == str(trial)]
        self._known[trial] = frozenset(job.id for job in jobs)
        wanted = [job for job in jobs if job.may_count]
        if not wanted:
            return None
        if len(wanted) > 1:
            self._begun_again.add(trial)
        return next((job for job in wanted if job.outcome == "succeeded"), wanted[-1])

    def twins_of(self, trial: int, job_id: str) -> list[Job]:
        """Find other jobs of a trial that run: begun by requests whose answers were lost, and shown later."""
        if trial not in self._begun_again:
            return []
        jobs = [job for job in self.jobs() if job.metadata.get(TRIAL) == str(trial)]
        return [job for job in jobs if job.id != job_id and not job.is_over]

    def jobs(self) -> Sequence[Job]:
        """List the sweep's jobs, newest first. Servers that do not choose by metadata give all; these are sifted."""
        return self._calls.ask(self._listed, what="listing jobs")

    def _listed(self) -> list[Job]:
        jobs = self._client.fine_tuning.jobs
        found = read_list(lambda: jobs.list(limit=_MOST_LISTED, metadata={SWEEP: self._uid}))
        return [job for job in map(read_job, found) if job.metadata.get(SWEEP) == self._uid]

    def create(self, trial: int, settings: Mapping[str, Any], *, seed: int, train: str, validation: str) -> Job:
        """Begin a job, once, whatever becomes of the answers, for a trial of which `job_of` knows none to go on with.

        Raises RemoteError where the server refuses it.
        """
        asked = {name: value for name, value in settings.items() if value != AUTO}
        form = request_part(asked, self._remote.hyperparameters)
        if self._remote.suffix is not None:
            form["suffix"] = self._remote.suffix
        metadata = {SWEEP: self._uid, TRIAL: str(trial)}
        n_asked = 0

        def ask() -> Job:
            nonlocal n_asked
            n_asked += 1
            try:
                told = self._client.fine_tuning.jobs.create(
                    model=self._remote.model,
                    training_file=train,
                    validation_file=validation,
                    seed=seed,
                    metadata=metadata,
                    **form,
                )
            except openai.BadRequestError as error:
                if any(words in str(error) for words in _NOT_READY):
                    raise NotYetError(error.message) from None
                raise
            return read_job(told)

        def found() -> Job | None:
            """Look for one that was not there before, whatever has become of it since."""
            known = self._known.get(trial, frozenset())
            jobs = [job for job in self._listed() if job.metadata.get(TRIAL) == str(trial)]
            return next((job for job in jobs if job.id not in known), None)

        job = self._calls.ask(ask, what="beginning a job", found=found)
        if n_asked > 1:
            self._begun_again.add(trial)
        if job.metadata.get(SWEEP) != self._uid:
            _log.warning("%s does not keep metadata: a job whose id is lost cannot be found", self._remote.base_url)
        return job

    def job(self, job_id: str) -> Job:
        jobs = self._client.fine_tuning.jobs
        return self._calls.ask(lambda: read_job(jobs.retrieve(job_id)), what=f"job {job_id}")

    def job_if_there(self, job_id: str) -> Job | None:
        try:
            return self.job(job_id)
        except RemoteError as error:
            if error.status == 404:
                return None
            raise

    def cancel(self, job_id: str) -> Job:
        """Cancel a job and give it as it is then; one that is over already is left as it is."""
        jobs = self._client.fine_tuning.jobs

        def ask() -> Job:
            try:
                return read_job(jobs.cancel(job_id))
            except (openai.BadRequestError, openai.ConflictError) as error:
                job = read_job(jobs.retrieve(job_id))
                if job.is_over:
                    return job
                raise remote_error(error, f"cancelling job {job_id}") from None

        return self._calls.ask(ask, what=f"cancelling job {job_id}")

    # --- what jobs tell -----------------------------------------------------------------------------------------

    def metrics(self, job_id: str) -> list[Metrics]:
        """Give what a job's events tell so far, by rising steps; what several say of one step is put together."""
        if job_id not in self._events:
            self._events = {job_id: {}}  # of one job at a time: there may be thousands
        known = self._events[job_id]
        jobs = self._client.fine_tuning.jobs

        def are_known(page: list[FineTuningJobEvent]) -> bool:
            return is_newest_first(page) and all(event.id in before for event in page)

        before = frozenset(known)
        events = self._calls.ask(
            lambda: list(read_list(lambda: jobs.list_events(job_id, limit=_MOST_LISTED), is_enough=are_known)),
            what=f"events of job {job_id}",
        )
        for event in reversed(events):
            known[event.id] = event
        return metrics_of(sorted(known.values(), key=lambda event: event.created_at or 0))

    def checkpoints(self, job_id: str) -> list[dict[str, Any]]:
        """List a job's checkpoints, newest first; none where the server has no such thing."""
        checkpoints = self._client.fine_tuning.jobs.checkpoints
        try:
            found = self._calls.ask(
                lambda: list(read_list(lambda: checkpoints.list(job_id))), what=f"checkpoints of {job_id}"
            )
        except RemoteError:
            return []
        return [checkpoint.to_dict() for checkpoint in found]


def make_server(
    remote: Remote, *, uid: str, folder: Path, sleep: Callable[[float], None], chance: random.Random | None = None
) -> Server:
    """Connect, with patience. `folder` is for locks. Raises RemoteError without a key."""
    folder.mkdir(parents=True, exist_ok=True)
    calls = Calls(patience_s=60 * remote.patience_minutes, sleep=sleep, chance=chance)
    return Server(connect(remote), remote, calls, uid=uid, folder=folder)
