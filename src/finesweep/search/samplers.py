"""Samplers by name: Optuna's own, with the settings that suit trials running side by side."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import (
    BaseSampler,
    GPSampler,
    GridSampler,
    NSGAIISampler,
    QMCSampler,
    RandomSampler,
    TPESampler,
)
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from finesweep.search.cmaes import JsonCmaEsSampler
from finesweep.search.memory import Bound, BoundedSampler
from finesweep.search.space import grid_values
from finesweep.spec.study import StudySpec

# TPE takes for good a tenth of the trials, 25 at most: they are among the best 50 of all trials, whatever is forgotten.
# What the others were like is told by the latest. An ask takes 6 ms at 100 trials, 8 from 400 on; unbounded it took 35
# at 3,000 and 110 at 10,000.
TPE_BOUND = Bound(n_best=50, n_latest=350, states=(TrialState.COMPLETE, TrialState.PRUNED))
# A Gaussian process costs the cube of what it has seen: 0.2 s an ask from 200 trials on, unbounded 0.9 s at 600.
GP_BOUND = Bound(n_best=50, n_latest=150, states=(TrialState.COMPLETE,))


def make_sampler(study: StudySpec, *, n_trials_before: int) -> BaseSampler:
    """Make the study's sampler, seeded afresh for a sweep that already holds `n_trials_before` trials.

    A sampler reopened with the seed it began with repeats its first draws exactly.
    """
    seed = sampler_seed(study.sampler.seed, n_trials_before)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # group, and the gp and qmc samplers, are what we want
        return _FACTORIES[study.sampler.type](study, seed)


def make_chance(study: StudySpec, *, n_trials_before: int) -> BaseSampler:
    """Make what helps out a sampler that repeats itself: random draws, other than those of sampler random."""
    return RandomSampler(seed=sampler_seed(study.sampler.seed, n_trials_before, stream=1))


def sampler_seed(study_seed: int, n_trials_before: int, *, stream: int = 0) -> int:
    """Derive a seed in [0, 2**32) from the study's and the number of trials there are."""
    return int(np.random.SeedSequence([study_seed, n_trials_before, stream]).generate_state(1)[0])


def _tpe(study: StudySpec, seed: int) -> BaseSampler:
    # group: parameters that exist together are modelled together, and conditions are kept apart.
    tpe = TPESampler(n_startup_trials=study.sampler.startup_trials, multivariate=True, group=True, seed=seed)
    return BoundedSampler(tpe, _with_startup(TPE_BOUND, study))


def _gp(study: StudySpec, seed: int) -> BaseSampler:
    gp = GPSampler(
        n_startup_trials=study.sampler.startup_trials,
        independent_sampler=RandomSampler(seed=seed),
        warn_independent_sampling=False,
        seed=seed,
    )
    return BoundedSampler(gp, _with_startup(GP_BOUND, study))


def _with_startup(bound: Bound, study: StudySpec) -> Bound:
    """Widen a bound to the trials that a sampler counts before it begins to model."""
    return replace(bound, n_latest=max(bound.n_latest, study.sampler.startup_trials))


def _cmaes(study: StudySpec, seed: int) -> BaseSampler:
    return JsonCmaEsSampler(
        n_startup_trials=max(1, study.sampler.startup_trials),
        independent_sampler=RandomSampler(seed=seed),
        warn_independent_sampling=False,
        consider_pruned_trials=True,
        seed=seed,
    )


def _qmc(study: StudySpec, seed: int) -> BaseSampler:
    # The sequence goes on from the sample id kept with the study, so its scrambling must not change on reopening.
    return QMCSampler(
        scramble=True,
        seed=study.sampler.seed,
        independent_sampler=RandomSampler(seed=seed),
        warn_asynchronous_seeding=False,
        warn_independent_sampling=False,
    )


def _random(study: StudySpec, seed: int) -> BaseSampler:
    return RandomSampler(seed=seed)


def _grid(study: StudySpec, seed: int) -> BaseSampler:
    # The order of the grid is drawn from the study's own seed: grid ids kept with trials must mean the same later.
    return _EndlessGridSampler(grid_values(study.parameters), seed=study.sampler.seed)


def _nsga2(study: StudySpec, seed: int) -> BaseSampler:
    return NSGAIISampler(population_size=max(2, study.sampler.startup_trials), seed=seed)


class _EndlessGridSampler(GridSampler):
    """Leave it to the broker to end a used-up space: Optuna's calls study.stop(), which raises outside optimize()."""

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        return


_FACTORIES: Mapping[str, Callable[[StudySpec, int], BaseSampler]] = {
    "tpe": _tpe,
    "gp": _gp,
    "cmaes": _cmaes,
    "qmc": _qmc,
    "random": _random,
    "grid": _grid,
    "nsga2": _nsga2,
}
