"""One training as it is watched: reports are noted and shown, Ctrl-C becomes a checkpoint, it may end early.

In: reports of a trainer. Out: decisions, lines or a bar on stderr, what was reported.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from finesweep.events import Decision, Report
from finesweep.layout import step_of
from finesweep.production.processes import Processes
from finesweep.spec.study import Objective, has_diverged

_LINE_EVERY_S = 30.0  # between lines about steps where there is no terminal; reports are told at once


class Shown(Protocol):
    """Where a training's progress is seen."""

    def say(self, text: str) -> None: ...

    def at(self, optimizer_step: int, total: int) -> None:
        """Tell how far a training is; cheap enough for every step."""


class Lines:
    """Lines on stderr, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._said_s = time.monotonic()

    def say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def at(self, optimizer_step: int, total: int) -> None:
        now_s = time.monotonic()
        if now_s - self._said_s >= _LINE_EVERY_S:
            self._said_s = now_s
            self.say(f"optimizer step {optimizer_step:,} of {total:,}")


class Bar(Lines):
    """A bar at the foot of a terminal, lines above it."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        columns = (
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self._progress = Progress(*columns, console=console, transient=True)
        self._task = self._progress.add_task("training", total=None)

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def at(self, optimizer_step: int, total: int) -> None:
        self._progress.update(self._task, completed=optimizer_step, total=total)


class Silent:
    """For processes that are not the main one."""

    def say(self, text: str) -> None: ...

    def at(self, optimizer_step: int, total: int) -> None: ...


class Watch:
    """The reporter of a production training."""

    def __init__(
        self, objectives: Sequence[Objective], shown: Shown, processes: Processes, *, stops_early: bool = False
    ) -> None:
        """With `stops_early` the training ends with its first report, wherever that falls."""
        self._objectives, self._shown, self._processes, self._stops_early = objectives, shown, processes, stops_early
        self._step = 0
        self._is_asked = False
        self.facts: dict[str, Any] = {}
        self.reports: list[Report] = []
        self.has_ended = False
        self.diverged_at: int | None = None

    def describe(self, facts: Mapping[str, Any]) -> None:
        self.facts |= facts
        if isinstance(resumed := facts.get("resumed_from"), str):
            self._step = max(0, step_of(Path(resumed)))

    def report(self, report: Report) -> Decision:
        self.reports.append(report)
        if has_diverged(report.metrics, self._objectives):
            self.diverged_at = report.step
            return Decision.STOP
        said = ", ".join(f"{name} {value:.4g}" for name, value in report.metrics.items())
        self._shown.say(f"{report.examples_seen:,} examples seen: {said}")
        if self._stops_early or report.final:
            self.has_ended = True
        return Decision.PAUSE if self._stops_early and not report.final else Decision.CONTINUE

    def poll(self) -> Decision:
        self._step += 1
        self._shown.at(self._step, self.facts.get("optimizer_steps", 0))
        return Decision.PAUSE if self._processes.any(self._is_asked) else Decision.CONTINUE

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Take the first of these signals as the wish to stop with a checkpoint; a second one stops at once."""

        def handle(number: int, frame: FrameType | None) -> None:
            if self._is_asked:
                raise KeyboardInterrupt
            self._is_asked = True
            self._shown.say("Stopping: a checkpoint is written. Again to stop at once.")

        before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
