"""How far a job is, in examples, and what it tells there: by what the server says, else by what it was asked for.

In: a job, metrics at optimizer steps. Out: reports as a sweep has them. It must not know servers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from finesweep.remote.answers import Job, Metrics
from finesweep.spec.remote_rules import OWN_WORDS
from finesweep.spec.sweep import AUTO, RemoteTraining

_AS_ASKED = 1e-3  # a number that is told may be rounded


@dataclass(frozen=True, slots=True)
class Schedule:
    """A job's way through its rows."""

    n_rows: int
    n_epochs: float | None  # None: the server chooses, and has not told yet
    batch_size: int | None

    @property
    def total_examples(self) -> int | None:
        return None if self.n_epochs is None else max(1, round(self.n_epochs * self.n_rows))

    def examples_at(self, point: Metrics) -> int | None:
        """Give the examples seen at a step; None where it is not known.

        Servers differ in whether an epoch ends in a smaller batch: their own count of steps goes before ours.
        """
        total = self.total_examples
        if total is None:
            return None
        n_steps = point.n_steps or self._n_steps()
        return None if n_steps is None else min(total, round(total * point.step / n_steps))

    def ending_at(self, point: Metrics) -> Schedule:
        """Take a point for the end, where a server never tells of epochs."""
        if self.n_epochs is not None or self.batch_size is None:
            return self
        return replace(self, n_epochs=max(1, point.step) * self.batch_size / self.n_rows)

    def _n_steps(self) -> int | None:
        if self.n_epochs is None or self.batch_size is None:
            return None
        return max(1, round(self.n_epochs * math.ceil(self.n_rows / self.batch_size)))


def schedule_of(job: Job, asked: RemoteTraining, *, n_rows: int) -> Schedule:
    """Go by what the server tells of a job, else by what it was asked for."""
    n_epochs = job.made.get("n_epochs", None if asked.n_epochs == AUTO else asked.n_epochs)
    batch_size = job.made.get("batch_size", None if asked.batch_size == AUTO else asked.batch_size)
    return Schedule(n_rows, n_epochs, None if batch_size is None else max(1, int(batch_size)))


def is_heeded(job: Job, asked: RemoteTraining) -> bool:
    """Tell whether a server trains as it was asked to: false where it tells others of all numbers that it was given.

    A single one may differ for good reasons; a batch that is smaller most of all, where there are not as many rows.
    """
    given = {name: value for name, value in asked.model_dump().items() if name in job.made and value != AUTO}
    if job.made.get("batch_size", 0) < given.get("batch_size", 0):
        del given["batch_size"]
    return not given or any(math.isclose(value, job.made[name], rel_tol=_AS_ASKED) for name, value in given.items())


def is_whole(points: Sequence[Metrics]) -> bool:
    """Tell whether a job that has succeeded has told everything, as far as one can know."""
    return bool(points) and (points[-1].n_steps is None or points[-1].step >= points[-1].n_steps)


def restated(points: Sequence[Metrics]) -> Iterator[Metrics]:
    """Tell in a local sweep's words what has one; carry the training loss on to steps that do not tell it."""
    known: dict[str, float] = {}
    n_steps: int | None = None
    for point in points:
        n_steps = point.n_steps or n_steps
        known |= {name: value for name, value in point.values.items() if name.startswith("train_")}
        told = {OWN_WORDS.get(name, name): value for name, value in point.values.items()}
        yield Metrics(point.step, {**known, **told}, n_steps)


def words_of(metric: str) -> tuple[str, ...]:
    """Give what servers may call a metric."""
    return (metric, *(theirs for theirs, ours in OWN_WORDS.items() if ours == metric))
