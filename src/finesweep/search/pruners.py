"""Pruners by name: Optuna's own, or such as decide the same, on the steps of the sweep's grid."""

from __future__ import annotations

import warnings

from optuna import pruners
from optuna.exceptions import ExperimentalWarning

from finesweep.events import Grid
from finesweep.search import indexed_pruners
from finesweep.spec.study import (
    AshaPruner,
    HyperbandPruner,
    MedianPruner,
    NoPruner,
    PatientPruner,
    PercentilePruner,
    PrunerSpec,
    ThresholdPruner,
)


def make_pruner(spec: PrunerSpec, grid: Grid) -> pruners.BasePruner:
    """Make the pruner; rungs and warm-ups are steps of the grid, and its first step where the study is silent."""
    match spec:
        case NoPruner():
            return pruners.NopPruner()
        case AshaPruner():
            return indexed_pruners.HalvingPruner(
                first_rung=spec.first_rung or grid.every, reduction_factor=spec.reduction_factor
            )
        case HyperbandPruner():
            return indexed_pruners.HyperbandPruner(
                first_rung=spec.first_rung or grid.every, longest=grid.longest, reduction_factor=spec.reduction_factor
            )
        case MedianPruner():
            return indexed_pruners.PercentilePruner(
                50, n_startup_trials=spec.startup_trials, n_warmup_steps=spec.warmup
            )
        case PercentilePruner():
            return indexed_pruners.PercentilePruner(
                spec.percentile, n_startup_trials=spec.startup_trials, n_warmup_steps=spec.warmup
            )
        case ThresholdPruner():
            return pruners.ThresholdPruner(lower=spec.lower, upper=spec.upper, n_warmup_steps=spec.warmup)
        case PatientPruner():
            wrapped = make_pruner(spec.then, grid) if spec.then else None
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                return pruners.PatientPruner(wrapped, patience=spec.patience, min_delta=spec.min_delta)
