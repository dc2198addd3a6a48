"""The trainer whose trials are jobs of a fine-tuning server. One per slot; a job goes on when its slot is lost.

In: a trial, a reporter. Out: the job's events as reports on the sweep's grid, an AttemptResult.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from finesweep import trainer
from finesweep.durable import write_whole
from finesweep.errors import DiskFullError, RemoteError, ServerAwayError
from finesweep.events import AttemptResult, Decision, Ending, Grid, TrialSpec
from finesweep.layout import JOB_MODEL, own_dir, remote_dir, size_of
from finesweep.remote.answers import Job
from finesweep.remote.ledger import SPENT, Ledger, has_no_job, ledger_key
from finesweep.remote.outcome import best_of, cost_facts, settle, whole_epochs
from finesweep.remote.rows import JobFiles, prepare_rows
from finesweep.remote.server import make_server
from finesweep.remote.watching import IGNORED, MustReturnError, Watch
from finesweep.spec.grid import AUTO_EPOCHS
from finesweep.spec.protocol import HYPERPARAMETERS
from finesweep.spec.settings import laid_over
from finesweep.spec.sweep import AUTO, RemoteSweep, RemoteTraining
from finesweep.training.function import Reporter

JOB, MODEL = "job.json", JOB_MODEL  # of a trial's folder: which job it is, and what came of it
_LOOK_FOR_TOKENS_S = 10.0  # servers count them when a job has come to rest; some never do
_SLICE_S = 0.5  # between two questions whether to go on
_BLOCKING = (401, 402, 403)
_BLOCKING_CODES = (
    "model_not_found",
    "training_not_available",
    "invalid_api_key",
    "insufficient_quota",
    "billing_hard_limit_reached",
    IGNORED,
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RemoteTrainerFactory:
    """Picklable: called once in each worker."""

    spec: RemoteSweep
    grid: Grid
    artifact_dir: Path
    cache_dir: Path
    uid: str  # what the sweep's jobs are found by

    def __call__(self) -> RemoteTrainer:
        """Find the rows and the key. Raises DataError or RemoteError."""
        files = prepare_rows(self.spec, cache_dir=self.cache_dir)
        return RemoteTrainer(self.spec, self.grid, files, artifact_dir=self.artifact_dir, uid=self.uid)


class RemoteTrainer:
    def __init__(
        self,
        spec: RemoteSweep,
        grid: Grid,
        files: JobFiles,
        *,
        artifact_dir: Path,
        uid: str,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._spec, self._grid, self._files, self._artifact_dir = spec, grid, files, artifact_dir
        self._sleep = sleep
        folder = remote_dir(artifact_dir)
        self._ledger = Ledger(folder)
        self._must_return: Callable[[], bool] = lambda: False
        self._server = make_server(spec.remote, uid=uid, folder=folder, sleep=self._wait)

    def run(self, trial: TrialSpec, reporter: trainer.Reporter) -> AttemptResult:
        """Have a job trained, or go on with the one that the trial has."""
        settings = laid_over(self._spec.training, trial.configuration)
        folder = own_dir(self._artifact_dir, trial.number)
        folder.mkdir(parents=True, exist_ok=True)
        mine = Reporter(reporter, self._grid, self._spec, total=None)
        self._must_return = mine.should_stop
        reporter.describe({"pid": os.getpid(), "device": self._spec.remote.base_url})
        try:
            with _saying_what_blocks():
                return self._train(trial, settings, mine, reporter, folder)
        except _BlockedError as error:
            return AttemptResult(Ending.BLOCKED, reason=str(error))
        except MustReturnError:
            return self._leave(trial, mine, reporter)
        finally:
            self._must_return = lambda: False

    def _train(
        self, trial: TrialSpec, settings: RemoteTraining, mine: Reporter, reporter: trainer.Reporter, folder: Path
    ) -> AttemptResult:
        job = self._job_for(trial, settings, folder)
        reporter.describe({"job": job.id, "model": job.model})
        watch = Watch(
            self._server,
            self._spec,
            settings,
            n_rows=self._files.train.n_rows,
            mine=mine,
            reporter=reporter,
            wait=self._wait,
        )
        try:
            _write(folder / JOB, {"job": job.id})
            self._look_after(trial, settings, job)
            job = watch.follow(job, meanwhile=partial(self._look_after, trial, settings))
            return self._end(job, mine, reporter, folder, has_reported=watch.has_reported)
        except (MustReturnError, ServerAwayError):
            raise
        except Exception as error:  # whatever it is, nobody waits for the job any more
            if not _blocks(error) or (isinstance(error, RemoteError) and error.code == IGNORED):
                self._give_up(job)
            raise

    def _job_for(self, trial: TrialSpec, settings: RemoteTraining, folder: Path) -> Job:
        """Find the trial's job on the server, or begin one that the budget allows."""
        known, key = self._known_job(trial, folder), ledger_key(trial.number)
        n_epochs = self._most_epochs(settings)
        if known is None:
            train = self._server.upload(self._files.train)
            validation = self._server.upload(self._files.validation)
            self._reserve(key, n_epochs)
            asked = settings.model_dump(include={*HYPERPARAMETERS})
            try:
                known = self._server.create(trial.number, asked, seed=settings.seed, train=train, validation=validation)
            except RemoteError:
                self._ledger.drop(key)
                raise
            _log.info("job %s of %s began", known.id, self._spec.remote.model)
        else:
            self._ledger.reserve(key, n_epochs=n_epochs, most_per_epoch=self._files.train.n_bytes, must=True)
            _log.info("going on with job %s, which is %s", known.id, known.status)
        self._ledger.rename(key, known.id)
        self._ledger.reserve(known.id, n_epochs=n_epochs, most_per_epoch=self._files.train.n_bytes, must=True)
        return known

    def _known_job(self, trial: TrialSpec, folder: Path) -> Job | None:
        """Find the job that a trial has: by its metadata, on servers that keep none by what was noted of it."""
        known = self._server.job_of(trial.number)
        if known is not None or not (folder / JOB).exists():
            return known
        with suppress(ValueError, KeyError, TypeError):  # a note that cannot be read is none
            known = self._server.job_if_there(json.loads((folder / JOB).read_text(encoding="utf-8"))["job"])
        return known if known is not None and known.may_count else None

    def _most_epochs(self, settings: RemoteTraining) -> int:
        """Tell for how many epochs a job may be trained: what is asked for, or the most that the server has chosen."""
        if settings.n_epochs != AUTO:
            return settings.n_epochs
        return max(AUTO_EPOCHS, self._ledger.most_epochs())

    def _look_after(self, trial: TrialSpec, settings: RemoteTraining, job: Job) -> None:
        """Cancel twins of a job; set aside for it what it takes by the epochs that its server has told.

        Raises _BlockedError where these are more than the budget holds.
        """
        most = self._files.train.n_bytes
        for twin in self._server.twins_of(trial.number, job.id):
            _log.warning("job %s is a second one of this trial, begun by a request whose answer was lost", twin.id)
            self._ledger.reserve(twin.id, n_epochs=self._most_epochs(settings), most_per_epoch=most, must=True)
            self._give_up(twin)
        n_epochs = whole_epochs(job)
        if n_epochs is not None and not self._ledger.amend(job.id, n_epochs=n_epochs, most_per_epoch=most):
            _log.warning("the server chose %d epochs, which the budget does not hold: the job is cancelled", n_epochs)
            raise _BlockedError(SPENT)

    def _give_up(self, job: Job) -> None:
        """Cancel a job that nobody waits for any more. If the server does not answer it stays open in the ledger."""
        with suppress(RemoteError, ServerAwayError, MustReturnError):
            job = self._server.cancel(job.id)
            job = self._with_tokens(job)
        if job.is_over:
            settle(self._ledger, job)

    def _reserve(self, key: str, n_epochs: int) -> None:
        """Set aside what the job can take; wait while jobs that run may leave some of theirs. Raises _BlockedError."""
        waited_s: Counter[str] = Counter()
        while not self._ledger.reserve(key, n_epochs=n_epochs, most_per_epoch=self._files.train.n_bytes):
            if not self._ledger.has_open():
                spent = self._ledger.spent()
                _log.info("%d tokens were trained, and one more job could go beyond the budget", spent.settled)
                raise _BlockedError(SPENT)
            self._wait(self._spec.remote.poll_s)
            self._free_what_is_lost(waited_s)

    def _free_what_is_lost(self, waited_s: Counter[str]) -> None:
        """Settle jobs that have ended without their worker; give back what trials hold that came to no job."""
        open_keys = self._ledger.open_keys()
        for job in self._server.jobs():
            if job.is_over and job.id in open_keys:
                settle(self._ledger, job)
        waited_s.update(dict.fromkeys(filter(has_no_job, open_keys), self._spec.remote.poll_s))
        for key in open_keys:
            if waited_s[key] > 2 * 60 * self._spec.remote.patience_minutes:  # who lives begins a job or gives up sooner
                self._ledger.drop(key)

    def _end(
        self,
        job: Job,
        mine: Reporter,
        reporter: trainer.Reporter,
        folder: Path,
        *,
        has_reported: bool,
    ) -> AttemptResult:
        job = self._with_tokens(job)
        settle(self._ledger, job, has_begun=has_reported)
        reporter.describe(
            {"fine_tuned_model": job.fine_tuned_model, **cost_facts(job, self._spec.remote.price_per_million)}
        )
        if job.outcome == "failed":
            return AttemptResult(Ending.FAILED, reason=f"job {job.id} failed{job.why_failed}")
        if job.outcome == "cancelled":
            return AttemptResult(Ending.FAILED, reason=f"job {job.id} was cancelled on the server, by somebody else")
        if not has_reported:
            return AttemptResult(Ending.FAILED, reason=f"job {job.id} {self._missing(job)}")
        mine.close()
        checkpoints = self._server.checkpoints(job.id)
        best = best_of(checkpoints, self._spec.study.objective) or job.fine_tuned_model
        reporter.describe({"best_checkpoint": best})
        made = {
            "job": job.id,
            "fine_tuned_model": job.fine_tuned_model,
            "best_checkpoint": best,
            "checkpoints": checkpoints,
        }
        _write(folder / MODEL, made)
        kept = folder.relative_to(self._artifact_dir).as_posix()
        return AttemptResult(Ending.DONE, artifacts={"folder": kept}, artifact_bytes={"folder": size_of(folder)})

    def _missing(self, job: Job) -> str:
        """Say what a job should have told."""
        metrics = " and ".join(objective.metric for objective in self._spec.study.objectives)
        if self._server.metrics(job.id) and not {"n_epochs", "batch_size"} & job.made.keys():
            return f"has told no {metrics} at steps that can be placed: set training.n_epochs and training.batch_size"
        return f"has told no {metrics}"

    def _with_tokens(self, job: Job) -> Job:
        """Wait a little for what a job took: a server counts it when the job has come to rest. Some never tell."""
        left_s, pause_s = _LOOK_FOR_TOKENS_S, min(self._spec.remote.poll_s, 2.0)
        while job.trained_tokens is None and job.outcome != "failed" and left_s > 0:
            self._wait(pause_s)
            left_s -= pause_s
            job = self._server.job(job.id)
        return job

    def _leave(self, trial: TrialSpec, mine: Reporter, reporter: trainer.Reporter) -> AttemptResult:
        """Return as the sweep says: after STOP the job is cancelled; after PAUSE it goes on, and is found again."""
        if mine.decision is not Decision.STOP:
            _log.info("the sweep pauses; a job goes on at the server, and is found again by `finesweep resume`")
            return AttemptResult(Ending.PAUSED)
        self._must_return = lambda: False
        try:
            self._cancel(trial, reporter)
        except (RemoteError, ServerAwayError) as error:
            _log.warning("%s; its job goes on until `finesweep resume` or `delete` can cancel it", error)
        return AttemptResult(Ending.STOPPED)

    def _cancel(self, trial: TrialSpec, reporter: trainer.Reporter) -> None:
        job = self._known_job(trial, own_dir(self._artifact_dir, trial.number))
        if job is None:
            self._ledger.drop(ledger_key(trial.number))
            return
        if not job.is_over:
            job = self._server.cancel(job.id)
        job = self._with_tokens(job)
        settle(self._ledger, job)
        reporter.describe(cost_facts(job, self._spec.remote.price_per_million))
        _log.info("job %s is %s after %s tokens", job.id, job.status, job.trained_tokens)

    def _wait(self, seconds: float) -> None:
        """Sleep, and ask now and then whether to go on. Raises MustReturnError."""
        left = seconds
        while left > 0:
            if self._must_return():
                raise MustReturnError
            self._sleep(min(left, _SLICE_S))
            left -= _SLICE_S
        if self._must_return():
            raise MustReturnError


class _BlockedError(Exception):
    """Something beside the trial must be mended first: the sweep pauses."""


@contextmanager
def _saying_what_blocks() -> Iterator[None]:
    try:
        yield
    except (RemoteError, ServerAwayError) as error:
        if _blocks(error):
            raise _BlockedError(str(error)) from error
        raise


def _blocks(error: Exception) -> bool:
    """Tell whether other trials would meet the same."""
    if isinstance(error, RemoteError):
        return error.code in _BLOCKING_CODES or error.status in _BLOCKING
    return isinstance(error, ServerAwayError | DiskFullError)


def _write(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON whole or not at all. Raises DiskFullError."""
    with trainer.naming_disk(path.parent):
        write_whole(path, json.dumps(content, indent=1).encode(), synced=False)


def remote_facts(files: JobFiles) -> Mapping[str, Any]:
    """Give what is kept with a sweep of the rows that its jobs are given."""
    return {
        "data_fingerprint": files.fingerprint,
        "n_train_rows": files.train.n_rows,
        "n_train_bytes": files.train.n_bytes,
        "n_validation_rows": files.validation.n_rows,
        "data_notes": list(files.notes),
    }
