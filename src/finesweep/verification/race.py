"""The order in which a verification trains: a race among its arms, then the winner and what it is compared with.

In: a plan, how trainings ended. Out: configurations to be trained, one after another; who has won. What is trained
follows from how trainings ended alone, not from when: several slots, or a driver that dies, change nothing.

A race is run in rounds, each with one seed for all arms that are in it. From the third round on, arms that have clearly
lost are left out: that is looked at once the round before has ended. What waits for that leaves room for the baseline.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from finesweep.errors import ResultsError
from finesweep.events import Configuration
from finesweep.spec.study import Objective
from finesweep.verification import statistics
from finesweep.verification.plan import SEED, Arm, VerificationPlan, key_of

ERROR = 0.05  # the most probable that the best arm is dropped, over all looks

Cell = tuple[str, int]  # key of a configuration, seed
Ended = Mapping[Cell, float | None]  # what a training came to; None: it failed, diverged or was stopped


@dataclass(frozen=True, slots=True)
class Standing:
    """How a race stands: arms by their place in the plan."""

    still_in: tuple[int, ...]
    n_rounds: int  # that may be run by those
    dropped: Mapping[int, int] = field(default_factory=dict)  # arm -> the rounds after which it was left out
    winner: int | None = None
    is_over: bool = False  # also where no arm has a value at all


def standing_of(plan: VerificationPlan, ended: Ended, objective: Objective) -> Standing:
    """Judge a race by the trainings that have ended. Each look is at whole rounds."""
    arms = tuple(range(len(plan.arms)))
    if not plan.has_race:
        return Standing(arms, 0, winner=0, is_over=True)
    last = len(plan.race_seeds)
    first = min(statistics.FIRST_LOOK, last)
    dropped: dict[int, int] = {}
    for n_rounds in range(first, last + 1):
        if any(cell not in ended for arm in arms for cell in race_cells(plan, arm, n_rounds)):
            return Standing(arms, n_rounds, dropped)
        if n_rounds < last:
            left = _without_losers(plan, arms, n_rounds, ended, objective)
            dropped |= {arm: n_rounds for arm in arms if arm not in left}
            arms = left
        if len(arms) == 1:
            last = n_rounds
            break
    ranks = {arm: _rank(plan, arm, ended, objective) for arm in arms}
    best = min(arms, key=lambda arm: (ranks[arm], arm))
    has_value = any(value is not None for value in (ended.get(c) for c in race_cells(plan, best, last)))
    return Standing(arms, last, dropped, best if has_value else None, is_over=True)


def race_cells(plan: VerificationPlan, arm: int, n_rounds: int) -> list[Cell]:
    return [(key_of(plan.arms[arm].configuration), seed) for seed in plan.race_seeds[:n_rounds]]


def n_looks(plan: VerificationPlan) -> int:
    """Count the looks after which an arm may be left out."""
    return max(0, len(plan.race_seeds) - statistics.FIRST_LOOK) if plan.has_race else 0


class Race:
    """Says what is trained next. An agenda, as a broker takes it."""

    def __init__(self, plan: VerificationPlan, objective: Objective) -> None:
        self._plan, self._objective = plan, objective
        arms = [*plan.arms, *(arm for arm in plan.baselines if arm is not None)]
        self._configurations = {key_of(arm.configuration): arm.configuration for arm in arms}
        self._given: set[Cell] = set()
        self._ended: dict[Cell, float | None] = {}

    def take(self) -> Configuration | None:
        """Give the next configuration with its seed; None: nothing until a training has ended, or nothing at all."""
        cell = next((cell for cell in self._due() if cell not in self._given), None)
        if cell is None:
            return None
        self._given.add(cell)
        key, seed = cell
        return {**self._configurations[key], SEED: seed}

    def note_given(self, configuration: Configuration) -> None:
        """Hear of a training of an earlier drive. Raises ResultsError for one that the plan does not hold."""
        self._given.add(self._cell(configuration))

    def note_ended(self, configuration: Configuration, value: float | None) -> None:
        self._ended[self._cell(configuration)] = value

    @property
    def n_left(self) -> int:
        """Count the trainings that may still be given; exact once the race is over."""
        standing = standing_of(self._plan, self._ended, self._objective)
        cells = set(self._due())
        if not standing.is_over:
            last = len(self._plan.race_seeds)
            cells |= {cell for arm in standing.still_in for cell in race_cells(self._plan, arm, last)}
            n_baselines = 1 if any(self._plan.baselines) and self._shared_baseline() is None else 0
            return len(cells - self._given) + len(self._plan.seeds) * (1 + n_baselines)
        return len(cells - self._given)

    def _due(self) -> Iterator[Cell]:
        """List what may be trained now, in order, with what was given already."""
        plan = self._plan
        standing = standing_of(plan, self._ended, self._objective)
        for n in range(standing.n_rounds):
            for arm in range(len(plan.arms)):
                if standing.dropped.get(arm, standing.n_rounds) > n:
                    yield race_cells(plan, arm, n + 1)[n]
        if not standing.is_over:
            yield from self._confirmation(self._shared_baseline())
        elif standing.winner is not None:
            baseline = plan.baselines[standing.winner]
            yield from self._confirmation(plan.arms[standing.winner], baseline)

    def _confirmation(self, *arms: Arm | None) -> Iterator[Cell]:
        for seed in self._plan.seeds:
            for arm in arms:
                if arm is not None:
                    yield key_of(arm.configuration), seed

    def _shared_baseline(self) -> Arm | None:
        """Give what every arm would be compared with, if that is one and the same."""
        keys = {None if arm is None else key_of(arm.configuration) for arm in self._plan.baselines}
        return self._plan.baselines[0] if len(keys) == 1 else None

    def _cell(self, configuration: Configuration) -> Cell:
        key, seed = key_of(configuration), configuration.get(SEED)
        if key not in self._configurations or not isinstance(seed, int):
            raise ResultsError(
                f"a trial of this verification has a configuration that its plan does not hold: {dict(configuration)}. "
                "Its database was changed by hand. Delete the verification, and verify again."
            )
        return key, seed


def _without_losers(
    plan: VerificationPlan, arms: tuple[int, ...], n_rounds: int, ended: Ended, objective: Objective
) -> tuple[int, ...]:
    """Keep the arms with the fewest trainings that came to nothing, and of these the ones that have not clearly lost.

    The best is kept with a probability of 1 - ERROR, over all arms and looks, where values are normal.
    """
    found = {arm: [ended[cell] for cell in race_cells(plan, arm, n_rounds)] for arm in arms}
    n_lost = {arm: sum(value is None for value in values) for arm, values in found.items()}
    left = [arm for arm in arms if n_lost[arm] == min(n_lost.values())]
    sign = 1.0 if objective.direction == "maximize" else -1.0
    rounds = [[found[arm][n] for arm in left] for n in range(n_rounds)]
    whole = [[sign * value for value in of_round if value is not None] for of_round in rounds if None not in of_round]
    if not whole:
        return tuple(left)
    behind = statistics.dropped(np.array(whole).T, error=ERROR, n_arms=len(plan.arms), n_looks=n_looks(plan))
    return tuple(arm for arm, is_behind in zip(left, behind, strict=True) if not is_behind)


def _rank(plan: VerificationPlan, arm: int, ended: Ended, objective: Objective) -> tuple[int, float]:
    """Rank by the trainings that came to nothing, then by the mean of the others; lower is better."""
    values = [ended[cell] for cell in race_cells(plan, arm, len(plan.race_seeds)) if cell in ended]
    there = [value for value in values if value is not None]
    mean = float(np.mean(there)) if there else np.inf
    return len(values) - len(there), -mean if objective.direction == "maximize" and there else mean
