"""Numbers that suit the data and the model: lengths, batches, epochs, what is set aside. Arithmetic only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from finesweep.spec.study import MetricDirection
from finesweep.spec.sweep import METRICS, Task
from finesweep.starting.guess import Guess

TRIALS = 20
STARTUP_TRIALS = 8

_COVERED = 0.95  # of the rows are not cut
_SHORTEST, _LONGEST = 16, 512  # tokens; memory and time grow with them
PACKED_TOKENS = 256  # of a row that texts are packed to
_LEAST_STEPS_PER_EPOCH = 10  # of the middle batch size
_LARGEST_BATCH, _LARGE_DATA, _LARGEST_BATCH_OF_LARGE_DATA = 32, 10_000, 64
_SHARE, _SHARE_OF_FEW, _FEW = 0.1, 0.2, 500
_MOST_VALIDATION_ROWS = 2000  # are scored at every report
_UNEVEN = 3.0  # times the rarest class


@dataclass(frozen=True, slots=True)
class Plan:
    metric: str
    direction: MetricDirection
    why_metric: str
    max_length: int
    batch_sizes: tuple[int, ...]
    epochs: tuple[int, int]
    validation_share: float
    max_validation_rows: int | None
    unfrozen_layers: tuple[int, int]


def make_plan(
    guess: Guess,
    *,
    n_rows: int,
    n_validation_rows: int | None,
    lengths: Sequence[int],
    positions: int | None,
    layers: int,
) -> Plan:
    """Choose numbers. `lengths` are tokens of some rows, `positions` the most that the model takes, if known.

    `n_validation_rows` is None where a share of the rows is set aside.
    """
    share = _SHARE_OF_FEW if n_rows < _FEW else _SHARE
    n_train = n_rows if n_validation_rows is not None else round(n_rows * (1 - share))
    held_out = n_validation_rows if n_validation_rows is not None else n_rows - n_train
    metric, why = _metric(guess)
    return Plan(
        metric=metric,
        direction=METRICS[guess.task][metric],
        why_metric=why,
        max_length=_max_length(guess, lengths, positions),
        batch_sizes=_batch_sizes(n_train),
        epochs=_epochs(guess.task, n_train),
        validation_share=share,
        max_validation_rows=_MOST_VALIDATION_ROWS if held_out > _MOST_VALIDATION_ROWS else None,
        unfrozen_layers=(1, min(4, layers)) if guess.task == "causal-lm" else (0, min(2, layers)),
    )


def _metric(guess: Guess) -> tuple[str, str]:
    match guess.task:
        case "classification":
            label = guess.label
            if label is not None and label.largest_share > _UNEVEN * label.smallest_share:
                return "macro_f1", "every class counts the same, however rare"
            return "accuracy", "the classes are about equally frequent"
        case "multi-label-classification":
            return "macro_f1", "every label counts the same, however rare"
        case "regression":
            return "rmse", "in the units of the label; large errors count most"
        case "causal-lm":
            return "loss", "per token"


def _max_length(guess: Guess, lengths: Sequence[int], positions: int | None) -> int:
    """Take what most rows fit in, rounded up to a multiple of 8, which devices like."""
    if guess.format == "text":
        wanted = PACKED_TOKENS
    else:
        ordered = sorted(lengths)
        wanted = ordered[min(len(ordered) - 1, math.ceil(_COVERED * len(ordered)))]
    return min(max(_SHORTEST, min(_LONGEST, 8 * math.ceil(wanted / 8))), positions or _LONGEST)


def _batch_sizes(n_train: int) -> tuple[int, ...]:
    """Offer three sizes, the largest of which still makes some optimizer steps an epoch."""
    most = _LARGEST_BATCH if n_train < _LARGE_DATA else _LARGEST_BATCH_OF_LARGE_DATA
    middle = 2 ** math.floor(math.log2(max(2, n_train / _LEAST_STEPS_PER_EPOCH)))
    largest = min(most, 2 * middle)
    return tuple(size for size in (largest // 4, largest // 2, largest) if size >= 1)


def _epochs(task: Task, n_train: int) -> tuple[int, int]:
    if task == "causal-lm":
        return (1, 5) if n_train < _FEW else (1, 3)
    if n_train < _FEW:
        return (3, 10)
    return (2, 5) if n_train < _LARGE_DATA else (1, 3)
