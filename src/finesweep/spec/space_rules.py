"""Rules that each parameter of a study keeps on its own: its name, its range, and the setting it is a value of.

In: the parameters that could be read. Out: findings. Knows nothing of files.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from pydantic import ValidationError

from finesweep.events import Value
from finesweep.spec.explain import explain
from finesweep.spec.expressions import ExpressionError, parse_expression
from finesweep.spec.faults import Finding, KeyPath, show
from finesweep.spec.parameters import (
    Branch,
    BranchedParameter,
    CategoricalParameter,
    DerivedParameter,
    FloatParameter,
    IntParameter,
    Parameter,
    Parameters,
    Scalar,
)
from finesweep.spec.settings import Settings, name_problem, value_problem, why_not_searched
from finesweep.spec.sweep import TrainingSpec

ROOT: KeyPath = ("study", "parameters")


@dataclass(frozen=True, slots=True)
class Space:
    """The parameters that could be read, the names of those that could not, and the settings beside them."""

    parameters: Parameters
    unread: frozenset[str]
    fixed: Mapping[str, Value]
    settings: type[Settings] = TrainingSpec  # what the parameters are values of

    @property
    def names(self) -> list[str]:
        return [*self.parameters, *self.unread]


def parameter_faults(space: Space) -> Iterator[Finding]:
    for name in space.names:
        yield from _name_faults(name, space.settings)
    for name, parameter in space.parameters.items():
        for path, branch in branches_of(name, parameter):
            yield from _range_faults(path, branch)
            yield from _setting_faults(path, name, branch, space.settings)


def branches_of(name: str, parameter: Parameter) -> Iterator[tuple[KeyPath, Branch]]:
    """Yield a parameter's ranges and derivations with their key paths: one, or one for each branch."""
    if isinstance(parameter, BranchedParameter):
        for branch_name, branch in parameter.branches.items():
            yield (*ROOT, name, branch_name), branch
    else:
        yield (*ROOT, name), parameter


# --- a parameter on its own --------------------------------------------------------------------------------------


def _name_faults(name: str, settings: type[Settings]) -> Iterator[Finding]:
    at = (*ROOT, name)
    problem = name_problem(name, settings)
    if problem is not None:
        yield Finding(at, problem)
    elif (reason := why_not_searched(name, settings)) is not None:
        yield Finding(at, f"{name} cannot be searched: {reason}. Fix it under `training`.")


def _range_faults(at: KeyPath, branch: Branch) -> Iterator[Finding]:
    match branch:
        case FloatParameter() | IntParameter():
            yield from _interval_faults(at, branch)
        case CategoricalParameter():
            yield from _choice_faults(at, branch.choices)
        case DerivedParameter(value=str() as text):
            try:
                parse_expression(text)
            except ExpressionError as error:
                yield Finding((*at, "value"), str(error))
        case DerivedParameter(value=None):
            yield Finding((*at, "value"), 'null is no value to derive. Write an expression such as "2 * batch_size".')


def _interval_faults(at: KeyPath, branch: FloatParameter | IntParameter) -> Iterator[Finding]:
    low, high = branch.low, branch.high
    if low > high:
        message = f"low ({show(low)}) must be below high ({show(high)}). Swap them or widen the range."
        yield Finding((*at, "low"), message)
    elif low == high:
        message = f"low and high are both {show(low)}, which leaves nothing to search. Fix it under `training` instead."
        yield Finding((*at, "low"), message)
    if not math.isfinite(high - low):
        yield Finding((*at, "high"), f"the range from {show(low)} to {show(high)} is too wide to be searched.")
        return
    if branch.log and low <= 0:
        yield Finding((*at, "low"), f"low is {show(low)}, but a log scale needs low above 0. Raise it or drop `log`.")
    has_step = branch.step is not None and not (isinstance(branch, IntParameter) and branch.step == 1)
    if branch.log and has_step:
        yield Finding(
            (*at, "step"), f"step ({show(branch.step)}) and `log: true` exclude each other. Keep one of them."
        )
    elif branch.step is not None and low < high:
        yield from _step_faults(at, low, high, branch.step)


def _step_faults(at: KeyPath, low: float, high: float, step: float) -> Iterator[Finding]:
    exact_low, exact_high, exact_step = (Decimal(str(number)) for number in (low, high, step))
    n_steps = (exact_high - exact_low) / exact_step
    if n_steps < 1:
        message = f"step ({show(step)}) is wider than the range from {show(low)} to {show(high)}. Make it smaller."
        yield Finding((*at, "step"), message)
    elif n_steps > 10**9:
        yield Finding((*at, "step"), f"step ({show(step)}) makes over a billion values. Leave it out, or widen it.")
    elif n_steps != int(n_steps):
        reached = exact_low + int(n_steps) * exact_step
        message = (
            f"high ({show(high)}) is not low plus a whole number of steps of {show(step)}. Write `high: {reached}`, or"
            " another step."
        )
        yield Finding((*at, "high"), message)


def _choice_faults(at: KeyPath, choices: Sequence[Scalar]) -> Iterator[Finding]:
    earlier: dict[Scalar, Scalar] = {}  # by ==, as Optuna looks choices up: 1, 1.0 and true are one
    for index, choice in enumerate(choices):
        if choice in earlier:
            first = earlier[choice]
            twin = "" if type(first) is type(choice) else f" (it equals {show(first)})"
            yield Finding((*at, "choices", index), f"the choice {show(choice)} is given twice{twin}. Remove one.")
        earlier.setdefault(choice, choice)
    if len(choices) == 1:
        message = f"the only choice is {show(choices[0])}, which leaves nothing to search. Fix it under `training`."
        yield Finding((*at, "choices"), message)


# --- a parameter as a setting ------------------------------------------------------------------------------------


def _setting_faults(at: KeyPath, name: str, branch: Branch, settings: type[Settings]) -> Iterator[Finding]:
    """Hold the ends of a range, each choice and a constant to the rules of the setting that they are values of."""
    if name_problem(name, settings) is not None or why_not_searched(name, settings) is not None:
        return
    match branch:
        case FloatParameter() if _is_whole_setting(name, settings) and not _draws_whole_numbers(branch):
            yield Finding((*at, "type"), f"{name} must be a whole number. Use `type: int`.")
        case FloatParameter() | IntParameter():
            for end in ("low", "high"):
                yield from setting_value_faults((*at, end), name, getattr(branch, end), settings)
        case CategoricalParameter():
            for index, choice in enumerate(branch.choices):
                yield from setting_value_faults((*at, "choices", index), name, choice, settings)
        case DerivedParameter() if not isinstance(branch.value, str | None):
            yield from setting_value_faults((*at, "value"), name, branch.value, settings)


def setting_value_faults(at: KeyPath, name: str, value: Any, settings: type[Settings]) -> Iterator[Finding]:
    problem = value_problem(name, value) if settings is TrainingSpec else None
    if problem is not None:
        yield Finding(at, problem)
    if name in settings.model_fields:
        try:
            settings.model_validate({name: value})
        except ValidationError as error:
            for finding in explain(error, {name: value}, settings):
                yield Finding(at, finding.message)


def _is_whole_setting(name: str, settings: type[Settings]) -> bool:
    """Try a broken number: only whole settings refuse it for not being whole."""
    return any("whole" in finding.message for finding in setting_value_faults((), name, 1.5, settings))


def _draws_whole_numbers(branch: FloatParameter) -> bool:
    return branch.low.is_integer() and branch.step is not None and branch.step.is_integer()
