"""Lanes side by side are updated as torch's own AdamW updates each by itself."""

from __future__ import annotations

import pytest
import torch

from finesweep.training.stack.adamw import AdamWSettings, Moments, StackedAdamW

LANES = (
    AdamWSettings(weight_decay=0.1, beta1=0.9, beta2=0.999, epsilon=1e-8, max_grad_norm=1.0),
    AdamWSettings(weight_decay=0.0, beta1=0.8, beta2=0.99, epsilon=1e-6, max_grad_norm=0.1),
    AdamWSettings(weight_decay=0.01, beta1=0.9, beta2=0.95, epsilon=1e-8, max_grad_norm=0.0),
)
RATES = ((1e-3, 1e-2, 1.0), (5e-4, 0.0, 0.5), (1e-4, 1e-3, 0.1))  # of each step, by lane
SHAPES = {"head.weight": (4, 6), "head.bias": (4,)}


@pytest.fixture
def start() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {name: torch.randn(len(LANES), *shape, dtype=torch.float64) for name, shape in SHAPES.items()}


@pytest.fixture
def gradients(start: dict[str, torch.Tensor]) -> list[dict[str, torch.Tensor]]:
    """Of each step: small ones, and some that are clipped."""
    return [{name: scale * torch.randn_like(weight) for name, weight in start.items()} for scale in (0.01, 3.0, 0.1)]


def by_torch(lane: int, start: dict[str, torch.Tensor], gradients: list[dict[str, torch.Tensor]]) -> list[torch.Tensor]:
    settings = LANES[lane]
    weight, bias = (torch.nn.Parameter(start[name][lane].clone()) for name in SHAPES)
    groups = [{"params": [weight], "weight_decay": settings.weight_decay}, {"params": [bias], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1.0, betas=(settings.beta1, settings.beta2), eps=settings.epsilon)
    for step, of_step in enumerate(gradients):
        for group in optimizer.param_groups:
            group["lr"] = RATES[step][lane]
        for parameter, name in zip((weight, bias), SHAPES, strict=True):
            parameter.grad = of_step[name][lane].clone()
        if settings.max_grad_norm:
            torch.nn.utils.clip_grad_norm_([weight, bias], settings.max_grad_norm)
        optimizer.step()
    return [weight.detach(), bias.detach()]


def test_each_lane_moves_as_by_itself(start: dict[str, torch.Tensor], gradients: list[dict[str, torch.Tensor]]) -> None:
    weights = {name: weight.clone() for name, weight in start.items()}
    moments = Moments.zero(weights)
    optimizer = StackedAdamW(LANES, decayed=frozenset({"head.weight"}), like=weights["head.weight"])
    for step, of_step in enumerate(gradients):
        copies = {name: gradient.clone() for name, gradient in of_step.items()}
        optimizer.step(weights, copies, moments, learning_rates=RATES[step], n_updates=step + 1)
    for lane in range(len(LANES)):
        expected = by_torch(lane, start, gradients)
        for got, wanted in zip(weights.values(), expected, strict=True):
            assert not torch.equal(wanted, start["head.weight"][lane])
            torch.testing.assert_close(got[lane], wanted, rtol=0, atol=1e-14)


def test_a_lane_that_blows_up_is_alone_in_it(
    start: dict[str, torch.Tensor], gradients: list[dict[str, torch.Tensor]]
) -> None:
    weights = {name: weight.clone() for name, weight in start.items()}
    optimizer = StackedAdamW(LANES, decayed=frozenset(), like=weights["head.weight"])
    gradients[0]["head.weight"][1, 0, 0] = torch.nan
    optimizer.step(weights, gradients[0], Moments.zero(weights), learning_rates=RATES[0], n_updates=1)
    finite = [bool(weights["head.weight"][lane].isfinite().all()) for lane in range(len(LANES))]
    assert finite == [True, False, True]
