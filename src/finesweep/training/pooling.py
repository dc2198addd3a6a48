"""What a task's head is given: what the model itself gives it, or one vector made of its token states.

In: a model with a head. Out: the same model, with a hook on its body. It must not know trials or files.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from finesweep.errors import ModelError
from finesweep.spec.sweep import Pooling
from finesweep.training.models import Model


def add_pooling(model: Model, pooling: Pooling) -> None:
    """Have the head read one vector per row, however it looks for it: the body shows it at every place.

    A hook and not a wrapper, so that names of parameters stay; it holds no module, so that it works in copies as well.
    Raises ModelError where head and body cannot be told apart.
    """
    if pooling == "model":
        return
    if model.base_model is model:
        raise ModelError(
            f"pooling: {pooling} stands between the body and the head of a model, and a {type(model).__name__} does "
            "not tell them apart. Set pooling to model."
        )
    model.base_model.register_forward_hook(_Pool(pooling), with_kwargs=True)


def idle_parameters(model: Model, pooling: Pooling) -> frozenset[str]:
    """Name the parameters that do not matter any more: those of the body's own pooler, if another is asked for."""
    if pooling == "model":
        return frozenset()
    pooler = f".{model.base_model_prefix}.pooler."
    return frozenset(name for name, _ in model.named_parameters() if pooler in f".{name}")


@dataclass(frozen=True, slots=True)
class _Pool:
    pooling: Pooling

    def __call__(self, body: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> Any:
        states = getattr(output, "last_hidden_state", None)  # (batch, sequence, hidden)
        if states is None:
            raise ModelError(
                f"pooling: {self.pooling} is made of token states, and a {type(body).__name__} returns none by the "
                "name last_hidden_state. Set pooling to model."
            )
        mask = _attention_mask(body, args, kwargs)
        vector = states[:, 0].contiguous() if self.pooling == "cls" else mean_of_tokens(states, mask)
        output["last_hidden_state"] = vector.unsqueeze(1).expand(-1, states.shape[1], -1)
        if getattr(output, "pooler_output", None) is not None:
            output["pooler_output"] = vector
        return output


def mean_of_tokens(states: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Average states: (batch, sequence, hidden) over the tokens of a mask: (batch, sequence)."""
    if mask is None:
        return states.mean(1)
    exact = torch.promote_types(states.dtype, torch.float32)  # sums of halves lose what is small
    weights = mask.to(exact).unsqueeze(-1)
    return ((states.to(exact) * weights).sum(1) / weights.sum(1)).to(states.dtype)


def _attention_mask(body: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> torch.Tensor | None:
    if not args or "attention_mask" in kwargs:
        return kwargs.get("attention_mask")
    return inspect.signature(body.forward).bind_partial(*args, **kwargs).arguments.get("attention_mask")
