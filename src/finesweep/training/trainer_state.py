"""What a transformers' Trainer needs to go on, as safetensors and JSON. Its own files are pickles.

In: the states of a Trainer, a checkpoint's folder. Out: weights, optimizer, scheduler, scaler and random states there,
and back from there bit for bit. It must not know trials.
"""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from finesweep.errors import ModelError

WEIGHTS = "model.safetensors"
STATE = "trainer.json"  # the states below, with names of tensors in place of tensors
_TENSORS = "trainer.safetensors"
_TENSOR, _TUPLE, _PAIRS = "tensor", "tuple", "pairs"  # each the only key of what it stands for

_log = logging.getLogger(__name__)


def write_state(folder: Path, states: Mapping[str, Any], weights: Mapping[str, torch.Tensor]) -> None:
    """Write states of nested dicts, lists and tuples of tensors and plain values.

    Raises ModelError where a state holds anything else, which an optimizer out of the common may.
    """
    packing = _Packing()
    text = json.dumps({name: packing.pack(state, name) for name, state in states.items()})
    save_file(dict(weights), folder / WEIGHTS)
    save_file(packing.tensors, folder / _TENSORS)
    (folder / STATE).write_text(text, encoding="utf-8")


def read_state(folder: Path, name: str) -> Any:
    """Read one of the states that `write_state` wrote, None if it is not among them. Its tensors are on the CPU."""
    kept = json.loads((folder / STATE).read_text(encoding="utf-8"))
    if name not in kept:
        return None
    with safe_open(folder / _TENSORS, framework="pt") as tensors:
        return _unpack(kept[name], cache(tensors.get_tensor))


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / WEIGHTS)


def chance_now() -> dict[str, Any]:
    """Return the states of all generators of random numbers that a Trainer draws from."""
    of_numpy: Any = np.random.get_state()  # Any: its stubs do not know the tuple that it gives
    name, keys, *rest = of_numpy
    cuda = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
    return {
        "python": random.getstate(),
        "numpy": (name, keys.tolist(), *rest),
        "cpu": torch.get_rng_state(),
        "cuda": cuda,
    }


def set_chance(kept: Mapping[str, Any]) -> None:
    """Have all generators go on from the states that `chance_now` gave."""
    random.setstate(kept["python"])
    name, keys, *rest = kept["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(kept["cpu"])
    if torch.cuda.is_available():
        if kept["cuda"] is None:
            _log.warning("dropout draws anew: the trial was begun on another kind of device")
        else:
            torch.cuda.set_rng_state(kept["cuda"])


class _Packing:
    """Takes tensors out of a state. One that stands in several places is kept once, and is one again when read."""

    def __init__(self) -> None:
        self.tensors: dict[str, torch.Tensor] = {}
        self._names: dict[int, str] = {}
        self._alive: list[torch.Tensor] = []  # an id is a tensor's own only as long as that is there
        self._memory: set[int] = set()  # of the tensors so far

    def pack(self, value: Any, where: str) -> Any:
        if isinstance(value, torch.Tensor):
            return {_TENSOR: self._name(value, where)}
        if isinstance(value, Mapping):
            return {_PAIRS: [[self._key(key, where), self.pack(item, where)] for key, item in value.items()]}
        if isinstance(value, tuple):
            return {_TUPLE: [self.pack(item, where) for item in value]}
        if isinstance(value, list):
            return [self.pack(item, where) for item in value]
        if isinstance(value, np.generic):
            return value.item()
        if value is None or isinstance(value, str | bool | int | float):
            return value
        raise _unknown(value, where)

    def _name(self, tensor: torch.Tensor, where: str) -> str:
        if id(tensor) not in self._names:
            self._names[id(tensor)] = name = f"{where}.{len(self.tensors)}"
            self._alive.append(tensor)
            self.tensors[name] = self._by_itself(tensor.detach().cpu().contiguous())
        return self._names[id(tensor)]

    def _by_itself(self, tensor: torch.Tensor) -> torch.Tensor:
        """Copy a tensor whose memory is also another's: safetensors takes no such pair."""
        storage = tensor.untyped_storage()
        if storage.data_ptr() in self._memory or storage.nbytes() > tensor.nbytes:
            return tensor.clone()
        self._memory.add(storage.data_ptr())
        return tensor

    def _key(self, key: Any, where: str) -> str | int:
        if isinstance(key, str | int):
            return key
        raise _unknown(key, where)


def _unknown(value: Any, where: str) -> ModelError:
    return ModelError(
        f"the {where} holds a {type(value).__name__}, and checkpoints hold tensors, numbers and text only. Choose "
        "another training.optim or training.lr_scheduler_type."
    )


def _unpack(value: Any, tensor: Callable[[str], torch.Tensor]) -> Any:
    if isinstance(value, list):
        return [_unpack(item, tensor) for item in value]
    if not isinstance(value, dict):
        return value
    if _TENSOR in value:
        return tensor(value[_TENSOR])
    if _TUPLE in value:
        return tuple(_unpack(item, tensor) for item in value[_TUPLE])
    return {key: _unpack(item, tensor) for key, item in value[_PAIRS]}
