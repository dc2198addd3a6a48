"""Trains the lanes of a stack to their ends: from report to report, each going on or not as it is told.

In: lanes with their attempts, the stack's reporter. Out: reports in ascending number, how each lane ended. It must not
know weights.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from finesweep.events import AttemptResult, Decision, Report
from finesweep.trainer import StackReporter, failed_by
from finesweep.training.attempt import Attempt, Reports
from finesweep.training.stack.lane import Lane
from finesweep.training.stack.stack import Stack, alike

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Running:
    """A lane under way, and what it has to say."""

    number: int
    lane: Lane
    attempt: Attempt
    examples_before: int = 0  # seen in earlier attempts
    began_s: float = field(default_factory=time.perf_counter)
    cpu_s: float = 0.0  # its share of what the stack has taken
    reports: Reports | None = None  # of the last step, as far as they are not told
    due: Report | None = None  # the next of them
    ended: AttemptResult | None = None


def train_lanes(lanes: Sequence[Running], reporter: StackReporter, *, at_end: Callable[[Running], None]) -> None:
    """Train lanes until each has ended; `at_end` hears of one that comes to its end before the reporter does.

    What goes wrong in a lane alone, such as a metric that raises, fails that lane alone.
    """
    live = sorted(lanes, key=lambda running: running.number)
    for running in live:
        _guarded(running, partial(running.attempt.begin, running.lane.optimizer_step))
    while live := [running for running in live if not _has_left(running, reporter, at_end)]:
        began_s = time.process_time()
        _move_on(live)
        due = {running.number: running.due for running in live if running.due is not None}
        share_s = (time.process_time() - began_s) / len(live)
        for running in live:
            running.cpu_s += share_s
        if due:
            answers = reporter.report(due)
            for running in live:
                if running.number in due:
                    _go_on(running, answers[running.number])


def _move_on(live: Sequence[Running]) -> None:
    """Make optimizer steps until every lane has something to report, or is over; one that has waits for the others."""
    for group in alike([running.lane for running in live if running.due is None]):
        moving = [running for running in live if running.lane in group]
        while moving:
            stack, n_moving = Stack([running.lane for running in moving]), len(moving)
            while len(moving) == n_moving:
                for running, loss in zip(moving, stack.step(), strict=True):
                    running.reports = running.attempt.after_step(running.lane.optimizer_step, loss)
                    _go_on(running, None)
                moving = [running for running in moving if running.due is None and running.ended is None]


def _go_on(running: Running, decision: Decision | None) -> None:
    """Hear what a lane has to report next, once what it reported before is answered."""

    def ask() -> None:
        reports = running.reports
        assert reports is not None, "a step was made"
        running.due = None
        try:
            running.due = next(reports) if decision is None else reports.send(decision)
        except StopIteration as end:
            if end.value:
                running.ended = running.attempt.end()

    _guarded(running, ask)


def _guarded(running: Running, do: Callable[[], None]) -> None:
    try:
        do()
    except Exception as error:
        running.due, running.ended = None, failed_by(error)
        of_trial = {"trial": running.number}
        _log.error("trial %d failed:\n%s", running.number, running.ended.traceback, extra=of_trial)


def _has_left(running: Running, reporter: StackReporter, at_end: Callable[[Running], None]) -> bool:
    if running.ended is None:
        return False
    at_end(running)
    reporter.end(running.number, running.ended)
    return True
