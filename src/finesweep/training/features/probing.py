"""Finding the boundary of a model, and making sure that a model fed with what crosses it is the model itself.

In: a model whose trained weights are set apart, real rows. Out: a boundary, or why there is none. It must not know
files or trials.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch

from finesweep.errors import first_line
from finesweep.spec.sweep import Pooling
from finesweep.training.features.boundary import Batch, Boundary, Reading, read_output, run_to
from finesweep.training.features.shell import Form, hollow, shell_of
from finesweep.training.methods import Cut, find_blocks
from finesweep.training.models import Model

Autocast = Callable[[], AbstractContextManager[Any]]

_LARGEST_ERROR = 100  # in units of the last place of the largest logit: sums in another order, and no more
_LARGEST_ERROR_OF_HALVES = 8
_NOISE = 0.05  # on trained weights while looking: of a head that is all zeros nothing could be seen

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Probe:
    """A whole model on its device, and a batch of real rows."""

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


class _NotHereError(Exception):
    """A model cannot be cut at a boundary."""


def find_boundary(probe: Probe, *, unfrozen_layers: int, pooling: Pooling) -> Found | str:
    """Return the boundary at which least needs to be stored, or why nothing can be."""
    noisy = hollow(probe.model, {}, trained=probe.cut.names)
    add_noise(noisy, probe.cut.names)
    candidates = _candidates(probe, unfrozen_layers=unfrozen_layers, pooling=pooling)
    reasons: list[str] = []
    while True:
        try:
            boundary = next(candidates, None)
            if boundary is None:
                return reasons[0] if reasons else "nothing but embeddings is frozen"
            return _try(probe, noisy, boundary)
        except _NotHereError as error:
            reasons.append(str(error))
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # whatever code of an unknown architecture makes of a stub
            _log.info("a %s cannot do without its frozen part", type(probe.model).__name__, exc_info=True)
            reasons.append(f"without its frozen part the model fails: {first_line(error)}")


def add_noise(model: Model, names: frozenset[str]) -> None:
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in names:
                noise = torch.randn(parameter.shape, generator=draw, dtype=torch.float32)
                parameter.add_(_NOISE * noise.to(parameter))


def _candidates(probe: Probe, *, unfrozen_layers: int, pooling: Pooling) -> Iterator[Boundary]:
    model, path = probe.model, probe.model.base_model_prefix
    if unfrozen_layers == 0 and model.base_model is not model:
        readings: tuple[Reading, ...] = ("pooler", "first", "last", "sequence") if pooling == "model" else ("first",)
        for reading in readings:
            if reading != "last" or probe.last_is_a_token:
                yield Boundary(path, (path,), reading)
    blocks = find_blocks(model)
    name = next(name for name, module in model.named_modules() if module is blocks)
    frozen = tuple(f"{name}.{i}" for i in range(len(blocks) - unfrozen_layers))
    if frozen:
        yield Boundary(frozen[-1], frozen, "sequence")


def _try(probe: Probe, noisy: Model, boundary: Boundary) -> Found:
    """Hold the model against itself fed with its own states, in evaluation and in training.

    Raises _NotHereError if they differ. Its trained weights are noisy; the states must not notice.
    """
    mask = probe.batch["attention_mask"]
    with torch.no_grad(), probe.autocast():
        output = run_to(probe.model.eval(), boundary.path, probe.batch)
        states = read_output(output, boundary.reading, mask)
        if states is None:
            raise _NotHereError(f"a {type(probe.model).__name__} has no states to store")
        of_noisy = read_output(run_to(noisy.eval(), boundary.path, probe.batch), boundary.reading, mask)
        if of_noisy is None or not are_alike(of_noisy, states, states.dtype):
            raise _NotHereError("parameters drawn at random lie in its frozen part")
        if not boundary.is_vector:
            states = torch.where(mask.unsqueeze(-1).bool(), states, 0)
        form = Form.of(output)
        shell = shell_of(noisy, boundary, form, trained=probe.cut.names)
        if not probe.cut.names <= {name for name, _ in shell.named_parameters()}:
            raise _NotHereError("parameters drawn at random lie in its frozen part")
        fed = {"features": states} if boundary.is_vector else {**probe.batch, "features": states}
        for is_training in (False, True):
            expected = _logits(noisy, probe.batch, probe.cut, is_training=is_training)
            found = _logits(shell, fed, probe.cut, is_training=is_training)
            if not are_alike(found, expected, states.dtype):
                raise _NotHereError(f"a {type(probe.model).__name__} without its frozen part gives other numbers")
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
