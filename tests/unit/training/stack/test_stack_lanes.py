"""Lanes moved on together are where each would be by itself, whatever their seeds and rates."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from finesweep.spec.sweep import TrainingSpec
from finesweep.training.checkpoints import Progress, TrialFolder
from finesweep.training.judging import Watched
from finesweep.training.methods import Trainable
from finesweep.training.schedule import plan
from finesweep.training.scoring import Scoring
from finesweep.training.stack.head import Activation, Dropout, Linear
from finesweep.training.stack.lane import HeadTask, Lane, Rows
from finesweep.training.stack.stack import Stack, alike
from finesweep.training.tasks import task_kind

N_ROWS, WIDTH, N_CLASSES = 30, 6, 3
RATES = (1e-3, 1e-2, 3e-3)


class Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(WIDTH, 4)
        self.out = nn.Linear(4, N_CLASSES, bias=False)


@pytest.fixture
def task() -> HeadTask:
    torch.manual_seed(0)
    rows = Rows(torch.randn(N_ROWS, WIDTH, dtype=torch.float64), torch.randint(N_CLASSES, (N_ROWS,)))
    return HeadTask(
        layers=(
            Dropout(0.2, WIDTH),
            Linear("dense.weight", "dense.bias"),
            Activation(torch.tanh),
            Dropout(0.5, 4),
            Linear("out.weight", None),
        ),
        decayed=frozenset({"dense.weight", "out.weight"}),
        train=rows,
        validation=rows,
        scoring=Scoring(task_kind("classification")),
        autocast=None,
    )


@pytest.fixture
def make_lane(task: HeadTask, tmp_path: Path) -> Callable[..., Lane]:
    def make(
        *, seed: int, learning_rate: float, batch_size: int = 8, write_best: Callable[..., Path] = lambda **_: tmp_path
    ) -> Lane:
        torch.manual_seed(seed)
        head = Head().double()
        settings = TrainingSpec(
            method="feature-extraction",
            learning_rate=learning_rate,
            batch_size=batch_size,
            epochs=2,
            weight_decay=0.1,
            seed=seed,
        )
        names = frozenset(name for name, _ in head.named_parameters())

        def order(epoch: int) -> torch.Tensor:
            return torch.randperm(N_ROWS, generator=torch.Generator().manual_seed(seed + epoch))

        return Lane(
            task,
            settings,
            plan(settings, n_rows=N_ROWS),
            shell=Trainable(head, names, n_trainable=40, n_total=40, n_bytes=320, frozen_modules=()),
            order=order,
            write_best=write_best,
            write_checkpoint=TrialFolder(tmp_path, 0, attempt=1).write_checkpoint,
        )

    return make


def assert_same_weights(one: Lane, other: Lane) -> None:
    assert one.optimizer_step == other.optimizer_step
    for name, weight in one.weights.items():
        torch.testing.assert_close(weight, other.weights[name], rtol=0, atol=1e-12)


@pytest.mark.parametrize("seeds", [(7, 7, 7), (7, 8, 9), (7, 8, 7)], ids=["one", "several", "some"])
def test_together_as_apart(make_lane: Callable[..., Lane], seeds: tuple[int, ...]) -> None:
    together, apart = (
        [make_lane(seed=seed, learning_rate=rate) for seed, rate in zip(seeds, RATES, strict=True)] for _ in range(2)
    )
    stack, stacks = Stack(together), [Stack([lane]) for lane in apart]
    for _ in range(6):
        losses = stack.step()
        for loss, of_one in zip(losses, stacks, strict=True):
            assert of_one.step() == [pytest.approx(loss, abs=1e-12)]
    for one, other in zip(together, apart, strict=True):
        assert_same_weights(one, other)
    assert len({float(lane.weights["out.weight"].sum()) for lane in together}) == len(RATES)


def test_a_lane_that_stays_behind_is_not_moved_with_the_others(make_lane: Callable[..., Lane]) -> None:
    lanes = [make_lane(seed=7, learning_rate=rate) for rate in RATES]
    Stack(lanes).step()
    behind = {name: weight.clone() for name, weight in lanes[0].weights.items()}
    stack = Stack(lanes[1:])
    stack.step()
    assert lanes[0].optimizer_step == 1
    assert all(torch.equal(weight, lanes[0].weights[name]) for name, weight in behind.items())
    catching_up = Stack(lanes[:1])
    catching_up.step()
    unbroken = make_lane(seed=7, learning_rate=RATES[0])
    by_itself = Stack([unbroken])
    by_itself.step(), by_itself.step()
    assert_same_weights(lanes[0], unbroken)


def test_only_lanes_with_equal_batches_at_one_step_are_alike(make_lane: Callable[..., Lane]) -> None:
    lanes = [make_lane(seed=7, learning_rate=1e-3, batch_size=size) for size in (8, 4, 8)]
    assert alike(lanes) == [[lanes[0], lanes[2]], [lanes[1]]]
    Stack(lanes[:1]).step()
    assert alike(lanes) == [[lanes[0]], [lanes[1]], [lanes[2]]]


def test_a_checkpoint_gives_back_weights_moments_and_chance(make_lane: Callable[..., Lane], tmp_path: Path) -> None:
    lane, unbroken = (make_lane(seed=7, learning_rate=1e-2) for _ in range(2))
    stack, by_itself = Stack([lane]), Stack([unbroken])
    for _ in range(3):
        stack.step(), by_itself.step()
    lane.write_checkpoint(Progress(3, 0.0, 0, 0.0, Watched()))
    resumed = make_lane(seed=7, learning_rate=1e-2)
    checkpoint = TrialFolder(tmp_path, 0, attempt=2).newest_checkpoint()
    assert checkpoint is not None
    resumed.go_on_from(checkpoint)
    again = Stack([resumed])
    for _ in range(4):  # into the next epoch
        again.step(), by_itself.step()
    assert_same_weights(resumed, unbroken)


def test_best_weights_are_those_of_when_they_were_kept(make_lane: Callable[..., Lane], tmp_path: Path) -> None:
    written: list[tuple[dict[str, torch.Tensor], int]] = []

    def write_best(weights: dict[str, torch.Tensor], *, step: int, value: float) -> Path:
        written.append((weights, step))
        return tmp_path

    lane = make_lane(seed=7, learning_rate=1e-2, write_best=write_best)
    stack = Stack([lane])
    stack.step()
    then = lane.weights["out.weight"].clone()
    lane.keep_best(step=8, value=0.5)
    stack.step()
    lane.settle()
    lane.settle()
    assert [step for _, step in written] == [8]
    assert torch.equal(written[0][0]["out.weight"], then)
    assert not torch.equal(lane.weights["out.weight"], then)
