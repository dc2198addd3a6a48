"""Where a model is cut into what is computed once and what is trained, and what is read there.

In: a model, a batch. Out: the states that cross the boundary. It must not know trials or files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from transformers.utils import ModelOutput

from finesweep.training.models import Model

Batch = Mapping[str, torch.Tensor]
Reading = Literal["pooler", "first", "last", "sequence"]  # one vector a row, or the states of all its tokens


@dataclass(frozen=True, slots=True)
class Boundary:
    path: str  # of the module whose output is read
    replaced: tuple[str, ...]  # the modules that need not run once it is known, this one last
    reading: Reading

    @property
    def name(self) -> str:
        """Say what numbers these are, in a key."""
        return f"{self.path}:{self.reading}"

    @property
    def is_vector(self) -> bool:
        return self.reading != "sequence"


def read_output(output: Any, reading: Reading, mask: torch.Tensor) -> torch.Tensor | None:
    """Read vectors: (batch, hidden) or states: (batch, sequence, hidden) off a module's output, for masks that are
    padded on the right: (batch, sequence). None where there are no such."""
    if isinstance(output, ModelOutput):
        states = getattr(output, "last_hidden_state", None)
    else:
        states = output[0] if isinstance(output, tuple) else output
    if not isinstance(states, torch.Tensor) or states.shape[:2] != mask.shape:
        return None
    match reading:
        case "pooler":
            return getattr(output, "pooler_output", None)
        case "first":
            return states[:, 0]
        case "last":
            return states[torch.arange(len(states), device=states.device), mask.sum(1) - 1]
        case "sequence":
            return states


class _ReachedError(Exception):
    """Ends a forward pass: what comes after the boundary is not needed."""


def run_to(model: Model, path: str, batch: Batch) -> Any:
    """Run a model up to the end of one of its modules and return that module's output."""
    outputs: list[Any] = []

    def keep(module: nn.Module, _: Any, output: Any) -> None:
        outputs.append(output)
        raise _ReachedError

    handle = model.get_submodule(path).register_forward_hook(keep)
    try:
        model(**batch)
    except _ReachedError:
        return outputs[0]
    finally:
        handle.remove()
    raise ValueError(f"{path} does not run")
