"""Finding the boundary of a model, and making sure that a model fed with what crosses it is the model itself.

In: a model whose trained weights are set apart, real rows. Out: a boundary, or why there is none. It must not know
files or trials.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch

from finesweep.errors import ModelError, first_line
from finesweep.spec.sweep import Pooling
from finesweep.training.features.boundary import Batch, Boundary, Reading, read_output, run_to
from finesweep.training.features.shell import Form, shell_of
from finesweep.training.methods import Cut, find_blocks, run_order
from finesweep.training.models import Model

Autocast = Callable[[], AbstractContextManager[Any]]

_LARGEST_ERROR = 100  # in units of the last place of the largest logit: sums in another order, and no more
_LARGEST_ERROR_OF_HALVES = 8
_NOISE = 0.05  # on trained weights while looking: of a head that is all zeros nothing could be seen

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Probe:
    """A whole model on its device, of which the trained weights are copies, and a batch of real rows."""

    model: Model
    cut: Cut
    batch: Batch  # without labels; padded on the right
    autocast: Autocast
    last_is_a_token: bool  # in all rows of the data: the padding token's id is not what ends them


@dataclass(frozen=True, slots=True)
class Found:
    boundary: Boundary
    form: Form
    states: torch.Tensor  # of the probe's batch: (batch, hidden) or (batch, sequence, hidden)


def find_boundary(probe: Probe, *, unfrozen_layers: int, pooling: Pooling) -> Found | str:
    """Return the boundary at which least needs to be stored, or why nothing can be."""
    add_noise(probe.model, probe.cut.names)
    try:
        candidates = list(_candidates(probe, unfrozen_layers=unfrozen_layers, pooling=pooling))
    except (ModelError, ValueError) as error:
        return f"the model's blocks are not told apart: {first_line(error)}"
    why = "parameters drawn at random lie in its frozen part, or nothing but embeddings is frozen"
    for boundary in candidates:
        try:
            found = _try(probe, boundary)
        except Exception as error:  # whatever code of an unknown architecture makes of a stub
            _log.info("%s cannot be replayed at %s", type(probe.model).__name__, boundary.name, exc_info=True)
            why = f"without its frozen part the model fails: {first_line(error)}"
            continue
        if found is not None:
            return found
        why = f"a {type(probe.model).__name__} without its frozen part gives other numbers"
    return why


def add_noise(model: Model, names: frozenset[str]) -> None:
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in names:
                noise = torch.randn(parameter.shape, generator=draw, dtype=torch.float32)
                parameter.add_(_NOISE * noise.to(parameter))


def _candidates(probe: Probe, *, unfrozen_layers: int, pooling: Pooling) -> Iterator[Boundary]:
    model, path = probe.model, probe.model.base_model_prefix
    if unfrozen_layers == 0 and model.base_model is not model and not _any_below([path], probe.cut.names):
        readings: tuple[Reading, ...] = ("pooler", "first", "last", "sequence") if pooling == "model" else ("first",)
        for reading in readings:
            if reading != "last" or probe.last_is_a_token:
                yield Boundary(path, (path,), reading)
    paths = _block_paths(model)
    n_frozen = len(paths) - unfrozen_layers
    if n_frozen > 0 and not _any_below(_before(model, paths, n_frozen), probe.cut.names):
        yield Boundary(paths[n_frozen - 1], tuple(paths[:n_frozen]), "sequence")


def _block_paths(model: Model) -> list[str]:
    blocks = find_blocks(model)
    path = next(name for name, module in model.named_modules() if module is blocks)
    return [f"{path}.{i}" for i in range(len(blocks))]


def _before(model: Model, block_paths: list[str], n_frozen: int) -> list[str]:
    """Name the modules whose own parameters matter to what the last frozen block returns."""
    names = {id(module): name for name, module in model.named_modules()}
    order = [names[id(module)] for module in run_order(model)]
    first_frozen = order.index(block_paths[0])
    containers = {name for name in order[:first_frozen] if f"{block_paths[0]}.".startswith(f"{name}.") or not name}
    return [name for name in order[:first_frozen] if name not in containers] + block_paths[:n_frozen]


def _any_below(paths: Iterable[str], names: frozenset[str]) -> bool:
    return any(name.startswith(f"{path}.") for path in paths for name in names)


def _try(probe: Probe, boundary: Boundary) -> Found | None:
    """Hold the model against itself fed with its own states, in evaluation and in training; None if they differ."""
    with torch.no_grad(), probe.autocast():
        output = run_to(probe.model.eval(), boundary.path, probe.batch)
        form = Form.of(output)
        states = read_output(output, boundary.reading, probe.batch["attention_mask"])
        if states is None:
            return None
        if not boundary.is_vector:
            states = torch.where(probe.batch["attention_mask"].unsqueeze(-1).bool(), states, 0)
        shell = shell_of(probe.model, boundary, form, trained=probe.cut.names)
        fed = {"features": states} if boundary.is_vector else {**probe.batch, "features": states}
        for is_training in (False, True):
            expected = _logits(probe.model, probe.batch, probe.cut, is_training=is_training)
            found = _logits(shell, fed, probe.cut, is_training=is_training)
            if not are_alike(found, expected, states.dtype):
                return None
    return Found(boundary, form, states)


def _logits(model: Model, batch: Batch, cut: Cut, *, is_training: bool) -> torch.Tensor:
    """Run a model as trials do, under a fixed seed."""
    model.train(is_training)
    for path in cut.frozen:
        model.get_submodule(path).eval()
    device = next(iter(batch.values())).device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        logits: torch.Tensor = model(**batch).logits
    model.eval()
    if logits.ndim == 3:  # (batch, sequence, vocab): what stands behind the tokens nobody looks at
        logits = logits[batch["attention_mask"].bool()]
    return logits


def are_alike(found: torch.Tensor, expected: torch.Tensor, dtype: torch.dtype) -> bool:
    """Tell whether two tensors are equal but for rounding in the precision that was computed in."""
    if found.shape != expected.shape:
        return False
    n_units = _LARGEST_ERROR_OF_HALVES if dtype.itemsize < 4 else _LARGEST_ERROR
    largest = n_units * torch.finfo(dtype).eps * float(expected.abs().max())
    return bool(((found - expected).abs() <= largest).all())  # NaN is like nothing
