"""Models without their frozen part: stubs stand in its place and give out what was stored.

In: a model, the boundary. Out: a model of the same class that is fed `features` beside or instead of tokens, and whose
trained parameters have the names they always had. It must not know files or trials.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers.utils import ModelOutput

from finesweep.training.features.boundary import Boundary
from finesweep.training.models import Model


@dataclass(frozen=True, slots=True)
class Form:
    """In which form a module returned its states, so that its stub can do the same."""

    output_type: type[ModelOutput] | None  # None: the tensor itself, or a tuple that begins with it
    n_others: int | None = None  # in the tuple; None: it is none
    has_pooler: bool = False
    is_apart: bool = False  # first tokens lie apart in memory, the others' states between them

    @classmethod
    def of(cls, output: Any) -> Form:
        if isinstance(output, ModelOutput):
            has_pooler = getattr(output, "pooler_output", None) is not None
            return cls(type(output), has_pooler=has_pooler, is_apart=_is_apart(output["last_hidden_state"]))
        if isinstance(output, tuple):
            return cls(None, len(output) - 1, is_apart=_is_apart(output[0]))
        return cls(None, is_apart=_is_apart(output))

    def make(self, features: torch.Tensor) -> Any:
        """Dress up vectors: (batch, hidden) or states: (batch, sequence, hidden)."""
        states = features
        if features.ndim == 2:
            states = _spread(features) if self.is_apart else features.unsqueeze(1)
        if self.output_type is None:
            return states if self.n_others is None else (states, *[None] * self.n_others)
        if not self.has_pooler:
            return self.output_type(last_hidden_state=states)
        # of a sequence nothing pooled is known: whoever reads it must notice
        pooled = features if features.ndim == 2 else torch.full_like(states[:, 0], torch.nan)
        return self.output_type(last_hidden_state=states, pooler_output=pooled)


def _is_apart(states: torch.Tensor) -> bool:
    """Tell whether a head that takes the first of states: (batch, sequence, hidden) gets a tensor with gaps."""
    return not states[:, 0].is_contiguous()


def _spread(vectors: torch.Tensor) -> torch.Tensor:
    """Give vectors: (batch, hidden) as states: (batch, 1, hidden) with gaps between them, as in rows of many tokens.

    What dropout on a GPU drops goes by how its input lies in memory.
    """
    n_rows, hidden = vectors.shape
    apart = vectors.new_empty(n_rows, 2, hidden)
    apart[:, 0] = vectors
    return apart[:, :1]


class Stored(nn.Module):  # type: ignore[misc]  # torch is not followed
    """Stands where states cross the boundary, and gives out those of the batch at hand."""

    gradient_checkpointing = False  # transformers looks for it; there is nothing here to compute again

    def __init__(self, form: Form) -> None:
        super().__init__()
        self._form = form
        self.features: torch.Tensor | None = None

    def forward(self, *_: Any, **__: Any) -> Any:
        assert self.features is not None, "a model without its frozen part is fed `features`"
        return self._form.make(self.features)


class Passed(nn.Module):  # type: ignore[misc]  # torch is not followed
    """Stands for a block whose result nobody needs: another one after it gives out what is stored."""

    def __init__(self, form: Form) -> None:
        super().__init__()
        self._form = form

    def forward(self, hidden_states: torch.Tensor, *_: Any, **__: Any) -> Any:
        return self._form.make(hidden_states)


def hollow(model: Model, stubs: Mapping[str, nn.Module], *, trained: frozenset[str]) -> Model:
    """Copy a model, with stubs in place of some modules. Frozen weights are not copied but shared."""
    memo: dict[int, Any] = {id(model.get_submodule(path)): stub for path, stub in stubs.items()}
    for name, parameter in model.named_parameters():
        if name not in trained:
            memo[id(parameter)] = nn.Parameter(parameter.detach(), requires_grad=False)
    return copy.deepcopy(model, memo)


def shell_of(model: Model, boundary: Boundary, form: Form, *, trained: frozenset[str]) -> Model:
    """Copy a model without what lies before the boundary; call the copy with `features`.

    Where they are vectors: (batch, hidden), no tokens need to be given; else the batch as always. Trained parameters
    are copies that require gradients.
    """
    stubs = {path: _like(model.get_submodule(path), Passed(form)) for path in boundary.replaced[:-1]}
    stubs[boundary.path] = _like(model.get_submodule(boundary.path), Stored(form))
    shell = hollow(model, stubs, trained=trained)
    for name, parameter in shell.named_parameters():
        parameter.requires_grad_(name in trained)
    shell.register_forward_pre_hook(_Feed(boundary.path, _any_id_but(shell.config)), with_kwargs=True)
    return shell


@dataclass(frozen=True, slots=True)
class _Feed:
    """Hands features to the stub that gives them out. Holds no module, so that it works in copies as well."""

    path: str
    token_id: int  # of a row that is one vector: heads that look for the last token find it there

    def __call__(self, shell: Model, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        features = kwargs.pop("features")
        shell.get_submodule(self.path).features = features
        if features.ndim == 2:
            kwargs["input_ids"] = torch.full((len(features), 1), self.token_id, device=features.device)
            kwargs["attention_mask"] = torch.ones_like(kwargs["input_ids"])
        return args, kwargs


def _any_id_but(config: Any) -> int:
    return 1 if config.get_text_config().pad_token_id == 0 else 0


def _like(module: nn.Module, stub: nn.Module) -> nn.Module:
    """Give a stub what others may look up in a block: its kind of attention, its index."""
    for name, value in vars(module).items():
        if not name.startswith("_") and name != "training" and isinstance(value, str | int | float | bool):
            setattr(stub, name, value)
    return stub
