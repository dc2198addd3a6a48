"""What a verification found, for people: one sentence, a table, what is to be known about the numbers.

In: an `Outcome`. Out: text and tables; the same for terminal, report and dashboard.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from finesweep.results.frames import Results
from finesweep.results.objectives import value_text
from finesweep.verification.found import TEST, ArmOutcome, Difference, Judged, Outcome
from finesweep.verification.outcome import outcome_of
from finesweep.verification.plan import DEFAULTS
from finesweep.verification.statistics import LEVEL, Estimate
from finesweep.views.tables import Column, Table

_LEVEL = f"{100 * LEVEL:g} %"


def headline(results: Results, sweep: str) -> str | None:
    """Say in one sentence what the verification of a sweep found, or how far it is; None if there is none."""
    outcome = outcome_of(results, sweep)
    return None if outcome is None else outcome_text(outcome)


def outcome_text(outcome: Outcome) -> str:
    """Write: verified over 5 seeds: 0.874 ± 0.006, defaults 0.841 ± 0.009."""
    won = outcome.won
    if not outcome.is_over:
        done = f"{outcome.n_ended} of at most {outcome.most_trainings} trainings"
        return f"{outcome.sweep}, its verification, is {outcome.state}: {done} have ended."
    if won is None or not won.confirmed:
        return f"{outcome.sweep}, its verification, found nothing: no training of it has a value."
    judged = won.confirmed[0]
    seeds = f"{judged.estimate.n} seed{'s' if judged.estimate.n > 1 else ''}"
    if judged.n_lost:
        seeds += f" of {judged.estimate.n + judged.n_lost}, the others came to nothing"
    text = f"verified over {seeds}: {mean_text(judged.estimate)}"
    compared = outcome.compared
    if compared is not None and compared.confirmed:
        named = compared.label if compared.label == DEFAULTS else f"{compared.label}:"
        text += f", {named} {mean_text(compared.confirmed[0].estimate)}"
    return text


def where_text(outcome: Outcome) -> str:
    """Say what the numbers of the sentence are of."""
    rows = "the test rows, which no trial saw" if outcome.split == TEST else "the validation rows"
    return f"{outcome.metric} on {rows}; ± is half of the {_LEVEL} interval of the mean"


def lines_of(outcome: Outcome) -> tuple[str, ...]:
    """Say all of it in sentences: what was found, what one more training will come to, the gain, optimism, notes."""
    text, won = outcome_text(outcome), outcome.won
    if not outcome.is_over or won is None or not won.confirmed:
        return (text, *outcome.notes)
    first = f"{text[0].upper()}{text[1:]} ({where_text(outcome)})."
    return (first, *_details(outcome, won, won.confirmed[0].estimate), *outcome.notes)


def optimism_text(outcome: Outcome) -> str | None:
    """Set what the search said of the winner beside what it came to."""
    won = outcome.won
    if won is None or won.search_value is None or not won.confirmed:
        return None
    said = f"The search itself said {value_text(won.search_value)} of {won.label}"
    on_validation = next((judged for judged in won.confirmed if judged.split != TEST), None)
    if on_validation is None:
        return f"{said}."
    return f"{said}; with new seeds the same rows give {mean_text(on_validation.estimate)}."


def spread_text(outcome: Outcome) -> str | None:
    """Set the noise between repeats beside what was gained over the baseline."""
    won, difference = outcome.won, outcome.difference
    if won is None or not won.confirmed or won.confirmed[0].estimate.std is None:
        return None
    std = won.confirmed[0].estimate.std
    text = f"Repeats that differ by their seed alone spread by {value_text(std)} (standard deviation)"
    if difference is None:
        return f"{text}."
    return f"{text}; the gain over {_the(outcome.baseline)} is {_gain_text(outcome, difference)}."


def verification_table(outcome: Outcome) -> Table:
    """List the arms: what the search said, the race, the confirmation, how probable it is that each is the best."""
    half = f"± {_LEVEL}"
    columns = (
        Column("label", "configuration", "text"),
        Column("trial", "trial"),
        Column("role", "", "text"),
        Column("search_value", "search"),
        Column("race_mean", "race", hidden_if_empty=True),
        Column("race_half_width", f"{half} race", hidden_if_empty=True),
        Column("n_race", "race seeds", hidden_if_empty=True),
        Column("mean", f"{outcome.metric}, {outcome.split}"),
        Column("half_width", half),
        Column("std", "std"),
        Column("n", "seeds"),
        Column("validation_mean", "validation", hidden_if_empty=True),
        Column("validation_half_width", f"{half} validation", hidden_if_empty=True),
        Column("probability_best", "P(best)"),
        Column("lost", "lost", "text", hidden_if_empty=True),
        Column("prediction_half_width", "", is_printed=False),
    )
    return Table(columns, tuple(_row(outcome, arm) for arm in outcome.arms))


def mean_text(estimate: Estimate) -> str:
    """Write a mean and its half width with two digits of that: 0.8741 ± 0.0062."""
    if estimate.half_width is None:
        return value_text(estimate.mean)
    return _with_half_width(estimate.mean, estimate.half_width)


def _row(outcome: Outcome, arm: ArmOutcome) -> dict[str, Any]:
    judged = arm.confirmed[0] if arm.confirmed else None
    validation = _judged_on_validation(arm) if outcome.split == TEST else None
    roles = [
        *(["winner"] if arm.label == outcome.winner else []),
        *(["baseline"] if arm.label == outcome.baseline else []),
        *([] if arm.dropped_after is None else [f"dropped after {arm.dropped_after} seeds"]),
    ]
    return {
        "label": arm.label,
        "trial": arm.trial,
        "role": ", ".join(roles) or None,
        "search_value": arm.search_value,
        "race_mean": arm.race_mean,
        "race_half_width": arm.race_half_width,
        "n_race": arm.n_race or None,
        "mean": judged and judged.estimate.mean,
        "half_width": judged and judged.estimate.half_width,
        "std": judged and judged.estimate.std,
        "n": judged and judged.estimate.n,
        "validation_mean": validation and validation.estimate.mean,
        "validation_half_width": validation and validation.estimate.half_width,
        "probability_best": arm.probability_best,
        "lost": "; ".join(arm.lost) or None,
        "prediction_half_width": judged and judged.estimate.prediction_half_width,
    }


def _judged_on_validation(arm: ArmOutcome) -> Judged | None:
    return next((judged for judged in arm.confirmed if judged.split != TEST), None)


def _details(outcome: Outcome, won: ArmOutcome, estimate: Estimate) -> Iterator[str]:
    half = estimate.prediction_half_width
    if half is None:
        yield "It is the value of one training, which says nothing of the spread."
    else:
        low, high = _pair_text(estimate.mean - half, estimate.mean + half, half)
        yield f"One more training will fall between {low} and {high} with a probability of {_LEVEL}."
    yield from filter(None, (spread_text(outcome), optimism_text(outcome)))
    if won.race_mean is not None:
        yield (
            "The race chose the winner on the validation rows: its means are too good for whoever won, and its "
            "intervals, wide enough to hold for all arms at once, are of the race alone."
        )


def _gain_text(outcome: Outcome, difference: Difference) -> str:
    """Write a paired difference such that more is better."""
    gain = difference.mean if outcome.direction == "maximize" else -difference.mean
    if difference.half_width is None:
        return value_text(gain)
    says = "which chance alone may explain" if abs(gain) <= difference.half_width else "more than chance explains"
    if gain < -difference.half_width:
        says = "a loss that chance does not explain"
    return f"{_with_half_width(gain, difference.half_width)} over the same seeds, {says}"


def _the(label: str | None) -> str:
    return "the defaults" if label == DEFAULTS else str(label)


def _with_half_width(value: float, half_width: float) -> str:
    value_shown, half_shown = _pair_text(value, half_width, half_width)
    return f"{value_shown} ± {half_shown}"


def _pair_text(one: float, other: float, half_width: float) -> tuple[str, str]:
    """Write two numbers with as many decimals as show two digits of a half width."""
    decimals = 4 if half_width <= 0 else min(8, max(0, 1 - math.floor(math.log10(half_width))))
    return f"{one:,.{decimals}f}", f"{other:,.{decimals}f}"
