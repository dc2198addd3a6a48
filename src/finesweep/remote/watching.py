"""Following a job to its end. In: a job, a server. Out: its events as reports on the sweep's grid.

It must not know how jobs are begun, nor what they cost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from finesweep import trainer
from finesweep.errors import RemoteError
from finesweep.remote.answers import Job, Metrics
from finesweep.remote.progress import Schedule, is_heeded, is_whole, restated, schedule_of
from finesweep.remote.server import Server
from finesweep.spec.sweep import RemoteSweep, RemoteTraining
from finesweep.training.function import Reporter

IGNORED = "hyperparameters_ignored"  # our own code of a RemoteError
_LOOKS_FOR_NEW = 5  # at a job that was begun, and is not there yet
_LOOKS_FOR_LATE = 3  # at the events of a job that has succeeded, and has not told all
_LONGEST_LOOK_S = 5.0

Answer = TypeVar("Answer")


class MustReturnError(Exception):
    """Ends a wait, because the sweep says so."""


class Watch:
    """Follows one job."""

    def __init__(
        self,
        server: Server,
        spec: RemoteSweep,
        asked: RemoteTraining,
        *,
        n_rows: int,
        mine: Reporter,
        reporter: trainer.Reporter,
        wait: Callable[[float], None],
    ) -> None:
        """`mine` brings reports onto the grid; `reporter` hears of facts; `wait` raises where it must not go on."""
        self._server, self._spec, self._asked, self._n_rows = server, spec, asked, n_rows
        self._mine, self._reporter, self._wait = mine, reporter, wait
        self._wanted = [objective.metric for objective in spec.study.objectives]
        self._made: object = None  # of it, what was described last
        self._told_up_to = 0  # examples
        self.has_reported = False

    def follow(self, job: Job, *, meanwhile: Callable[[Job], None]) -> Job:
        """Report what a job tells until it is over; give it as it is then. `meanwhile` is called at each look.

        Raises MustReturnError, RemoteError or ServerAwayError.
        """
        n_late = 0
        while True:
            points = [] if job.is_waiting else list(restated(self._there(partial(self._server.metrics, job.id))))
            if points and not is_heeded(job, self._asked):
                raise _ignored(job, self._asked)
            has_succeeded = job.outcome == "succeeded"
            is_late = has_succeeded and n_late < _LOOKS_FOR_LATE and not self._is_whole(points)
            self._report(job, points, is_end=has_succeeded and not is_late)
            if job.is_over and not is_late:
                return job
            n_late += is_late
            self._wait(min(self._spec.remote.poll_s, _LONGEST_LOOK_S) if is_late else self._spec.remote.poll_s)
            meanwhile(job)
            job = self._there(partial(self._server.job, job.id))

    def _is_whole(self, points: Sequence[Metrics]) -> bool:
        return is_whole(points) and any(self._holds(point) for point in points)

    def _holds(self, point: Metrics) -> bool:
        return all(metric in point.values for metric in self._wanted)

    def _report(self, job: Job, points: Sequence[Metrics], *, is_end: bool) -> None:
        """Report what has not been yet; `is_end`: there will be no more."""
        schedule = schedule_of(job, self._asked, n_rows=self._n_rows)
        if is_end and points:
            schedule = schedule.ending_at(points[-1])
        self._describe(job, schedule)
        whole = [point for point in points if self._holds(point)]
        for point in whole:
            examples_seen = schedule.examples_at(point)
            if examples_seen is None or examples_seen <= self._told_up_to:
                continue
            self._told_up_to, self.has_reported = examples_seen, True
            is_last = is_end and point is whole[-1]
            if self._mine.report(examples_seen, point.values, final=is_last).must_return and not is_last:
                raise MustReturnError

    def _describe(self, job: Job, schedule: Schedule) -> None:
        """Tell what the server made of the settings, once it is known."""
        total = schedule.total_examples
        if total is not None and total != self._mine.total_examples:
            self._mine.total_examples = total
        if job.made and job.made != self._made:
            self._made = job.made
            self._reporter.describe({"hyperparameters": dict(job.made), "job_status": job.status})

    def _there(self, ask: Callable[[], Answer]) -> Answer:
        """Ask of a job that was begun just now, and may not be known yet wherever the server looks."""
        for _ in range(_LOOKS_FOR_NEW):
            try:
                return ask()
            except RemoteError as error:
                if error.status != 404:
                    raise
            self._wait(min(self._spec.remote.poll_s, _LONGEST_LOOK_S))
        return ask()


def _ignored(job: Job, asked: RemoteTraining) -> RemoteError:
    wanted = {name: value for name, value in asked.model_dump().items() if name in job.made}
    return RemoteError(
        f"job {job.id} is trained with {_listed(job.made)}, and not with {_listed(wanted)} as it was asked to. Servers"
        " look for hyperparameters in two places: set remote.hyperparameters to the other one (method, top-level).",
        IGNORED,
    )


def _listed(values: object) -> str:
    assert isinstance(values, dict)
    return ", ".join(
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in values.items()
    )
