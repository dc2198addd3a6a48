"""Which parameters decide how good a trial becomes, and how sure that is.

The measure is Optuna's PED-ANOVA for conditional spaces (arXiv 2601.20800): by how much the values of a parameter among
the best trials differ from those among all. A branch's own range is a parameter of its own, "lora.learning_rate". Only
COMPLETE trials that were trained are looked at: what pruning took out is not seen, so a parameter that mostly decides
who is pruned looks less important than it is.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import optuna
from optuna.distributions import json_to_distribution
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, create_trial

from finesweep.events import TrialRecord, TrialState
from finesweep.spec.front import values_at
from finesweep.spec.study import Objective

FEWEST_TRIALS = 20  # with fewer, pure noise looks like a parameter that decides everything
TARGET_QUANTILE = 0.25  # what "the best trials" are: of the fewest there are five, which the measure needs at least
N_RESAMPLES = 50
MOST_RESAMPLED = 500  # trials in each
INTERVAL = 0.9  # share of the resamples between `low` and `high`


@dataclass(frozen=True, slots=True)
class Importance:
    """Shares that add up to one over the parameters of a sweep; the interval is a bootstrap over its trials."""

    parameter: str
    importance: float
    low: float
    high: float
    n_trials: int  # that had this parameter


def importances(records: Sequence[TrialRecord], objective: Objective, *, seed: int = 0) -> tuple[Importance, ...]:
    """Compute the importance of each parameter for an objective, the most important first.

    Nothing if there are fewer than FEWEST_TRIALS to go by, or if no parameter varies.
    """
    counted = [record for record in records if record.state is TrialState.COMPLETE and record.reused_from is None]
    if len(counted) < FEWEST_TRIALS:
        return ()
    trials = [_trial(record, objective) for record in counted]
    chance = random.Random(seed)
    with _quietly():
        shares = _shares(trials, objective)
        resamples = [
            _shares(chance.choices(trials, k=min(len(trials), MOST_RESAMPLED)), objective) for _ in range(N_RESAMPLES)
        ]
    counts = {name: sum(name in trial.params for trial in trials) for name in shares}
    found = [
        Importance(name, share, *_interval([resample.get(name, 0.0) for resample in resamples]), counts[name])
        for name, share in shares.items()
    ]
    return tuple(sorted(found, key=lambda one: (-one.importance, one.parameter)))


def _trial(record: TrialRecord, objective: Objective) -> FrozenTrial:
    """Give a COMPLETE trial to Optuna with its value of one objective."""
    assert record.value_step is not None, "it is COMPLETE"
    [value] = values_at(record.value_step, record.reports, [objective])
    distributions = {name: json_to_distribution(text) for name, text in record.distributions.items()}
    return create_trial(params=dict(record.parameters), distributions=distributions, value=value)


def _shares(trials: Sequence[FrozenTrial], objective: Objective) -> dict[str, float]:
    study = optuna.create_study(direction=objective.direction)
    study.add_trials(trials)
    shares = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator(target_quantile=TARGET_QUANTILE))
    return {name: share for name, share in shares.items() if share == share}  # no number: nothing varies


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep Optuna from telling of studies that are made here and thrown away."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)


def _interval(values: Sequence[float]) -> tuple[float, float]:
    ordered = sorted(values)
    out = round(len(ordered) * (1 - INTERVAL) / 2)
    return ordered[out], ordered[-1 - out]
