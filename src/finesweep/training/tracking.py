"""Show each trial as a run in experiment trackers, grouped by sweep and named by trial.

In: an attempt, and what it tells its reporter. Out: the same, in every tracker; a resumed trial goes on in its run. It
must not know how trials are trained.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from finesweep.durable import write_whole
from finesweep.events import AttemptResult, Decision, Ending, Report, TrialSpec, TrialState
from finesweep.layout import trackers_path
from finesweep.secrets import hide
from finesweep.spec.sweep import SweepSpec, Tracker
from finesweep.trainer import Reporter
from finesweep.training.trackers import Run, ShownTrial, open_run

_log = logging.getLogger(__name__)


def track(
    trial: TrialSpec,
    reporter: Reporter,
    *,
    spec: SweepSpec,
    trackers: Sequence[Tracker],
    artifact_dir: Path,
    train: Callable[[Reporter], AttemptResult],
) -> AttemptResult:
    """Train an attempt, and show it in the trackers. What goes wrong there is logged and does not touch the trial."""
    if not trackers:
        return train(reporter)
    shown = ShownTrial(spec, trial, artifact_dir)
    tracked = _TrackedReporter(reporter, shown)
    tracked.open(trackers)
    state = TrialState.FAILED
    try:
        result = train(tracked)
        state = _STATES[result.ending]
        return result
    finally:
        tracked.close(state)


_STATES = {
    Ending.DONE: TrialState.COMPLETE,
    Ending.STOPPED: TrialState.PRUNED,
    Ending.PAUSED: TrialState.INTERRUPTED,
    Ending.FAILED: TrialState.FAILED,
}


class _TrackedReporter:
    """Passes everything on, and tells the trackers. One that fails is let alone for the rest of the attempt."""

    def __init__(self, reporter: Reporter, shown: ShownTrial) -> None:
        self._reporter, self._shown = reporter, shown
        self._runs: dict[str, Run] = {}
        self._notes = _Notes.read(trackers_path(shown.artifact_dir, shown.trial.number))
        self._problems: dict[str, str] = {}

    def open(self, trackers: Sequence[Tracker]) -> None:
        self._notes.path.parent.mkdir(parents=True, exist_ok=True)
        for name in trackers:
            self._try(name, partial(self._open, name))
        self._notes.write()

    def _open(self, name: Tracker) -> None:
        run_id = self._notes.run_ids.get(name)
        self._runs[name], self._notes.run_ids[name] = open_run(name, self._shown, run_id)

    def describe(self, facts: Mapping[str, Any]) -> None:
        self._reporter.describe(facts)
        self._tell_all(lambda run: run.describe(facts))

    def report(self, report: Report) -> Decision:
        decision = self._reporter.report(report)
        if report.step > self._notes.last_step:  # else it was shown by an earlier attempt
            self._tell_all(lambda run: run.log(report.step, report.metrics))
            self._notes.last_step = report.step
            self._notes.write()
        return decision

    def poll(self) -> Decision:
        return self._reporter.poll()

    def close(self, state: TrialState) -> None:
        self._tell_all(lambda run: run.close(state))

    def _tell_all(self, tell: Callable[[Run], object]) -> None:
        for name, run in list(self._runs.items()):
            self._try(name, partial(tell, run))

    def _try(self, name: str, do: Callable[[], object]) -> None:
        try:
            do()
        except Exception as error:  # whatever a tracker, its network or its server may raise
            self._runs.pop(name, None)
            self._problems[name] = hide(f"{type(error).__name__}: {error}")[:500]
            _log.warning("%s does not show the rest of this attempt: %s", name, self._problems[name])
            self._reporter.describe({"tracker_problems": dict(self._problems)})


@dataclass(slots=True)
class _Notes:
    """What the next attempt at the trial needs to go on in the same runs."""

    path: Path
    run_ids: dict[str, str]
    last_step: int

    @classmethod
    def read(cls, path: Path) -> _Notes:
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return cls(path, {}, -1)
        return cls(path, known["run_ids"], known["last_step"])

    def write(self) -> None:
        noted = {"run_ids": self.run_ids, "last_step": self.last_step}
        write_whole(self.path, json.dumps(noted).encode(), synced=False)
