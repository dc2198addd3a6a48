"""What repeated trainings say: intervals for means, for one more training, for differences; who is probably the best.

In: arrays of values, in which higher is better or worse as told. Out: numbers. Pure: no sweep, no trial, no file. The
seeds of a confirmation decided nothing, so its intervals are the plain ones of Student; only what a race says of itself
has to allow for several arms and several looks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95  # of every interval
N_DRAWS = 100_000  # of the posterior: its shares are off by 0.002 at most
FIRST_LOOK = 2  # rounds; with fewer there is no spread to judge a difference by

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """What n values of one arm say. Intervals are half widths around the mean; None: too few values for one."""

    n: int
    mean: float
    std: float | None  # of the sample, over n - 1
    half_width: float | None  # of the confidence interval of the mean
    prediction_half_width: float | None  # of the interval that one more training falls into


def estimate(values: Sequence[float] | Values, *, level: float = LEVEL) -> Estimate:
    """Describe values of one arm by Student's t, exact for normal values. Raises ValueError without a value."""
    found = np.asarray(values, dtype=np.float64)
    n = found.size
    if n == 0:
        raise ValueError("there is no value to describe")
    mean = float(found.mean())
    if n == 1:
        return Estimate(1, mean, None, None, None)
    std = float(found.std(ddof=1))
    t = _t(0.5 + level / 2, n - 1)
    return Estimate(n, mean, std, t * std / np.sqrt(n), t * std * np.sqrt(1 + 1 / n))


def as_values(rows: Sequence[Sequence[float]]) -> Values:
    """Make an array of values: (arms, rounds)."""
    return np.array(rows, dtype=np.float64)


def first_look_std(values: Values) -> float | None:
    """Pool the standard deviation within arms over the rounds that all arms ran; None with fewer than two of them.

    values: (arms, rounds). No later decision can have touched it, so a mean over any number of rounds, divided by it,
    is distributed as Student's t.
    """
    if values.shape[1] < FIRST_LOOK:
        return None
    return float(np.sqrt(values[:, :FIRST_LOOK].var(axis=1, ddof=1).mean()))


def race_half_width(std: float, *, n: int, n_arms: int, n_looks: int, level: float = LEVEL) -> float:
    """Give the half width of the interval of one arm's mean over `n` rounds, such that those of all arms hold at once.

    `std` is that of `first_look_std`; `n_looks` counts the rounds after which an arm's mean may have been taken, and
    each may be the one that is shown, so that the error is shared out among arms and looks (Bonferroni).
    """
    tail = (1 - level) / 2 / (n_arms * max(1, n_looks))
    return _t(1 - tail, n_arms * (FIRST_LOOK - 1)) * std / float(np.sqrt(n))


def dropped(values: Values, *, error: float, n_arms: int, n_looks: int) -> NDArray[np.bool_]:
    """Tell which arms have clearly lost.

    values: (arms, rounds), higher is better; both at least two, or none has. An arm is dropped whose mean falls behind
    the leader's by more than chance explains: t of the paired differences, the residual variance of the two-way layout
    arms x rounds pooled over all arms. The best arm of `n_arms` is dropped at any of `n_looks` looks with a probability
    of at most `error`.
    """
    n, rounds = values.shape
    if n < 2 or rounds < FIRST_LOOK:
        return np.zeros(n, dtype=np.bool_)
    means = values.mean(axis=1)
    residuals = values - means[:, None] - values.mean(axis=0)[None, :] + values.mean()
    df = (n - 1) * (rounds - 1)
    variance = float((residuals**2).sum()) / df
    t = _t(1 - error / ((n_arms - 1) * max(1, n_looks)), df)
    behind: NDArray[np.bool_] = means.max() - means > t * np.sqrt(2 * variance / rounds)
    return behind


def probabilities_of_best(
    groups: Sequence[Sequence[float]], *, maximize: bool, n_draws: int = N_DRAWS, seed: int = 0
) -> tuple[float, ...] | None:
    """Give the probability that each arm has the best mean, of all its trainings; None where no arm has two.

    Bayes with a flat prior on the means and on the logarithm of the standard deviation, which all arms share: then the
    means are distributed as normal values around those of the sample, with a variance that is a scaled inverse
    chi square. What was dropped enters with all that is known of it, so that the choice of the race does no harm.
    """
    n = np.array([len(group) for group in groups])
    if (n == 0).any():
        return None
    df = int((n - 1).sum())
    if df < 1:
        return None
    means = np.array([np.mean(group) for group in groups])
    within = sum(float(((np.asarray(group) - mean) ** 2).sum()) for group, mean in zip(groups, means, strict=True))
    chance = np.random.default_rng(seed)
    std = np.sqrt(within / chance.chisquare(df, size=n_draws))
    drawn = means + std[:, None] * chance.standard_normal((n_draws, len(groups))) / np.sqrt(n)
    if within == 0.0:  # ties are shared, not given to the first
        best = means == (means.max() if maximize else means.min())
        return tuple((best / best.sum()).tolist())
    winners = drawn.argmax(axis=1) if maximize else drawn.argmin(axis=1)
    return tuple((np.bincount(winners, minlength=len(groups)) / n_draws).tolist())


@lru_cache(maxsize=1000)
def _t(probability: float, df: int) -> float:
    """Give a quantile of Student's t."""
    from scipy.special import stdtrit  # here: views import this, and whoever looks at a sweep is not to wait for it

    return float(stdtrit(df, probability))
