"""Rules between the parameters of a study: ranges, conditions, branches, derived values, settings they may be.

In: the parameters that could be read, and the fixed settings. Out: findings. Knows nothing of files.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from pydantic import ValidationError

from finesweep.events import Value
from finesweep.spec.explain import explain
from finesweep.spec.expressions import ExpressionError, parse_expression
from finesweep.spec.faults import Finding, KeyPath, show, unknown
from finesweep.spec.parameters import (
    Branch,
    BranchedParameter,
    CategoricalParameter,
    Condition,
    DerivedParameter,
    FloatParameter,
    IntParameter,
    Parameter,
    Parameters,
    Range,
    Scalar,
)
from finesweep.spec.settings import NOT_SEARCHED, name_problem, value_problem
from finesweep.spec.space import (
    active_branch,
    allowed_values,
    contains,
    controls_of,
    dependencies,
    expression_names,
    is_active,
    n_values,
    parameter_order,
)
from finesweep.spec.sweep import TrainingSpec

ROOT: KeyPath = ("study", "parameters")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_MOST_ASSIGNMENTS = 10_000  # of the parameters that others depend on, when it is checked what exists with what


@dataclass(frozen=True, slots=True)
class Space:
    """The parameters that could be read, the names of those that could not, and the settings beside them."""

    parameters: Parameters
    unread: frozenset[str]
    fixed: Mapping[str, Value]

    @property
    def names(self) -> list[str]:
        return [*self.parameters, *self.unread]


def space_faults(space: Space) -> Iterator[Finding]:
    for name in space.names:
        yield from _name_faults(name)
    for name, parameter in space.parameters.items():
        for path, branch in _branches(name, parameter):
            yield from _range_faults(path, branch)
            yield from _setting_faults(path, name, branch)
    references = list(_reference_faults(space))
    yield from references
    cycles = list(_cycle_faults(space))
    yield from cycles
    if not references and not cycles and not space.unread and all(name_problem(name) is None for name in space.names):
        yield from _existence_faults(space)


def _branches(name: str, parameter: Parameter) -> Iterator[tuple[KeyPath, Branch]]:
    """Yield a parameter's ranges and derivations with their key paths: one, or one for each branch."""
    if isinstance(parameter, BranchedParameter):
        for branch_name, branch in parameter.branches.items():
            yield (*ROOT, name, branch_name), branch
    else:
        yield (*ROOT, name), parameter


# --- a parameter on its own --------------------------------------------------------------------------------------


def _name_faults(name: str) -> Iterator[Finding]:
    at = (*ROOT, name)
    problem = name_problem(name)
    if problem is not None:
        yield Finding(at, problem)
    elif not _NAME.match(name):
        yield Finding(at, f"{show(name)} cannot be a parameter's name.")
    elif name in NOT_SEARCHED:
        yield Finding(at, f"{name} cannot be searched: {NOT_SEARCHED[name]}. Fix it under `training`.")


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


def _setting_faults(at: KeyPath, name: str, branch: Branch) -> Iterator[Finding]:
    """Hold the ends of a range, each choice and a constant to the rules of the setting that they are values of."""
    if name_problem(name) is not None or name in NOT_SEARCHED:
        return
    match branch:
        case FloatParameter() if _is_whole_setting(name) and not _draws_whole_numbers(branch):
            yield Finding((*at, "type"), f"{name} must be a whole number. Use `type: int`.")
        case FloatParameter() | IntParameter():
            for end in ("low", "high"):
                yield from _value_faults((*at, end), name, getattr(branch, end))
        case CategoricalParameter():
            for index, choice in enumerate(branch.choices):
                yield from _value_faults((*at, "choices", index), name, choice)
        case DerivedParameter() if not isinstance(branch.value, str | None):
            yield from _value_faults((*at, "value"), name, branch.value)


def _value_faults(at: KeyPath, name: str, value: Any) -> Iterator[Finding]:
    problem = value_problem(name, value)
    if problem is not None:
        yield Finding(at, problem)
    if name in TrainingSpec.model_fields:
        try:
            TrainingSpec.model_validate({name: value})
        except ValidationError as error:
            for finding in explain(error, {name: value}, TrainingSpec):
                yield Finding(at, finding.message)


def _is_whole_setting(name: str) -> bool:
    """Try a broken number: only whole settings refuse it for not being whole."""
    return any("whole" in finding.message for finding in _value_faults((), name, 1.5))


def _draws_whole_numbers(branch: FloatParameter) -> bool:
    return branch.low.is_integer() and branch.step is not None and branch.step.is_integer()


# --- parameters between each other -------------------------------------------------------------------------------


def _reference_faults(space: Space) -> Iterator[Finding]:
    for name, parameter in space.parameters.items():
        yield from _condition_faults((*ROOT, name), parameter.when, space)
        if isinstance(parameter, BranchedParameter):
            yield from _branching_faults((*ROOT, name), parameter, space)
        for path, branch in _branches(name, parameter):
            if isinstance(parameter, BranchedParameter):
                yield from _condition_faults(path, branch.when, space)
            if isinstance(branch, DerivedParameter):
                for used in expression_names(branch):
                    if used not in space.fixed and used not in space.names:
                        known = (*space.names, *space.fixed)
                        message = unknown("the expression's name", used, known)
                        yield Finding((*path, "value"), f"{message} Text needs quotes of its own.")


def _condition_faults(at: KeyPath, when: Condition | None, space: Space) -> Iterator[Finding]:
    for name, allowed in (when or {}).items():
        here = (*at, "when", name)
        if name in space.unread:
            continue
        if name not in space.parameters and name not in space.fixed:
            yield Finding(here, unknown("parameter", name, (*space.names, *space.fixed)))
            continue
        if allowed == ():
            yield Finding(here, "an empty list of values is never met. Name at least one.")
        for value in allowed_values(allowed):
            if name in space.parameters and not can_take(space.parameters[name], value):
                yield Finding(here, f"{name} never is {show(value)}. {_takes(space.parameters[name])}")


def _branching_faults(at: KeyPath, parameter: BranchedParameter, space: Space) -> Iterator[Finding]:
    by = parameter.by
    if by in space.unread:
        return
    if by in space.parameters:
        controller = space.parameters[by]
        if not isinstance(controller, CategoricalParameter):
            yield Finding((*at, "by"), f"{by} has no choices to branch by; `by` must name a categorical parameter.")
            return
        keys = [str(choice) for choice in controller.choices]
        rule = f"choice of {by}"
    elif by in space.fixed:
        keys = _possible_values(by, space.fixed[by])
        rule = f"value of the setting {by}"
    else:
        yield Finding((*at, "by"), unknown("parameter", by, (*space.names, "method")))
        return
    for branch in parameter.branches:
        if branch not in keys:
            yield Finding((*at, branch), unknown("branch", branch, keys, verb=f"is no {rule}"))


def _possible_values(setting: str, value: Value) -> list[str]:
    """List what a fixed setting could have been: a study serves several methods, a sweep fixes one."""
    if setting == "method":
        annotation = TrainingSpec.model_fields["method"].annotation
        return [str(method) for method in getattr(annotation, "__args__", ())]
    return [str(value)]


def can_take(parameter: Parameter, value: Value) -> bool:
    """Tell whether a parameter can have a value in some trial."""
    branches = parameter.branches.values() if isinstance(parameter, BranchedParameter) else [parameter]
    return any(contains(branch, value) for branch in branches)


def _takes(parameter: Parameter) -> str:
    match parameter:
        case CategoricalParameter():
            return f"Its choices: {', '.join(show(choice) for choice in parameter.choices)}."
        case FloatParameter() | IntParameter():
            return describe_range(parameter)
    return "Name a value that it can have."


def describe_range(branch: Range) -> str:
    """Say in a sentence what a range holds."""
    match branch:
        case CategoricalParameter():
            return f"Its choices: {', '.join(show(choice) for choice in branch.choices)}."
        case IntParameter(step=1):
            return f"It is a whole number from {branch.low} to {branch.high}."
        case FloatParameter(step=None):
            return f"It lies from {show(branch.low)} to {show(branch.high)}."
        case FloatParameter() | IntParameter():
            return f"It lies from {show(branch.low)} to {show(branch.high)} in steps of {show(branch.step)}."


def _cycle_faults(space: Space) -> Iterator[Finding]:
    """Name each circle of parameters once, at the first of its members in the file."""
    told: set[frozenset[str]] = set()
    for name in space.parameters:
        circle = _circle_from(name, space.parameters)
        if circle and frozenset(circle) not in told:
            told.add(frozenset(circle))
            way = " needs ".join([*circle, circle[0]])
            yield Finding(
                (*ROOT, name), f"parameters depend on each other in a circle: {way}. Break it at one of them."
            )


def _circle_from(start: str, parameters: Parameters) -> list[str]:
    """Find a shortest way from a parameter back to itself."""
    ways = [[start]]
    seen: set[str] = set()
    while ways:
        way = ways.pop(0)
        for other in dependencies(parameters[way[-1]]):
            if other == start:
                return way
            if other in parameters and other not in seen:
                seen.add(other)
                ways.append([*way, other])
    return []


def _existence_faults(space: Space) -> Iterator[Finding]:
    """Find parameters that no trial has, and derived values computed from one that is not always there with them."""
    assignments = list(itertools.islice(_assignments(space), _MOST_ASSIGNMENTS + 1))
    if len(assignments) > _MOST_ASSIGNMENTS:
        return
    exists: set[str] = set()
    lacking: dict[tuple[str, str], Mapping[str, Value]] = {}  # derived, used -> a case
    for known, active in assignments:
        exists |= set(active)
        for name, branch in active.items():
            if isinstance(branch, DerivedParameter):
                for used in expression_names(branch):
                    if used in space.parameters and used not in active:
                        lacking.setdefault((name, used), known)
    for (name, used), values in lacking.items():
        controls = sorted(controls_of({used: space.parameters[used]}))
        case = ", ".join(f"{control} is {show(values[control])}" for control in controls if control in values)
        message = f"{name} is computed from {used}, which does not exist{f' where {case}' if case else ''}."
        yield Finding((*ROOT, name), f"{message} Give {name} the same `when`.")
    for name, parameter in space.parameters.items():
        if name not in exists and not _waits_for_fixed(parameter, space):
            yield Finding((*ROOT, name), "no trial can have this parameter: its conditions are never met together.")


def _waits_for_fixed(parameter: Parameter, space: Space) -> bool:
    """Tell whether a fixed setting keeps a parameter out of this sweep: noted, not wrong; the study serves others."""
    return any(name in space.fixed for name in dependencies(parameter)) or any(
        _waits_for_fixed(space.parameters[name], space) for name in dependencies(parameter) if name in space.parameters
    )


def absent_parameters(space: Space) -> list[str]:
    """Name the parameters that this sweep's fixed settings keep out."""
    return [
        name
        for name, parameter in space.parameters.items()
        if not is_active({k: v for k, v in (parameter.when or {}).items() if k in space.fixed}, space.fixed)
        or (
            isinstance(parameter, BranchedParameter)
            and parameter.by in space.fixed
            and str(space.fixed[parameter.by]) not in parameter.branches
        )
    ]


def _assignments(space: Space) -> Iterator[tuple[dict[str, Value], dict[str, Branch]]]:
    """Yield each way to set the parameters that others depend on, with what then exists."""
    controls = controls_of(space.parameters)
    order = parameter_order(space.parameters)

    def walk(
        index: int, known: dict[str, Value], active: dict[str, Branch]
    ) -> Iterator[tuple[dict[str, Value], dict[str, Branch]]]:
        if index == len(order):
            yield known, active
            return
        name = order[index]
        branch = active_branch(space.parameters[name], known)
        if branch is None:
            yield from walk(index + 1, known, active)
            return
        active = {**active, name: branch}
        if name not in controls:
            yield from walk(index + 1, known, active)
            return
        for value in _telling_values(name, branch, space.parameters):
            yield from walk(index + 1, {**known, name: value}, active)

    yield from walk(0, dict(space.fixed), {})


def _telling_values(name: str, branch: Branch, parameters: Parameters) -> list[Value]:
    """List the values of a parameter that make a difference to others: its choices, or those that conditions name."""
    if isinstance(branch, CategoricalParameter):
        return list(branch.choices)
    named = [
        value
        for parameter in parameters.values()
        for _, part in [("", parameter), *_branches("", parameter)]
        for value in allowed_values((part.when or {}).get(name, ()))
        if contains(branch, value)
    ]
    if isinstance(branch, FloatParameter | IntParameter) and n_values(branch) == len(set(named)):
        return named
    return [*named, math.nan]  # nan equals nothing: it stands for all values that no condition names
