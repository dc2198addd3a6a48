"""A head is read off a run of it, or not at all."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from finesweep.training.stack.head import Activation, Dropout, Layer, Linear, Norm, apply_head, read_head

WIDTH = 6


class Head(nn.Module):
    """Dropout, dense, activation, norm, dropout, output: as in the classifiers of ModernBERT and ELECTRA."""

    def __init__(self, activation: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.first, self.second = nn.Dropout(0.3), nn.Dropout(0.0)
        self.dense, self.norm, self.out = nn.Linear(WIDTH, 5), nn.LayerNorm(5, eps=1e-4), nn.Linear(5, 3, bias=False)
        self.activation = activation

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        return self.out(self.second(self.norm(self.activation(self.dense(self.first(vectors))))))


class Dropping(Head):
    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        return super().forward(nn.functional.dropout(vectors, 0.5, training=self.training))


class Residual(Head):
    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        return super().forward(vectors) + vectors[:, :3]


class Scaled(Head):
    def __init__(self, activation: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__(activation)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        return self.scale * super().forward(vectors)


@pytest.fixture
def vectors() -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(8, WIDTH)


def read(head: nn.Module, vectors: torch.Tensor) -> tuple[Layer, ...] | None:
    return read_head(head, vectors, lambda model, given: model(given))


@pytest.mark.parametrize("activation", [torch.tanh, torch.relu, nn.functional.gelu, nn.functional.silu])
def test_its_layers_compute_what_it_computes(
    activation: Callable[[torch.Tensor], torch.Tensor], vectors: torch.Tensor
) -> None:
    torch.manual_seed(2)
    head = Head(activation)
    nn.init.normal_(head.norm.weight)
    nn.init.normal_(head.norm.bias)
    layers = read(head, vectors)
    assert layers is not None
    assert [type(layer) for layer in layers] == [Dropout, Linear, Activation, Norm, Linear]
    weights = {name: torch.stack([p.detach(), 2 * p.detach()]) for name, p in head.named_parameters()}
    logits = apply_head(layers, weights, vectors[None])
    head.eval()
    torch.testing.assert_close(logits[0], head(vectors))
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.mul_(2)
    torch.testing.assert_close(logits[1], head(vectors))


@pytest.mark.parametrize("kind", [Dropping, Residual, Scaled])
def test_one_that_does_more_is_not_read(kind: type[Head], vectors: torch.Tensor) -> None:
    torch.manual_seed(2)
    assert read(kind(torch.tanh), vectors) is None


def test_an_activation_that_is_not_known_is_not_read(vectors: torch.Tensor) -> None:
    torch.manual_seed(2)
    assert read(Head(nn.functional.mish), vectors) is None


def test_a_frozen_layer_is_not_read(vectors: torch.Tensor) -> None:
    head = Head(torch.tanh)
    head.dense.requires_grad_(False)
    assert read(head, vectors) is None
