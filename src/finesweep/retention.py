"""Which trials' weights stay on disk: `keep: none | best | all`, applied as trials end.

With several objectives the best are those that no other trial beats.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from finesweep.events import AttemptEnded, AttemptStarted, Event, TrialFinished, TrialState
from finesweep.layout import trial_dir
from finesweep.spec.front import pareto_front
from finesweep.spec.sweep import SweepSpec


class Retention:
    """A listener that removes the files of trials whose weights nobody will ask for; logs stay."""

    def __init__(
        self,
        spec: SweepSpec,
        artifact_dir: Path,
        *,
        front: Mapping[int, Sequence[float]],
        removed: Callable[[int], None],
    ) -> None:
        """Begin with the trials that no other has beaten so far and their values.

        `removed` is told the number of a trial without files.
        """
        self._keep = spec.artifacts.keep
        self._objectives = spec.study.objectives
        self._artifact_dir = artifact_dir
        self._front = dict(front)
        self._removed = removed
        self._at_work: set[int] = set()  # trials whose worker may still be writing
        self._unwanted: set[int] = set()

    def catch_up(self, finished: Collection[int]) -> None:
        """Remove the files of trials that had ended when an earlier driver died, before it came to that."""
        if self._keep != "all":
            kept = self._front.keys() if self._keep == "best" else ()
            for number in sorted(set(finished).difference(kept)):
                self._remove(number)

    def __call__(self, events: Sequence[Event]) -> None:
        for event in events:
            match event:
                case AttemptStarted(number=number):
                    self._at_work.add(number)
                case AttemptEnded(number=number):
                    self._at_work.discard(number)
                case TrialFinished(reused_from=None):
                    self._judge(event)
        for number in self._unwanted - self._at_work:
            self._unwanted.discard(number)
            self._remove(number)

    def _judge(self, event: TrialFinished) -> None:
        if event.state is not TrialState.COMPLETE or self._keep == "none":
            self._unwanted.add(event.number)
        elif self._keep == "best":
            candidates = {**self._front, event.number: event.values}
            front = pareto_front(candidates, self._objectives)
            self._front = {number: candidates[number] for number in front}
            self._unwanted |= candidates.keys() - self._front.keys()

    def _remove(self, number: int) -> None:
        folder = trial_dir(self._artifact_dir, number)
        inner = [entry for entry in folder.iterdir() if entry.is_dir()] if folder.is_dir() else []
        if inner:
            self._removed(number)  # first: what is noted and still there is found by `catch_up`
        for entry in inner:
            shutil.rmtree(entry, ignore_errors=True)
