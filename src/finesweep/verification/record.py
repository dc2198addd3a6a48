"""What exports say of a verification. In: the results database. Out: a mapping of JSON values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from finesweep.results.frames import Results
from finesweep.verification.found import VALIDATION, ArmOutcome, Difference, Judged
from finesweep.verification.outcome import outcome_of
from finesweep.verification.statistics import LEVEL


def verification_of(results: Results, sweep: str) -> Mapping[str, Any] | None:
    """Give what the verification of a sweep found, as JSON values; None unless one is over and has a winner.

    `interval` and `prediction_interval` are pairs [low, high], or None with a single training.
    """
    outcome = outcome_of(results, sweep)
    won = outcome.won if outcome is not None and outcome.is_over else None
    if outcome is None or won is None or not won.confirmed:
        return None
    compared = outcome.compared
    return {
        "sweep": outcome.sweep,
        "trial": won.trial,
        "metric": outcome.metric,
        "direction": outcome.direction,
        "split": outcome.split,
        "level": LEVEL,
        "seeds": list(outcome.seeds),
        "race_seeds": list(outcome.race_seeds),
        **_judged_json(won.confirmed[0]),
        "validation": next((_judged_json(judged) for judged in won.confirmed if judged.split == VALIDATION), None),
        "search_value": won.search_value,
        "probability_best": won.probability_best,
        "baseline": None
        if compared is None or not compared.confirmed
        else {
            "label": compared.label,
            "trial": compared.trial,
            "search_value": compared.search_value,
            **_judged_json(compared.confirmed[0]),
        },
        "difference": _difference_json(outcome.difference),
        "arms": [_arm_json(arm) for arm in outcome.arms],
        "notes": list(outcome.notes),
    }


def _judged_json(judged: Judged) -> dict[str, Any]:
    estimate = judged.estimate
    return {
        "n": estimate.n,
        "mean": estimate.mean,
        "std": estimate.std,
        "interval": _interval(estimate.mean, estimate.half_width),
        "prediction_interval": _interval(estimate.mean, estimate.prediction_half_width),
        "n_lost": judged.n_lost,
        "values": list(judged.values),
    }


def _difference_json(difference: Difference | None) -> dict[str, Any] | None:
    if difference is None:
        return None
    return {
        "n": difference.n,
        "mean": difference.mean,
        "interval": _interval(difference.mean, difference.half_width),
    }


def _arm_json(arm: ArmOutcome) -> dict[str, Any]:
    return {
        "label": arm.label,
        "trial": arm.trial,
        "search_value": arm.search_value,
        "race_mean": arm.race_mean,
        "race_interval": None if arm.race_mean is None else _interval(arm.race_mean, arm.race_half_width),
        "n_race": arm.n_race,
        "dropped_after": arm.dropped_after,
        "lost": list(arm.lost),
        "probability_best": arm.probability_best,
    }


def _interval(mean: float, half_width: float | None) -> list[float] | None:
    return None if half_width is None else [mean - half_width, mean + half_width]
