"""The process that trains jobs, one after another, with this project's own training. In: work. Out: what it says of it.

Each message is a kind and what belongs to it: facts, report, done, stopped, paused, failed.
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
    max_validation_rows: int
    device_batch_size: int
    n_reports: int


class _Reporter:
    def __init__(self, connection: Connection, control: Any) -> None:  # Any: a number shared by processes
        self._connection, self._control = connection, control

    def describe(self, facts: Mapping[str, Any]) -> None:
        self._connection.send(("facts", dict(facts)))

    def report(self, report: Report) -> Decision:
        told = {"metrics": dict(report.metrics), "examples_seen": report.examples_seen, "final": report.final}
        self._connection.send(("report", told))
        return self.poll()

    def poll(self) -> Decision:
        return DECISIONS[self._control.value]


def work_forever(connection: Connection, control: Any, *, threads: int, cache_dir: str) -> None:
    """Train what is sent, until nothing is any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which ends this one
    os.environ["OMP_NUM_THREADS"] = str(threads)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    logging.getLogger("finesweep").setLevel(logging.WARNING)
    while True:
        try:
            work = connection.recv()
        except EOFError:  # the server is gone
            return
        try:
            connection.send(train(work, _Reporter(connection, control), cache_dir=Path(cache_dir)))
        except FinesweepError as error:
            connection.send((FAILED, str(error)))
        except Exception as error:  # whatever it is, the next job may fare better
            traceback.print_exc()
            connection.send((FAILED, f"{type(error).__name__}: {error}"))


def train(work: Work, reporter: Any, *, cache_dir: Path) -> tuple[str, str | None]:  # Any: a Reporter
    """Train a job, from its newest checkpoint where there is one. Give how it ended, and where its weights are."""
    from finesweep.training.transformers_trainer import TransformersTrainerFactory  # heavy

    spec = sweep_of(work)
    total = work.n_rows * work.n_epochs
    grid = Grid("examples", every=max(work.batch_size, -(-total // work.n_reports)), longest=total)
    trainer = TransformersTrainerFactory(spec, grid, Path(work.folder), cache_dir)()
    result = trainer.run(TrialSpec(0, work.attempt, {}), reporter)
    if result.ending not in _ENDINGS:
        return FAILED, result.reason
    kept = result.artifacts.get("best")
    return _ENDINGS[result.ending], None if kept is None else str(Path(work.folder) / kept)


def sweep_of(work: Work) -> Any:
    """Write the work as a sweep of one trial, whose weights at its end are kept."""
    from finesweep.spec.sweep import read_sweep

    is_chat = work.keys == ("messages",)
    validation_rows = work.max_validation_rows if work.validation else 1  # without any nothing is told of them
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
                "max_validation_rows": validation_rows,
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
                "device_batch_size": _largest_divisor(work.batch_size, work.device_batch_size),
                "epochs": work.n_epochs,
                "seed": work.seed,
                "checkpoint_minutes": 1,
                "divergence_factor": 1e9,  # a job is trained to its end, whatever becomes of it
            },
            "budget": {"trials": 1},
        }
    )


def _largest_divisor(number: int, most: int) -> int:
    return next(divisor for divisor in range(min(number, most), 0, -1) if number % divisor == 0)
