"""Simulated verifications whose truth is known: is what they say right as often as they claim?

In: a world of configurations with true means, noise, a plan. Out: how often intervals cover, how far shown values lie
from the truth. Trainings are numbers drawn by chance; the race and all that is concluded are the real ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from finesweep.spec.study import Objective
from finesweep.verification import statistics
from finesweep.verification.plan import Arm, VerificationPlan, key_of
from finesweep.verification.race import Cell, n_looks, standing_of

BAD = 4.0
OBJECTIVE = Objective(metric="accuracy", direction="maximize")


@dataclass(frozen=True, slots=True)
class World:
    """What there is to find, and how it is looked for. Values are in units of the standard deviation of a repeat."""

    n_configurations: int = 30  # that the search tries, once each
    spread: float = 1.0  # standard deviation of the true means
    rows_effect: float = (
        0.0  # of the validation rows: standard deviation of what they flatter or wrong each by, for good
    )
    seed_effect: float = 0.0  # of what a seed does to all configurations alike; the repeat's own noise is less by that
    share_bad: float = 0.0  # of trainings that come out worse by BAD: then values are not normal
    top: int = 3
    n_race_seeds: int = 3
    n_seeds: int = 5
    behind: float | None = None  # then there is no search: one arm is the best, the others are so much behind

    @property
    def plan(self) -> VerificationPlan:
        arms = tuple(Arm(label=f"trial {n}", trial=n, configuration={"arm": n}) for n in range(self.top))
        baseline = Arm(label="defaults", configuration={"arm": -1})
        n_race = self.n_race_seeds if self.top > 1 else 0
        seeds = tuple(range(n_race + self.n_seeds))
        return VerificationPlan(
            of="simulated",
            created_at="",
            arms=arms,
            baselines=(baseline,) * self.top,
            race_seeds=seeds[:n_race],
            seeds=seeds[n_race:],
        )


@dataclass(frozen=True, slots=True)
class Measured:
    """Shares of all replications, and mean errors in units of a repeat's standard deviation."""

    n: int
    mean_covered: float  # the interval of the winner's mean holds its true mean
    training_covered: float  # the prediction interval holds one more training
    difference_covered: float  # the interval of winner less baseline holds the true difference
    race_covered: float  # the intervals of all arms of the race hold at once
    shown_bias: float  # the winner's shown mean, on test rows, less the truth
    validation_bias: float  # its mean over the same seeds on the validation rows, less the truth
    race_bias: float  # its mean in the race less the truth
    search_bias: float  # what the search said of it less the truth
    search_best_bias: float  # what the search said of its own best less the truth of that
    best_dropped: float  # the best of the arms was left out before the race was over
    best_won: float  # the best of the arms is the winner
    loser_dropped: float  # an arm that is not the best was left out early, as a share of all of those
    trainings: float  # mean number


def measure(world: World, *, n: int, seed: int) -> Measured:
    """Replicate a verification `n` times."""
    chance = np.random.default_rng(seed)
    plan = world.plan
    rows = np.array([_replicate(world, plan, chance) for _ in range(n)], dtype=np.float64)
    return Measured(n, *rows.mean(axis=0).tolist())


def _replicate(world: World, plan: VerificationPlan, chance: np.random.Generator) -> Sequence[float]:
    truths, said, flattered, best_bias = _search(world, chance)
    baseline = truths.min() - 1.0
    values = _trainings(world, plan, truths, baseline, chance)
    raced = {
        _cell(plan, arm, seed): values[_cell(plan, arm, seed)] + flattered[arm]
        for arm in range(world.top)
        for seed in plan.race_seeds
    }
    standing = standing_of(plan, raced, OBJECTIVE)
    winner = standing.winner
    assert winner is not None, "every training has a value"
    kept = [standing.dropped.get(arm, standing.n_rounds) for arm in range(world.top)]
    race = np.array([[raced[_cell(plan, arm, seed)] for seed in plan.race_seeds] for arm in range(world.top)])
    shown = statistics.estimate([values[_cell(plan, winner, seed)] for seed in plan.seeds])
    gained = statistics.estimate(
        [values[_cell(plan, winner, seed)] - values[_cell(plan, -1, seed)] for seed in plan.seeds]
    )
    truth, best = truths[winner], int(truths.argmax())
    more = float(_noise(world, 1, 1, chance)[0, 0]) + truth
    assert shown.half_width is not None and shown.prediction_half_width is not None, "there are several seeds"
    assert gained.half_width is not None, "so there are"
    losers = [arm for arm in range(world.top) if arm != best]
    return (
        abs(shown.mean - truth) <= shown.half_width,
        abs(shown.mean - more) <= shown.prediction_half_width,
        abs(gained.mean - (truth - baseline)) <= gained.half_width,
        _race_covers(world, plan, race, kept, truths + flattered),
        shown.mean - truth,
        shown.mean + flattered[winner] - truth,
        float(race[winner, : kept[winner]].mean()) - truth if world.top > 1 else 0.0,
        said[winner] - truth,
        best_bias,
        best in standing.dropped,
        winner == best,
        sum(arm in standing.dropped for arm in losers) / max(1, len(losers)),
        sum(kept) + 2 * len(plan.seeds) if world.top > 1 else 2 * len(plan.seeds),
    )


def _search(
    world: World, chance: np.random.Generator
) -> tuple[statistics.Values, statistics.Values, statistics.Values, float]:
    """Give of the best configurations, best first, true means, search values, and what the validation rows add to each.

    Last comes by how much the very best was flattered. A search trains each once, with the same seed.
    """
    if world.behind is not None:
        truths = np.array([0.0, *[-world.behind] * (world.top - 1)])
        return truths, truths, np.zeros(world.top), 0.0
    truths = world.spread * chance.standard_normal(world.n_configurations)
    flattered = world.rows_effect * chance.standard_normal(world.n_configurations)
    said = truths + flattered + _noise(world, world.n_configurations, 1, chance)[:, 0]
    top = np.argsort(-said)[: world.top]
    return truths[top], said[top], flattered[top], float(said[top[0]] - truths[top[0]])


def _trainings(
    world: World, plan: VerificationPlan, truths: statistics.Values, baseline: float, chance: np.random.Generator
) -> dict[Cell, float]:
    """Draw all trainings that there could be, whether or not they are run."""
    means = np.array([*truths, baseline])
    seeds = (*plan.race_seeds, *plan.seeds)
    drawn = means[:, None] + _noise(world, len(means), len(seeds), chance)
    arms = (*range(world.top), -1)
    return {
        _cell(plan, arm, seed): float(drawn[row, column])
        for row, arm in enumerate(arms)
        for column, seed in enumerate(seeds)
    }


def _noise(world: World, n_arms: int, n_seeds: int, chance: np.random.Generator) -> statistics.Values:
    """Draw what chance adds: of mean 0, and where none is bad of standard deviation 1, a part of it the seed's."""
    own = np.sqrt(1 - world.seed_effect**2)
    shared = world.seed_effect * chance.standard_normal((1, n_seeds))
    noise: statistics.Values = shared + own * chance.standard_normal((n_arms, n_seeds))
    if world.share_bad:
        noise -= BAD * ((chance.random((n_arms, n_seeds)) < world.share_bad) - world.share_bad)
    return noise


def _race_covers(
    world: World, plan: VerificationPlan, race: statistics.Values, kept: Sequence[int], truths: statistics.Values
) -> bool:
    std = statistics.first_look_std(race) if plan.has_race else None
    if std is None:
        return True
    looks = n_looks(plan) + 1
    for arm, n in enumerate(kept):
        half = statistics.race_half_width(std, n=n, n_arms=world.top, n_looks=looks)
        if abs(race[arm, :n].mean() - truths[arm]) > half:
            return False
    return True


def _cell(plan: VerificationPlan, arm: int, seed: int) -> Cell:
    return key_of({"arm": arm}), seed
