"""Hyperparameter sweeps for fine-tuning transformers.

    from finesweep import load_sweep, open_results, run

    end = run(load_sweep("sweeps/quickstart.yaml"))
    open_results().trials(end.name)

Nothing heavy is imported until it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from finesweep.errors import FinesweepError, SpecError

if TYPE_CHECKING:
    from finesweep.driver import SweepEnd
    from finesweep.events import Decision
    from finesweep.notebook import Results, open_results
    from finesweep.spec.files import check_sweep, load_sweep
    from finesweep.spec.sweep import SweepSpec
    from finesweep.sweeps import delete, extend, load_trained, resume, run, stop
    from finesweep.training.function import Reporter, Trial

_HOMES = {
    "Decision": "events",
    "Reporter": "training.function",
    "Results": "notebook",
    "SweepEnd": "driver",
    "SweepSpec": "spec.sweep",
    "Trial": "training.function",
    "check_sweep": "spec.files",
    "delete": "sweeps",
    "extend": "sweeps",
    "load_sweep": "spec.files",
    "load_trained": "sweeps",
    "open_results": "notebook",
    "resume": "sweeps",
    "run": "sweeps",
    "stop": "sweeps",
}

__all__ = [
    "Decision",
    "FinesweepError",
    "Reporter",
    "Results",
    "SpecError",
    "SweepEnd",
    "SweepSpec",
    "Trial",
    "check_sweep",
    "delete",
    "extend",
    "load_sweep",
    "load_trained",
    "open_results",
    "resume",
    "run",
    "stop",
]


def __getattr__(name: str) -> Any:  # Any: one function for all names; type checkers see the imports above
    if name in _HOMES:
        return getattr(import_module(f"finesweep.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'finesweep' has no attribute {name!r}")
