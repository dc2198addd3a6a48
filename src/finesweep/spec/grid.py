"""The resource axis of a sweep: where its trials report, and how far the longest of them goes."""

from __future__ import annotations

import math

from finesweep.errors import SpecError
from finesweep.events import Grid, Value
from finesweep.spec.faults import Fault
from finesweep.spec.parameters import (
    BranchedParameter,
    CategoricalParameter,
    DerivedParameter,
    Parameter,
)
from finesweep.spec.study import AshaPruner, HyperbandPruner
from finesweep.spec.sweep import AUTO, FunctionSweep, RemoteSweep, SweepSpec

DEFAULT_PERCENT = 20  # five reports a trial
DEFAULT_REPORTS_PER_EPOCH = 2
AUTO_EPOCHS = 10  # the most that a fine-tuning server is expected to choose


def plan_grid(spec: SweepSpec, *, n_train_rows: int = 0) -> Grid:
    """Choose the grid, from `eval_every` or by default, now that the number of rows is known.

    A trainer of the user's own looks after rows itself: the grid goes by the `total_examples` of its trials, and
    without those, where nothing is pruned, every report has a step of its own.

    Raises SpecError if the first rung lies off a grid that was chosen by default.
    """
    if spec.study.pruner.compare_at == "progress":
        grid = Grid(unit="progress", every=spec.training.eval_every or DEFAULT_PERCENT, longest=100)
    elif isinstance(spec, RemoteSweep):
        longest = math.ceil(largest(spec, "n_epochs", default=AUTO_EPOCHS) * n_train_rows)
        every = spec.training.eval_every or max(
            int(largest(spec, "batch_size", default=1)), math.ceil(n_train_rows / DEFAULT_REPORTS_PER_EPOCH)
        )
        grid = Grid(unit="examples", every=every, longest=longest)
    elif isinstance(spec, FunctionSweep):
        total = math.ceil(largest(spec, "total_examples", default=0))
        every = spec.training.eval_every or max(1, math.ceil(total * DEFAULT_PERCENT / 100))
        grid = Grid(unit="examples", every=every, longest=total)
    else:
        largest_batch = int(largest(spec, "batch_size"))
        every = spec.training.eval_every or max(largest_batch, math.ceil(n_train_rows / DEFAULT_REPORTS_PER_EPOCH))
        longest = math.ceil(largest(spec, "epochs") * n_train_rows)
        grid = Grid(unit="examples", every=every, longest=longest)
    _check_first_rung(spec, grid)
    return grid


def largest(spec: SweepSpec, name: str, *, default: float | None = None) -> float:
    """Return the largest number that a setting takes in any trial; a derived one counts where it is a constant.

    What a server chooses counts as the default.
    """
    parameter = spec.study.parameters.get(name)
    values = [getattr(spec.training, name, None)] if parameter is None else extremes(parameter)
    numbers = [number for value in values if isinstance(number := default if value == AUTO else value, int | float)]
    return max(numbers, default=getattr(spec.training, name) if default is None else default)


def extremes(parameter: Parameter) -> list[Value]:
    """List the values between or among which all of a parameter's lie."""
    match parameter:
        case BranchedParameter():
            return [value for branch in parameter.branches.values() for value in extremes(branch)]
        case CategoricalParameter():
            return list(parameter.choices)
        case DerivedParameter():
            return [parameter.value]
        case _:
            return [parameter.low, parameter.high]


def _check_first_rung(spec: SweepSpec, grid: Grid) -> None:
    pruner = spec.study.pruner
    rung = pruner.first_rung if isinstance(pruner, AshaPruner | HyperbandPruner) else None
    if rung is not None and rung % grid.every:
        message = (
            f"first_rung ({rung}) must be a multiple of eval_every, which is {grid.every} for this data. "
            f"Set training.eval_every to a divisor of {rung}, or leave first_rung out."
        )
        raise SpecError([Fault(spec.name, None, "study.pruner.first_rung", message)])
