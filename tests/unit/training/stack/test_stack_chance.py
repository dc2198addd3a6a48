"""A lane sees the rows, and drops what, a trial by itself would on a CPU."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from finesweep.spec.sweep import TrainingSpec
from finesweep.training.schedule import Schedule, plan
from finesweep.training.stack.chance import Chance
from finesweep.training.stack.head import Dropout, Layer, Linear

N_ROWS, SEED = 11, 5
HEAD: Sequence[Layer] = (Dropout(0.1, 6), Linear("dense.weight", None), Dropout(0.4, 3), Linear("out.weight", None))


def schedule(**settings: int) -> Schedule:
    return plan(TrainingSpec(batch_size=4, epochs=2, **settings), n_rows=N_ROWS)


def chance(schedule: Schedule) -> Chance:
    return Chance(schedule, lambda epoch: torch.arange(N_ROWS) + 100 * epoch, seed=SEED, device=torch.device("cpu"))


def masks_of(drawn: Chance, n_steps: int, *, begin: int = 0) -> list[list[torch.Tensor]]:
    return [drawn.masks(HEAD, len(drawn.rows(step)), dtype=torch.float32) for step in range(begin, begin + n_steps)]


def test_rows_follow_the_epochs_orders() -> None:
    drawn = chance(schedule())
    seen = [drawn.rows(step).tolist() for step in range(6)]
    assert seen == [
        *([0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]),
        *([100, 101, 102, 103], [104, 105, 106, 107], [108, 109, 110]),
    ]


@pytest.mark.parametrize("device_batch_size", [4, 2])
def test_masks_are_those_of_dropout_under_the_same_seed(device_batch_size: int) -> None:
    torch.manual_seed(SEED)
    torch.utils.data.DataLoader(range(N_ROWS)).__iter__()  # which draws a seed for its workers
    expected = []
    for n_rows in (4, 4, 3):
        parts = [
            [torch.dropout(torch.ones(n, width), p, train=True) for p, width in ((0.1, 6), (0.4, 3))]
            for n in [len(part) for part in torch.arange(n_rows).split(device_batch_size)]
        ]
        expected.append([torch.cat(of_layer) for of_layer in zip(*parts, strict=True)])
    got = masks_of(chance(schedule(device_batch_size=device_batch_size)), 3)
    for step_got, step_expected in zip(got, expected, strict=True):
        for mask, wanted in zip(step_got, step_expected, strict=True):
            assert torch.equal(mask, wanted)
    assert any((mask == 0).any() for step in got for mask in step)


def test_a_fork_goes_on_by_itself() -> None:
    original = chance(schedule())
    masks_of(original, 1)
    fork = original.fork()
    ahead = masks_of(fork, 3, begin=1)
    after = masks_of(original, 3, begin=1)
    for one, other in zip(ahead, after, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
