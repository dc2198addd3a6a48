"""What a head computes, read off one run of it, and the same computed for many heads at once.

In: a model that is fed with stored features. Out: layers, which need nothing of the model any more. It must not know
trials or optimizers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from finesweep.training.models import Model

Weights = Mapping[str, torch.Tensor]  # parameter -> (lanes, *shape)


@dataclass(frozen=True, slots=True)
class Linear:
    weight: str
    bias: str | None


@dataclass(frozen=True, slots=True)
class Dropout:
    p: float
    width: int  # of the vectors that it is applied to


@dataclass(frozen=True, slots=True)
class Norm:
    weight: str
    bias: str | None
    epsilon: float


@dataclass(frozen=True, slots=True)
class Activation:
    function: Callable[[torch.Tensor], torch.Tensor]


Layer = Linear | Dropout | Norm | Activation

_ACTIVATIONS: Sequence[Callable[[torch.Tensor], torch.Tensor]] = (
    torch.tanh,
    torch.relu,
    nn.functional.gelu,
    nn.GELU(approximate="tanh"),
    nn.functional.silu,
)


def read_head(
    model: Model, vectors: torch.Tensor, run: Callable[[Model, torch.Tensor], torch.Tensor]
) -> tuple[Layer, ...] | None:
    """Read off the layers through which a head takes vectors: (rows, features) to its logits.

    `run` runs the model on vectors. None where the head is anything but linear layers, norms, dropout and known
    activations in a row, or trains what is none of these: such a head is trained by itself. To be given a model whose
    weights hide nothing: of a layer of zeros it could not be seen what comes after it.
    """
    calls: list[tuple[str, nn.Module, torch.Tensor, torch.Tensor]] = []

    def note(name: str, module: nn.Module, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        calls.append((name, module, inputs[0], output))

    handles = [
        module.register_forward_hook(lambda m, i, o, name=name: note(name, m, i, o))
        for name, module in model.named_modules()
        if type(module) in (nn.Linear, nn.LayerNorm, nn.Dropout)
    ]
    model.train()  # so that what is dropped in ways that are not known shows as another result
    for module in model.modules():
        if type(module) is nn.Dropout:
            module.eval()
    try:
        with torch.no_grad():
            logits = run(model, vectors)
    finally:
        for handle in handles:
            handle.remove()
    layers: list[Layer] = []
    at = vectors
    for name, module, given, output in calls:
        between = _between(at, given)
        if between is None:
            return None
        layers += between
        if isinstance(module, nn.Dropout):
            layers += [Dropout(module.p, given.shape[-1])] if module.p else []
        elif isinstance(module, nn.LayerNorm):
            if module.weight is None or len(module.normalized_shape) != 1:
                return None
            layers.append(Norm(f"{name}.weight", _bias_of(name, module), module.eps))
        else:
            layers.append(Linear(f"{name}.weight", _bias_of(name, module)))
        at = output
    after = _between(at, logits)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    if after is None or trained != set(parameter_names(layers)):
        return None
    return (*layers, *after)


def parameter_names(layers: Sequence[Layer]) -> list[str]:
    named = [(layer.weight, layer.bias) for layer in layers if isinstance(layer, Linear | Norm)]
    return [name for pair in named for name in pair if name is not None]


def apply_head(
    layers: Sequence[Layer], weights: Weights, vectors: torch.Tensor, masks: Sequence[torch.Tensor] = ()
) -> torch.Tensor:
    """Return logits: (lanes, rows, outputs) of vectors: (lanes, rows, features), or (1, ...) where all see the same.

    `masks` scale what each dropout lets through, (lanes or 1, rows, width); without them, nothing is dropped.
    """
    states, unused = vectors, list(masks)
    for layer in layers:
        match layer:
            case Linear():
                states = _linear(states, weights[layer.weight], None if layer.bias is None else weights[layer.bias])
            case Norm():
                states = (
                    nn.functional.layer_norm(states, states.shape[-1:], eps=layer.epsilon)
                    * weights[layer.weight][:, None]
                )
                states = states if layer.bias is None else states + weights[layer.bias][:, None]
            case Dropout() if unused:
                states = states * unused.pop(0)
            case Activation():
                states = layer.function(states)
    return states


def _linear(states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Apply weight: (lanes, out, in) to states: (lanes or 1, rows, in)."""
    n_lanes, n_out, n_in = weight.shape
    if states.shape[0] == 1:  # one product for all lanes, as if their outputs were those of one layer
        flat = states[0] @ weight.reshape(n_lanes * n_out, n_in).T  # (rows, lanes * out)
        product = flat.view(-1, n_lanes, n_out).transpose(0, 1)
    else:
        product = torch.bmm(states, weight.transpose(1, 2))
    return product if bias is None else product + bias[:, None]


def _between(before: torch.Tensor, after: torch.Tensor) -> Sequence[Layer] | None:
    """Find what turns one tensor into the next, which may have other dimensions of size 1; None if nothing known."""
    if before.numel() != after.numel() or before.dtype != after.dtype:
        return None
    flat = after.reshape(before.shape)
    if torch.equal(before, flat):
        return []
    return next(([Activation(f)] for f in _ACTIVATIONS if torch.allclose(f(before), flat, rtol=1e-6, atol=1e-7)), None)


def _bias_of(name: str, module: nn.Module) -> str | None:
    return None if module.bias is None else f"{name}.bias"
