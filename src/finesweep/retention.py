"""Which trials' weights stay on disk: `keep: none | best | all`, applied as trials end."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from finesweep.events import AttemptEnded, AttemptStarted, Event, TrialFinished, TrialState
from finesweep.layout import trial_dir
from finesweep.spec.sweep import SweepSpec


class Retention:
    """A listener that removes the files of trials whose weights nobody will ask for; logs stay."""

    def __init__(
        self,
        spec: SweepSpec,
        artifact_dir: Path,
        *,
        incumbent: tuple[int, float] | None,
        removed: Callable[[int], None],
    ) -> None:
        """Begin with the best trial so far and its value; `removed` is told the number of a trial without files."""
        self._keep = spec.artifacts.keep
        self._rank = spec.study.objective.rank
        self._artifact_dir = artifact_dir
        self._incumbent = incumbent
        self._removed = removed
        self._at_work: set[int] = set()  # trials whose worker may still be writing
        self._unwanted: set[int] = set()

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
        if event.state is not TrialState.COMPLETE or event.value is None or self._keep == "none":
            self._unwanted.add(event.number)
            return
        is_best = self._incumbent is None or self._rank(event.number, event.value) < self._rank(*self._incumbent)
        loser = (self._incumbent[0] if self._incumbent else None) if is_best else event.number
        if is_best:
            self._incumbent = (event.number, event.value)
        if self._keep == "best" and loser is not None:
            self._unwanted.add(loser)

    def _remove(self, number: int) -> None:
        folder = trial_dir(self._artifact_dir, number)
        if not folder.is_dir():
            return
        for entry in folder.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
        self._removed(number)
