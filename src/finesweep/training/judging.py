"""When a trial has learnt enough, and when its training has gone astray: arithmetic on metrics and losses alone.

In: the metric of an evaluation, the loss of an optimizer step. Out: yes or no. All that is remembered from one to the
next is a `Watched`, a value that a checkpoint can hold. It must not know torch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from finesweep.spec.study import Objective

N_RECENT = 10  # optimizer steps whose mean loss is held against the start: one bad batch is no divergence


N_START_ROWS = 32  # that the loss at the start is the mean of


@dataclass(frozen=True, slots=True)
class Watched:
    """What is remembered of a trial so far."""

    best: float | None = None  # the objective that patience waits to see bettered
    n_without: int = 0  # evaluations since
    start_loss: float | None = None  # mean training loss before the first update
    recent_losses: tuple[float, ...] = ()  # mean training loss of the last optimizer steps, at most N_RECENT


def note_value(watched: Watched, value: float, objective: Objective, *, min_delta: float) -> Watched:
    """Count an evaluation; one that betters the best by more than `min_delta` begins the count anew."""
    shift = min_delta if objective.direction == "maximize" else -min_delta
    bar = None if watched.best is None else watched.best + shift
    if math.isfinite(value) and objective.is_better(value, bar):
        return replace(watched, best=value, n_without=0)
    return replace(watched, n_without=watched.n_without + 1)


def note_loss(watched: Watched, loss: float) -> Watched:
    """Remember the mean training loss of an optimizer step."""
    return replace(watched, recent_losses=(*watched.recent_losses, loss)[-N_RECENT:])


def start_rows(n_rows: int) -> list[int]:
    """Choose the training rows by whose loss a start is judged: evenly spread over all of them."""
    n_chosen = min(N_START_ROWS, n_rows)
    return [i * n_rows // n_chosen for i in range(n_chosen)]


def is_diverged(watched: Watched, *, factor: float) -> bool:
    """Tell whether the last loss is not finite, or the last ones exceed `factor` times that of the start on average."""
    losses = watched.recent_losses
    if losses and not math.isfinite(losses[-1]):
        return True
    if watched.start_loss is None or len(losses) < N_RECENT:
        return False
    return sum(losses) / len(losses) > factor * watched.start_loss


def loss_of_ignorance(labels: Sequence[object]) -> float:
    """Return a loss below which training has not gone astray, however low the loss was at the start.

    A model that knows its task already starts near 0 and may rise to a multiple of that while it learns. Where labels
    are numbers it is what always answering their mean costs; else one nat: the right answer at a probability of 0.37.
    """
    numbers = [label for label in labels if isinstance(label, float)]
    if not numbers:
        return 1.0
    mean = sum(numbers) / len(numbers)
    return sum((number - mean) ** 2 for number in numbers) / len(numbers)
