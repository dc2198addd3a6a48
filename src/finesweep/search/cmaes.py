"""CMA-ES with its state kept as JSON. Optuna's own pickles it, and would run whatever stands there in its place.

In: Optuna's sampler, a study. Out: the draws that Optuna's would make; beside trials, text that holds nothing but
numbers. It must not know how trials are judged.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Any

import cmaes
import numpy as np
from optuna.samplers import CmaEsSampler
from optuna.trial import FrozenTrial

_KEY = "finesweep:cmaes"  # not Optuna's: a sampler of theirs that opens the study must find no state, and begin anew
_ARRAY, _ORDER = "array", "order"

_log = logging.getLogger(__name__)


class JsonCmaEsSampler(CmaEsSampler):
    """Optuna's sampler, but for how its optimizer is written beside a trial and read again."""

    _optimizer: cmaes.CMA | None = None  # of the ask that is being answered

    @property
    def _attr_key_optimizer(self) -> str:
        return _KEY

    def _init_optimizer(self, *args: Any, **options: Any) -> Any:
        self._optimizer = optimizer = super()._init_optimizer(*args, **options)
        optimizer._funhist_values.fill(0.0)  # else memory as it was found, which is nobody's to store
        return optimizer

    def _split_optimizer_str(self, optimizer_str: str) -> dict[str, str]:
        """Write the optimizer that was just told, as JSON; Optuna hands over a pickle of it, which is dropped."""
        assert self._optimizer is not None, "restored or made anew before it is told"
        return super()._split_optimizer_str(written(self._optimizer))

    def _restore_optimizer(self, completed_trials: Sequence[FrozenTrial]) -> Any:
        """Find the latest state. One that cannot be read is passed over: the one before it is the next best."""
        for trial in reversed(completed_trials):
            parts = {key: text for key, text in trial.system_attrs.items() if key.startswith(f"{_KEY}:")}
            if not parts:
                continue
            try:
                self._optimizer = read(self._concat_optimizer_attrs(parts))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                _log.warning("what cmaes kept with trial %d cannot be read and is passed over: %s", trial.number, error)
                continue
            return self._optimizer
        return None


def written(optimizer: cmaes.CMA) -> str:
    """Write the state of an optimizer: numbers, and arrays of them. Every bit of them comes back."""
    return json.dumps({name: _plain(value) for name, value in optimizer.__getstate__().items()})


def read(text: str) -> cmaes.CMA:
    """Make the optimizer again. Raises ValueError, KeyError, TypeError or AttributeError for anything else."""
    kept = json.loads(text)
    fresh = cmaes.CMA(mean=_restored(kept["_mean"]), sigma=1.0)
    state = {name: _restored(value) for name, value in kept.items()}
    known = fresh.__getstate__()
    if state.keys() != known.keys():
        raise ValueError(f"it has other parts: {', '.join(sorted(state.keys() ^ known.keys()))}")
    fresh.__setstate__(state)
    return fresh


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return {_ARRAY: value.tolist(), _ORDER: "F" if value.flags.fnc else "C"}  # sums go by it, in their last bit
    return value.item() if isinstance(value, np.generic) else value


def _restored(value: Any) -> Any:
    if isinstance(value, dict):
        return np.array(value[_ARRAY], dtype=float, order="F" if value.get(_ORDER) == "F" else "C")
    if value is None or isinstance(value, bool | int | float):
        return value
    raise ValueError(f"a {type(value).__name__} is no number")
