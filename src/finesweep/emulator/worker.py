"""The process that trains jobs, one after another, with this project's own training. In: work. Out: what it says of it.

Each message is a kind and what belongs to it: facts, report, checkpoint, done, stopped, paused, failed.
"""

from __future__ import annotations

import logging
import os
import signal
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from finesweep.errors import FinesweepError
from finesweep.events import Decision, Ending, Grid, Report, TrialSpec

DECISIONS = (Decision.CONTINUE, Decision.STOP, Decision.PAUSE)  # as the number that both processes see
DONE, STOPPED, PAUSED, FAILED = "done", "stopped", "paused", "failed"
_ENDINGS = {Ending.DONE: DONE, Ending.STOPPED: STOPPED, Ending.PAUSED: PAUSED}


@dataclass(frozen=True, slots=True)
class Work:
    """A job, as the process that trains it must know it."""

    model: str  # as a sweep names it
    train: str  # files
    validation: str | None
    keys: tuple[str, ...]
    n_rows: int
    n_epochs: int
    batch_size: int
    learning_rate: float
    seed: int
    attempt: int
    folder: str
    max_length: int
    device_batch_size: int
    n_reports: int


class _Reporter:
    def __init__(self, connection: Connection, control: Any) -> None:  # Any: a number shared by processes
        self._connection, self._control = connection, control
        self.examples_seen = 0

    def describe(self, facts: Mapping[str, Any]) -> None:
        self._connection.send(("facts", dict(facts)))

    def report(self, report: Report) -> Decision:
        told = {"metrics": dict(report.metrics), "examples_seen": report.examples_seen, "final": report.final}
        self._connection.send(("report", told))
        self.examples_seen = report.examples_seen
        return self.poll()

    def tell_checkpoint(self, step: int, path: Path) -> None:
        self._connection.send(("checkpoint", {"step": step, "path": str(path)}))

    def poll(self) -> Decision:
        return DECISIONS[self._control.value]


def work_forever(connection: Connection, control: Any, *, threads: int, cache_dir: str) -> None:
    """Train what is sent, until nothing is any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which ends this one
    os.environ["OMP_NUM_THREADS"] = str(threads)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    logging.getLogger("finesweep").setLevel(logging.WARNING)
    trainer = JobTrainer(Path(cache_dir), threads=threads)
    while True:
        try:
            work = connection.recv()
        except EOFError:  # the server is gone
            return
        try:
            connection.send(trainer.train(work, _Reporter(connection, control)))
        except FinesweepError as error:
            connection.send((FAILED, str(error)))
        except Exception as error:  # whatever it is, the next job may fare better
            traceback.print_exc()
            connection.send((FAILED, f"{type(error).__name__}: {error}"))


class JobTrainer:
    """Trains jobs; of one model and rows it reads them once."""

    def __init__(self, cache_dir: Path, *, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)  # it reads the environment at import only, which was earlier
        self._cache_dir = cache_dir
        self._known: tuple[Any, Any] = (None, None)  # what the last job had, and what was made of it

    def train(self, work: Work, reporter: _Reporter) -> tuple[str, str | None]:
        """Train a job, from its newest checkpoint where there is one. Give how it ended, and where its weights are."""
        from finesweep.emulator.epochs import KeepsEpochs  # heavy, as all of training
        from finesweep.training.checkpoints import TrialFolder
        from finesweep.training.memory import forget_trial
        from finesweep.training.recipe import train

        spec = sweep_of(work)
        shared = self._shared(work, spec)
        folder, trial = Path(work.folder), TrialSpec(0, work.attempt, {})
        keeps = KeepsEpochs(
            folder / "epochs",
            n_rows=work.n_rows,
            n_epochs=work.n_epochs,
            seen=lambda: reporter.examples_seen,
            tokenizer=shared.tokenizer,
            tell=reporter.tell_checkpoint,
        )
        try:
            result = train(
                trial,
                reporter,
                spec=spec,
                grid=grid_of(work),
                shared=shared,
                folder=TrialFolder.of(trial, folder, spec.artifacts),
                watchers=[keeps],
            )
        finally:
            forget_trial()
        if result.ending not in _ENDINGS:
            return FAILED, result.reason
        kept = result.artifacts.get("best")
        return _ENDINGS[result.ending], None if kept is None else str(folder / kept)

    def _shared(self, work: Work, spec: Any) -> Any:  # Any: a sweep's spec, and what its trials share
        from finesweep.training.prepare import prepare
        from finesweep.training.transformers_trainer import check_devices, load_shared

        check_devices(spec)
        wanted = (work.model, work.train, work.validation, work.keys, work.max_length)
        if self._known[0] != wanted:
            self._known = (None, None)  # two models at once may be too many
            prepared = prepare(spec, cache_dir=self._cache_dir)
            self._known = (wanted, load_shared(spec, prepared, cache_dir=self._cache_dir))
        return self._known[1]


def grid_of(work: Work) -> Grid:
    """Choose where a job reports: so that epochs end on reports, where its rows can be divided."""
    n_rows, n_epochs, n_reports = work.n_rows, work.n_epochs, work.n_reports
    if n_epochs >= n_reports:
        every = n_rows * -(-n_epochs // n_reports)
    else:
        wanted = n_reports // n_epochs  # in each epoch
        parts = next((parts for parts in range(wanted, 2 * wanted + 1) if n_rows % parts == 0), wanted)
        every = -(-n_rows // parts)
    return Grid("examples", every=max(work.batch_size, every), longest=n_rows * n_epochs)


def sweep_of(work: Work) -> Any:
    """Write the work as a sweep of one trial, whose weights at its end are kept."""
    from finesweep.spec.settings import largest_divisor
    from finesweep.spec.sweep import read_sweep

    is_chat = work.keys == ("messages",)
    return read_sweep(
        {
            "name": "job",
            "model": work.model,
            "task": "causal-lm",
            "data": {
                "train": work.train,
                "validation": work.validation or work.train,
                "format": "messages" if is_chat else "prompt-completion",
                "max_length": work.max_length,
                "max_validation_rows": None if work.validation else 1,  # without any nothing is told of them
            },
            "study": {
                "objective": {"metric": "loss", "direction": "minimize", "value": "last"},
                "pruner": {"type": "none"},
                "parameters": {"learning_rate": {"value": work.learning_rate}},
            },
            "training": {
                "method": "full",
                "learning_rate": work.learning_rate,
                "batch_size": work.batch_size,
                "device_batch_size": largest_divisor(work.batch_size, most=work.device_batch_size),
                "epochs": work.n_epochs,
                "seed": work.seed,
                "checkpoint_minutes": 1,
                "divergence_factor": 1e9,  # a job is trained to its end, whatever becomes of it
            },
            "budget": {"trials": 1},
        }
    )
