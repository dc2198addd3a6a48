"""Samplers with a bounded memory: they see the best trials and the latest ones, so that asking does not grow with a
sweep.

In: a sampler of Optuna's and how much it is to see. Out: a sampler that draws just as that one would while the study is
no larger than its memory. It must not know how trials are judged, nor which parameters there are.
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from finesweep.search.ended import Ended


@dataclass(frozen=True, slots=True)
class Bound:
    """How many finished trials of which states a sampler sees at most: `n_best` and `n_latest`."""

    n_best: int
    n_latest: int
    states: tuple[TrialState, ...]  # that the sampler learns from


class BoundedSampler(BaseSampler):
    """Ask a sampler of Optuna's, and show it of the study what it is to remember."""

    def __init__(self, sampler: BaseSampler, bound: Bound) -> None:
        self._sampler = sampler
        self._bound = bound
        self._view: _View | None = None

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        # Optuna's samplers keep the search space they have found and add to it: each trial is shown to them once.
        return self._sampler.infer_relative_search_space(self._view_of(study).of_news(), trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._sampler.sample_relative(self._view_of(study), trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._sampler.sample_independent(self._view_of(study), trial, param_name, param_distribution)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        self._sampler.before_trial(study, trial)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        self._sampler.after_trial(study, trial, state, values)

    def reseed_rng(self) -> None:
        self._sampler.reseed_rng()

    def _view_of(self, study: Study) -> _View:
        if self._view is None:
            self._view = _View(study, Memory(study.directions, self._bound))
        return self._view.of_memory(study._storage.get_all_trials(study._study_id, deepcopy=False))


class _View(Study):
    """A study of which only some trials are to be seen."""

    def __init__(self, study: Study, memory: Memory) -> None:
        super().__init__(study.study_name, study._storage, study.sampler, study.pruner)
        self._memory = memory
        self._all: Sequence[FrozenTrial] = ()
        self._seen: list[FrozenTrial] = []

    def of_memory(self, trials: Sequence[FrozenTrial]) -> _View:
        """Show, of all trials of the study, those that are remembered and the unfinished ones."""
        self._memory.look(trials)
        self._all = trials
        self._seen = [trials[number] for number in self._memory.remembered]
        return self

    def of_news(self) -> _View:
        """Show instead those that have finished since this was last asked for, and the unfinished ones."""
        self._seen = [self._all[number] for number in self._memory.take_news()]
        return self

    def _get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        assert not deepcopy, "samplers do not change trials"
        return list(self._seen) if states is None else [trial for trial in self._seen if trial.state in states]


class Memory:
    """Chooses the trials to be remembered as a study grows: at each look, only what is new is looked at.

    Which trials those are depends on the study alone, not on when it was looked at: a sweep that is resumed remembers
    what it would have, had it not been interrupted.
    """

    def __init__(self, directions: Sequence[StudyDirection], bound: Bound) -> None:
        self._signs = [-1.0 if direction is StudyDirection.MAXIMIZE else 1.0 for direction in directions]
        self._bound = bound
        self._ended = Ended()
        self._news: list[int] = []  # finished and not taken yet
        self._latest: list[int] = []  # rising
        self._best: list[tuple[_Rank, int]] = []  # of one objective, best first
        self._front: dict[int, tuple[float, ...]] = {}  # of several: those that none beats, lower is better

    def look(self, trials: Sequence[FrozenTrial]) -> None:
        """Look at what has changed of all trials of the study."""
        for trial in self._ended.since(trials):
            if trial.state in self._bound.states:
                self._news.append(trial.number)
                self._keep(trial)

    @property
    def remembered(self) -> list[int]:
        """Number the trials that are remembered or unfinished, rising."""
        return sorted({*self._ended.unfinished, *self._latest, *self._choice()})

    def take_news(self) -> list[int]:
        """Number those that have finished since this was last asked for, and the unfinished ones, rising."""
        news, self._news = self._news, []
        return sorted({*self._ended.unfinished, *news})

    def _keep(self, trial: FrozenTrial) -> None:
        insort(self._latest, trial.number)
        del self._latest[: -self._bound.n_latest]
        if len(self._signs) == 1:
            insort(self._best, (_rank(trial, self._signs[0]), trial.number))
            del self._best[self._bound.n_best :]
        elif trial.state is TrialState.COMPLETE:
            self._keep_on_front(trial.number, self._lower(trial.values))

    def _keep_on_front(self, number: int, values: tuple[float, ...]) -> None:
        for other, theirs in self._front.items():
            if _is_as_good(theirs, values) and (theirs != values or other < number):
                return
        beaten = [other for other, theirs in self._front.items() if _is_as_good(values, theirs)]
        for other in beaten:
            del self._front[other]
        self._front[number] = values

    def _choice(self) -> list[int]:
        """Name the best: those of one objective, or the front; if it is too long, spread evenly over it."""
        if len(self._signs) == 1:
            return [number for _, number in self._best]
        front, most = sorted(self._front, key=lambda number: self._front[number]), self._bound.n_best
        if len(front) <= most:
            return front
        return [front[round(place * (len(front) - 1) / (most - 1))] for place in range(most)]

    def _lower(self, values: Sequence[float]) -> tuple[float, ...]:
        """Turn values so that lower is better in all of them."""
        return tuple(sign * value for sign, value in zip(self._signs, values, strict=True))


_Rank = tuple[int, float, float]


def _rank(trial: FrozenTrial, sign: float) -> _Rank:
    """Rank as TPE does: COMPLETE trials by value, behind them PRUNED ones by how far they came and by value there."""
    if trial.state is TrialState.COMPLETE:
        assert trial.value is not None, "it is COMPLETE"
        return (0, sign * trial.value, 0.0)
    if not trial.intermediate_values:
        return (2, 0.0, 0.0)
    step, value = max(trial.intermediate_values.items())
    return (1, -step, math.inf if math.isnan(value) else sign * value)


def _is_as_good(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(mine <= theirs for mine, theirs in zip(one, other, strict=True))
