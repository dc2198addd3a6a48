"""Which weights move: all of them, a task head with the last blocks before it, or adapters beside them.

In: a model copy, settings. Out: gradients switched on or off, and what must stay in evaluation mode. It must not know
data or optimizers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from finesweep.errors import ModelError
from finesweep.spec.sweep import Task, TrainingSpec
from finesweep.training.adapters import add_adapters, is_idle
from finesweep.training.models import Model
from finesweep.training.pooling import add_pooling, idle_parameters


@dataclass(frozen=True, slots=True)
class Trainable:
    model: Model  # with adapters, the one that wraps the copy
    names: frozenset[str]
    n_trainable: int
    n_total: int
    n_bytes: int  # of all weights, as they are held
    frozen_modules: tuple[nn.Module, ...]  # whose dropout must stay off: no parameter of theirs moves
    frozen_names: tuple[str, ...] = ()  # of these modules, in the order of the model


def apply_method(model: Model, settings: TrainingSpec, *, task: Task, fresh_parameters: frozenset[str]) -> Trainable:
    """Set up the head's input and switch gradients on for what the method trains.

    Raises ModelError where that is nothing or cannot be told.
    """
    add_pooling(model, settings.pooling)
    idle = idle_parameters(model, settings.pooling)
    match settings.method:
        case "lora":
            return trainable(add_adapters(model, settings, task=task, fresh_parameters=fresh_parameters))
        case "full":
            return trainable(_switch(model, frozenset(name for name, _ in model.named_parameters()) - idle))
        case "feature-extraction":
            cut = cut_of(model, settings, fresh_parameters=fresh_parameters)
            return trainable(_switch(model, cut.names), frozen=cut.frozen)


@dataclass(frozen=True, slots=True)
class Cut:
    """Where feature extraction cuts a model, by names, which hold for copies too."""

    names: frozenset[str]  # of the parameters that move
    frozen: tuple[str, ...]  # the outermost modules without any of them


def cut_of(model: Model, settings: TrainingSpec, *, fresh_parameters: frozenset[str]) -> Cut:
    """Find what feature extraction trains: the head, the last blocks, and what no file held. Raises ModelError."""
    split = split_model(model, settings.unfrozen_layers)
    names = (split.names | fresh_parameters) - idle_parameters(model, settings.pooling)
    if not names:
        raise ModelError(NO_HEAD)
    return Cut(names, tuple(_frozen_modules(model, names, split.earlier)))


NO_HEAD = (
    "method feature-extraction with unfrozen_layers 0 trains the head alone, but the head of this model is its "
    "embedding matrix, which stays frozen. Set unfrozen_layers to 1 or more, or use another method."
)


def trainable(model: Model, *, frozen: Sequence[str] = ()) -> Trainable:
    """Count what moves in a model whose gradients are switched, and keep hold of the modules named."""
    weights = {name: parameter for name, parameter in model.named_parameters() if not is_idle(name)}
    moving = {name: parameter for name, parameter in weights.items() if parameter.requires_grad}
    return Trainable(
        model,
        names=frozenset(moving),
        n_trainable=sum(map(_n_weights, moving.values())),
        n_total=sum(map(_n_weights, weights.values())),
        n_bytes=sum(parameter.numel() * parameter.element_size() for parameter in weights.values()),
        frozen_modules=tuple(model.get_submodule(path) for path in frozen),
        frozen_names=tuple(frozen),
    )


def _switch(model: Model, names: frozenset[str]) -> Model:
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in names)
    return model


def _n_weights(parameter: nn.Parameter) -> int:
    """Count what a parameter stands for: bitsandbytes packs two weights of 4 bits into a byte."""
    packed = getattr(parameter, "quant_state", None)
    return int((parameter if packed is None else packed).shape.numel())


@dataclass(frozen=True, slots=True)
class Split:
    """Where a model is cut: the parameters that move, and the modules that run before any of them."""

    names: frozenset[str]
    earlier: frozenset[str]


def split_model(model: Model, unfrozen_layers: int) -> Split:
    return _at_head(model) if unfrozen_layers == 0 else _at_block(model, unfrozen_layers)


def find_blocks(model: Model, *, at_least: int = 1) -> nn.ModuleList:
    """Return the list of a model's transformer blocks: the longest there is, the first of equals."""
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    if not lists:
        raise ModelError(
            f"the blocks of a {type(model).__name__} cannot be found, so unfrozen_layers has no meaning for it. "
            "Set it to 0 or use method full."
        )
    blocks = max(lists, key=len)
    if at_least > len(blocks):
        raise ModelError(
            f"unfrozen_layers: {at_least} exceeds the {len(blocks)} blocks of the model. Use at most {len(blocks)}, or "
            "method full."
        )
    return blocks


def _at_head(model: Model) -> Split:
    """Cut between the pre-trained body and what stands outside it. A head tied to the embeddings is of the body."""
    body = {id(parameter) for parameter in model.base_model.parameters()}
    return Split(
        names=frozenset(name for name, parameter in model.named_parameters() if id(parameter) not in body),
        earlier=names_of(model, model.base_model.modules()),
    )


def _at_block(model: Model, n_blocks: int) -> Split:
    """Cut before the last `n_blocks` blocks. A parameter that is also used before, such as an output layer tied to the
    embeddings, stays frozen.
    """
    blocks = find_blocks(model, at_least=n_blocks)
    runs = run_order(model)
    at = runs.index(blocks[len(blocks) - n_blocks])
    used_before = {id(parameter) for module in runs[:at] for parameter in module.parameters(recurse=False)}
    used_after = {id(parameter) for module in runs[at:] for parameter in module.parameters(recurse=False)}
    return Split(
        names=frozenset(
            name for name, parameter in model.named_parameters() if id(parameter) in used_after - used_before
        ),
        earlier=names_of(model, runs[:at]),
    )


def run_order(model: Model) -> list[nn.Module]:
    """Return a model's modules in the order in which they begin to run, which is found by running it once.

    Order of definition would not do: some models define their final norm before their blocks.
    """
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
    return runs


def names_of(model: Model, modules: Iterable[nn.Module]) -> frozenset[str]:
    """Return every name that modules have in a model."""
    wanted = {id(module) for module in modules}
    return frozenset(name for name, module in model.named_modules(remove_duplicate=False) if id(module) in wanted)


def _frozen_modules(model: Model, names: frozenset[str], earlier: frozenset[str]) -> list[str]:
    """Name the outermost modules without a trained parameter: frozen ones, and dropout that runs before the cut."""
    frozen: list[str] = []

    def visit(module: nn.Module, prefix: str) -> None:
        for child_name, child in module.named_children():
            path = f"{prefix}{child_name}"
            if any(name.startswith(f"{path}.") for name in names):
                visit(child, f"{path}.")
            elif path in earlier or any(True for _ in child.parameters()):
                frozen.append(path)

    visit(model, "")
    return frozen
