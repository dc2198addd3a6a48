"""Which trials' weights stay on disk: `artifacts.keep`, applied as trials end, and once to what an earlier drive left.

With several objectives the best are those that no other trial beats. The database hears that files go before they go:
what is then still there is found by whoever looks next.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from finesweep.events import AttemptEnded, AttemptStarted, Ending, Event, TrialFinished, TrialRecord, TrialState
from finesweep.holdings import Holding, best_trials, find_holdings
from finesweep.layout import PartKind, attempts_of, parts_of, trial_dir, unknown_dir
from finesweep.spec.front import trained_values
from finesweep.spec.sweep import SweepSpec

_TORN = (Ending.FAILED, Ending.LOST, Ending.STALLED, Ending.BLOCKED)  # of a worker that may have been writing

Removed = Callable[[int], None]  # told the number of a trial before its weights go


class Retention:
    """A listener that removes the files of trials whose weights nobody will ask for; logs stay."""

    def __init__(self, spec: SweepSpec, artifact_dir: Path, *, trials: Sequence[TrialRecord], removed: Removed) -> None:
        """Begin with the trials that there are, and finish the removals that an earlier drive did not come to."""
        self._keep, self._objectives = spec.artifacts.keep, spec.study.objectives
        self._artifact_dir = artifact_dir
        self._removed = removed
        values = trained_values(trials, self._objectives)
        self._kept = {number: values[number] for number in best_trials(values, self._objectives, self._keep)}
        self._at_work: set[int] = set()  # trials whose worker may still be writing
        self._unwanted: set[int] = set()
        left = find_holdings(artifact_dir, trials, self._objectives, self._keep)
        set_aside([holding for holding in left if holding.trial is None], artifact_dir)
        free([holding for holding in left if holding.trial is not None], removed=removed)

    def __call__(self, events: Sequence[Event]) -> None:
        for event in events:
            match event:
                case AttemptStarted(number=number):
                    self._at_work.add(number)
                case AttemptEnded(number=number, result=result):
                    self._at_work.discard(number)
                    if result.ending in _TORN:
                        parts = parts_of(trial_dir(self._artifact_dir, number))
                        _remove(part.path for part in parts if part.kind is PartKind.HALF_WRITTEN)
                case TrialFinished(reused_from=None):
                    self._judge(event)
        for number in self._unwanted - self._at_work:
            self._unwanted.discard(number)
            path = trial_dir(self._artifact_dir, number)
            if parts := parts_of(path):
                self._removed(number)
                _remove(part.path for part in parts)
            _remove_empty(path)

    def _judge(self, event: TrialFinished) -> None:
        if event.state is not TrialState.COMPLETE:
            self._unwanted.add(event.number)
        elif self._keep != "all":
            candidates = {**self._kept, event.number: event.values}
            best = best_trials(candidates, self._objectives, self._keep)
            self._kept = {number: candidates[number] for number in best}
            self._unwanted |= candidates.keys() - self._kept.keys()


def free(holdings: Iterable[Holding], *, removed: Removed) -> None:
    """Remove what may go of what trials hold. For a sweep that nobody else drives."""
    for holding in holdings:
        if holding.trial is None:
            shutil.rmtree(holding.path, ignore_errors=True)
            continue
        if holding.free and holding.is_all_free:
            removed(holding.number)
        _remove(holding.free)
        for attempt, path in attempts_of(holding.path).items():
            if attempt > holding.trial.attempts:  # to be made anew: later attempts give way to one that is there
                shutil.rmtree(path, ignore_errors=True)
        if holding.trial.state.is_final:
            _remove_empty(holding.path)


def set_aside(holdings: Iterable[Holding], artifact_dir: Path) -> None:
    """Move trials that the database does not know out of the way: new ones will have their numbers.

    They are not removed: a database put back from a copy does not know the trials since.
    """
    for holding in holdings:
        aside = unknown_dir(artifact_dir) / holding.path.name
        shutil.rmtree(aside, ignore_errors=True)
        aside.parent.mkdir(exist_ok=True)
        holding.path.rename(aside)


def _remove(folders: Iterable[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_empty(trial: Path) -> None:
    for path in attempts_of(trial).values():
        with contextlib.suppress(OSError):  # not empty
            path.rmdir()
