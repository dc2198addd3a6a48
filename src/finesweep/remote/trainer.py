"""The trainer whose trials are jobs of a fine-tuning server. One per slot; a job goes on when its slot is lost.

In: a trial, a reporter. Out: the job's events as reports on the sweep's grid, an AttemptResult.
"""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openai.types.fine_tuning import FineTuningJob

from finesweep import trainer
from finesweep.errors import RemoteError, ServerAwayError
from finesweep.events import AttemptResult, Decision, Ending, Grid, TrialSpec
from finesweep.layout import own_dir, size_of
from finesweep.remote.ledger import SPENT, Ledger, ledger_key
from finesweep.remote.rows import JobFiles, prepare_rows
from finesweep.remote.server import FINAL, Metrics, is_number, make_server
from finesweep.spec.grid import AUTO_EPOCHS
from finesweep.spec.remote_rules import OWN_WORDS
from finesweep.spec.settings import function_settings
from finesweep.spec.sweep import AUTO, RemoteSweep, RemoteTraining
from finesweep.training.function import Reporter

JOB, MODEL = "job.json", "model.json"  # of a trial's folder: which job it is, and what came of it
_RESTS_WITHIN_S = 10.0  # a job that was cancelled: then a server has counted its tokens, if it ever does
_SLICE_S = 0.5  # between two questions whether to go on
_BLOCKING = (401, 403)
_BLOCKING_CODES = ("model_not_found", "training_not_available", "invalid_api_key", "insufficient_quota")

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


class _MustReturnError(Exception):
    """Ends a wait, because the sweep says so."""


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
        settings = function_settings(self._spec.training, trial.configuration)
        assert isinstance(settings, RemoteTraining), "a remote sweep has these"
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
        except _MustReturnError:
            return self._leave(trial, mine)
        finally:
            self._must_return = lambda: False

    def _train(
        self, trial: TrialSpec, settings: RemoteTraining, mine: Reporter, reporter: trainer.Reporter, folder: Path
    ) -> AttemptResult:
        job = self._job_for(trial, settings, folder)
        reporter.describe({"job": job.id, "model": job.model})
        told_up_to = 0
        metric = self._spec.study.objective.metric
        while True:
            batch_size = self._describe(job, mine, reporter)
            is_over = job.status in FINAL
            points = [] if batch_size is None else self._server.metrics(job.id)
            whole = [point for point in _restated(points) if metric in point.values]
            for point in whole:
                examples_seen = point.step * (batch_size or 0)
                if examples_seen <= told_up_to:
                    continue
                told_up_to = examples_seen
                is_last = job.status == "succeeded" and point is whole[-1]
                if mine.report(examples_seen, point.values, final=is_last).must_return and not is_last:
                    raise _MustReturnError
            if is_over:
                return self._end(job, mine, reporter, folder, has_reported=bool(whole))
            self._wait(self._spec.remote.poll_s)
            job = self._server.job(job.id)

    def _job_for(self, trial: TrialSpec, settings: RemoteTraining, folder: Path) -> FineTuningJob:
        """Find the trial's job on the server, or begin one that the budget allows."""
        known, key = self._server.job_of(trial.number), ledger_key(trial.number)
        n_epochs = AUTO_EPOCHS if settings.n_epochs == AUTO else settings.n_epochs
        if known is None:
            train = self._server.upload(self._files.train)
            validation = self._server.upload(self._files.validation)
            self._reserve(key, n_epochs)
            asked = settings.model_dump(include={"n_epochs", "batch_size", "learning_rate_multiplier"})
            try:
                job_id = self._server.create(
                    trial.number, asked, seed=settings.seed, train=train, validation=validation
                )
            except RemoteError:
                self._ledger.drop(key)
                raise
            known = self._server.job(job_id)
            _log.info("job %s of %s began", known.id, self._spec.remote.model)
        else:
            self._ledger.reserve(key, n_epochs=n_epochs, most_per_epoch=self._files.train.n_bytes, must=True)
            _log.info("going on with job %s, which is %s", known.id, known.status)
        self._ledger.rename(key, known.id)
        (folder / JOB).write_text(json.dumps({"job": known.id}), encoding="utf-8")
        return known

    def _reserve(self, key: str, n_epochs: int) -> None:
        """Set aside what the job can take; wait while jobs that run may leave some of theirs. Raises _BlockedError."""
        while not self._ledger.reserve(key, n_epochs=n_epochs, most_per_epoch=self._files.train.n_bytes):
            if not self._ledger.has_open():
                spent = self._ledger.spent()
                _log.info("%d tokens were trained, and one more job could go beyond the budget", spent.settled)
                raise _BlockedError(SPENT)
            self._wait(self._spec.remote.poll_s)

    def _describe(self, job: FineTuningJob, mine: Reporter, reporter: trainer.Reporter) -> int | None:
        """Tell what the server made of the settings; give the batch size once it is known."""
        made = job.hyperparameters
        n_epochs, batch_size = made.n_epochs, made.batch_size
        if not isinstance(n_epochs, int) or not isinstance(batch_size, int):
            return None
        if mine.total_examples is None:
            mine.total_examples = n_epochs * self._files.train.n_rows
            reporter.describe({"hyperparameters": made.to_dict(), "job_status": job.status})
        return batch_size

    def _end(
        self,
        job: FineTuningJob,
        mine: Reporter,
        reporter: trainer.Reporter,
        folder: Path,
        *,
        has_reported: bool,
    ) -> AttemptResult:
        settle(self._ledger, job)
        tokens = job.trained_tokens or 0
        price = self._spec.remote.price_per_million
        cost = {} if price is None else {"cost": tokens * price / 1e6}
        reporter.describe({"trained_tokens": tokens, "fine_tuned_model": job.fine_tuned_model, **cost})
        if job.status == "failed":
            said = job.error.message if job.error else "it does not say why"
            code = f" ({job.error.code})" if job.error and job.error.code else ""
            return AttemptResult(Ending.FAILED, reason=f"job {job.id} failed{code}: {said}")
        if job.status == "cancelled":
            return AttemptResult(Ending.FAILED, reason=f"job {job.id} was cancelled on the server, by somebody else")
        if not has_reported:
            metric = self._spec.study.objective.metric
            return AttemptResult(Ending.FAILED, reason=f"job {job.id} has told no {metric}")
        mine.close()
        checkpoints = self._server.checkpoints(job.id)
        best = self._best_of(checkpoints) or job.fine_tuned_model
        reporter.describe({"best_checkpoint": best})
        made = {
            "job": job.id,
            "fine_tuned_model": job.fine_tuned_model,
            "best_checkpoint": best,
            "checkpoints": checkpoints,
        }
        (folder / MODEL).write_text(json.dumps(made, indent=1), encoding="utf-8")
        kept = folder.relative_to(self._artifact_dir).as_posix()
        return AttemptResult(Ending.DONE, artifacts={"folder": kept}, artifact_bytes={"folder": size_of(folder)})

    def _best_of(self, checkpoints: Sequence[Mapping[str, Any]]) -> str | None:
        """Name the checkpoint that is best by the sweep's metric; None where they do not tell it."""
        objective = self._spec.study.objective
        if objective.value == "last":
            return None
        best: tuple[float, str] | None = None
        for checkpoint in checkpoints:  # newest first
            told = checkpoint.get("metrics") or {}
            value = next((told[name] for name in words_of(objective.metric) if is_number(told.get(name))), None)
            if value is not None and objective.is_better(value, best[0] if best else None):
                best = value, str(checkpoint["fine_tuned_model_checkpoint"])
        return best[1] if best else None

    def _leave(self, trial: TrialSpec, mine: Reporter) -> AttemptResult:
        """Return as the sweep says: after STOP the job is cancelled; after PAUSE it goes on, and is found again."""
        if mine.decision is not Decision.STOP:
            _log.info("the sweep pauses; a job goes on at the server, and is found again by `finesweep resume`")
            return AttemptResult(Ending.PAUSED)
        self._must_return = lambda: False
        job = self._server.job_of(trial.number)
        if job is None:
            self._ledger.drop(ledger_key(trial.number))
        else:
            if job.status not in FINAL:
                job = self._server.cancel(job.id)
            pause_s = min(self._spec.remote.poll_s, _RESTS_WITHIN_S / 5)
            for _ in range(math.ceil(_RESTS_WITHIN_S / pause_s)):
                if job.trained_tokens is not None:
                    break
                self._wait(pause_s)
                job = self._server.job(job.id)
            settle(self._ledger, job)
            _log.info("job %s is %s after %s tokens", job.id, job.status, job.trained_tokens)
        return AttemptResult(Ending.STOPPED)

    def _wait(self, seconds: float) -> None:
        """Sleep, and ask now and then whether to go on. Raises _MustReturnError."""
        left = seconds
        while left > 0:
            if self._must_return():
                raise _MustReturnError
            self._sleep(min(left, _SLICE_S))
            left -= _SLICE_S
        if self._must_return():
            raise _MustReturnError


class _BlockedError(Exception):
    """Something beside the trial must be mended first: the sweep pauses."""


@contextmanager
def _saying_what_blocks() -> Iterator[None]:
    try:
        yield
    except ServerAwayError as error:
        raise _BlockedError(str(error)) from error
    except RemoteError as error:
        if error.code in _BLOCKING_CODES or any(f"says {status}" in str(error) for status in _BLOCKING):
            raise _BlockedError(str(error)) from error
        raise


def remote_dir(artifact_dir: Path) -> Path:
    """Tell where a remote sweep keeps what its trials share."""
    return artifact_dir / "remote"


def settle(ledger: Ledger, job: FineTuningJob) -> None:
    """Note what a job that has ended took."""
    n_epochs = job.hyperparameters.n_epochs if job.status == "succeeded" else None
    ledger.settle(job.id, tokens=job.trained_tokens, n_epochs=n_epochs if isinstance(n_epochs, int) else None)


def words_of(metric: str) -> tuple[str, ...]:
    """Give what servers may call a metric."""
    return (metric, *(theirs for theirs, ours in OWN_WORDS.items() if ours == metric))


def _restated(points: list[Metrics]) -> Iterator[Metrics]:
    """Tell in a local sweep's words too what has one; carry the training loss on to steps that do not tell it."""
    known: dict[str, float] = {}
    for point in points:
        known |= {name: value for name, value in point.values.items() if name.startswith("train_")}
        own = {word: point.values[name] for name, word in OWN_WORDS.items() if name in point.values}
        yield Metrics(point.step, {**known, **point.values, **own})


def remote_facts(files: JobFiles) -> Mapping[str, Any]:
    """Give what is kept with a sweep of the rows that its jobs are given."""
    return {
        "data_fingerprint": files.fingerprint,
        "n_train_rows": files.train.n_rows,
        "n_validation_rows": files.validation.n_rows,
        "data_notes": list(files.notes),
    }
