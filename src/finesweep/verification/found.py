"""What is known of a verification: nouns, as JSON or not. It must not know the database, nor how this is shown."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from finesweep.verification.statistics import LEVEL, Estimate

TEST, VALIDATION = "test", "validation"


@dataclass(frozen=True, slots=True)
class Judged:
    """An arm over the seeds of the confirmation, on one split."""

    split: str
    estimate: Estimate
    n_lost: int  # of its trainings, those without a value: they failed, diverged or were stopped
    values: tuple[float, ...]  # in the order of the seeds, without those


@dataclass(frozen=True, slots=True)
class Difference:
    """Winner less baseline over the seeds that both were trained with."""

    n: int
    mean: float
    half_width: float | None


@dataclass(frozen=True, slots=True)
class ArmOutcome:
    """An arm of the race, or the baseline. Race values are of the validation rows, by which it is decided."""

    label: str
    trial: int | None
    search_value: float | None
    race_mean: float | None
    race_half_width: float | None  # those of all arms hold together
    n_race: int  # trainings of the race that have a value
    dropped_after: int | None  # rounds
    lost: tuple[str, ...]  # why trainings of it have no value, once for each
    probability_best: float | None  # on the rows of the headline, over all of its trainings
    confirmed: tuple[Judged, ...]  # the split of the headline first; empty unless it was confirmed


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is known of a verification now; with `is_over`, all that there will be."""

    sweep: str
    of: str
    metric: str
    direction: str
    split: str  # of the headline
    race_seeds: tuple[int, ...]
    seeds: tuple[int, ...]
    state: str  # of the sweep that is the verification
    is_over: bool
    n_ended: int
    most_trainings: int
    arms: tuple[ArmOutcome, ...]  # as the search ranked them; then the baseline, if it is none of them
    winner: str | None  # label; None while the race is run, or where no arm came to anything
    baseline: str | None
    difference: Difference | None
    notes: tuple[str, ...]  # what is to be known about the numbers, in words

    def arm(self, label: str | None) -> ArmOutcome | None:
        return next((arm for arm in self.arms if arm.label == label), None)

    @property
    def won(self) -> ArmOutcome | None:
        return self.arm(self.winner)

    @property
    def compared(self) -> ArmOutcome | None:
        return self.arm(self.baseline)


def outcome_json(outcome: Outcome) -> dict[str, Any]:
    """Give all of an outcome as JSON values, for --json."""
    return {**asdict(outcome), "level": LEVEL}
