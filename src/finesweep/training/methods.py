"""Which weights move: all of them, or a task head with the last blocks before it.

In: a model copy, settings. Out: gradients switched on or off, and what must stay in evaluation mode. It must not know
data or optimizers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from finesweep.errors import ModelError
from finesweep.spec.sweep import TrainingSpec
from finesweep.training.models import Model


@dataclass(frozen=True, slots=True)
class Trainable:
    names: frozenset[str]
    n_trainable: int
    n_total: int
    frozen_modules: tuple[nn.Module, ...]  # whose dropout must stay off: no parameter of theirs moves


def apply_method(model: Model, settings: TrainingSpec, *, fresh_parameters: frozenset[str]) -> Trainable:
    """Switch gradients on for what the method trains. Raises ModelError where that is nothing or cannot be told."""
    if settings.method == "full":
        split = _Split(names=frozenset(name for name, _ in model.named_parameters()), earlier=frozenset())
    elif settings.unfrozen_layers == 0:
        split = _at_head(model)
    else:
        split = _at_block(model, settings.unfrozen_layers)
    names = split.names | fresh_parameters
    if not names:
        raise ModelError(
            "method feature-extraction with unfrozen_layers 0 trains the head alone, but the head of this model is its "
            "embedding matrix, which stays frozen. Set unfrozen_layers to 1 or more, or use method full."
        )
    n_trainable = n_total = 0
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in names)
        n_total += parameter.numel()
        n_trainable += parameter.numel() if name in names else 0
    return Trainable(names, n_trainable, n_total, tuple(_frozen_modules(model, names, split.earlier)))


def find_blocks(model: Model) -> nn.ModuleList:
    """Return the list of a model's transformer blocks: the longest there is, the first of equals."""
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    if not lists:
        raise ModelError(
            f"the blocks of a {type(model).__name__} cannot be found, so unfrozen_layers has no meaning for it. "
            "Set it to 0 or use method full."
        )
    return max(lists, key=len)


@dataclass(frozen=True, slots=True)
class _Split:
    """Where a model is cut: the parameters that move, and the modules (by id) that run before any of them."""

    names: frozenset[str]
    earlier: frozenset[int]


def _at_head(model: Model) -> _Split:
    """Cut between the pre-trained body and what stands outside it. A head tied to the embeddings is of the body."""
    body = {id(parameter) for parameter in model.base_model.parameters()}
    return _Split(
        names=frozenset(name for name, parameter in model.named_parameters() if id(parameter) not in body),
        earlier=frozenset(id(module) for module in model.base_model.modules()),
    )


def _at_block(model: Model, n_blocks: int) -> _Split:
    """Cut before the last `n_blocks` blocks; what runs after is found by running the model once.

    Order of definition would not do: some models define their final norm before their blocks. A parameter that is also
    used before, such as an output layer tied to the embeddings, stays frozen.
    """
    blocks = find_blocks(model)
    if n_blocks > len(blocks):
        raise ModelError(
            f"unfrozen_layers: {n_blocks} exceeds the {len(blocks)} blocks of the model. Use at most {len(blocks)}, or "
            "method full."
        )
    boundary = blocks[len(blocks) - n_blocks]
    runs: list[nn.Module] = []

    def note(module: nn.Module, _: object) -> None:
        runs.append(module)

    handles = [module.register_forward_pre_hook(note) for module in model.modules()]
    try:
        with torch.no_grad():
            model.eval()(input_ids=torch.ones((1, 2), dtype=torch.long, device=model.device))
    finally:
        for handle in handles:
            handle.remove()
    at = runs.index(boundary)
    used_before = {id(parameter) for module in runs[:at] for parameter in module.parameters(recurse=False)}
    used_after = {id(parameter) for module in runs[at:] for parameter in module.parameters(recurse=False)}
    return _Split(
        names=frozenset(
            name for name, parameter in model.named_parameters() if id(parameter) in used_after - used_before
        ),
        earlier=frozenset(id(module) for module in runs[:at]),
    )


def _frozen_modules(model: Model, names: frozenset[str], earlier: frozenset[int]) -> list[nn.Module]:
    """Return the outermost modules without a trained parameter: frozen ones, and dropout that runs before the cut."""
    frozen: list[nn.Module] = []

    def visit(module: nn.Module, prefix: str) -> None:
        for child_name, child in module.named_children():
            path = f"{prefix}{child_name}"
            if any(name.startswith(f"{path}.") for name in names):
                visit(child, f"{path}.")
            elif id(child) in earlier or any(True for _ in child.parameters()):
                frozen.append(child)

    visit(model, "")
    return frozen
