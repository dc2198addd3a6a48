"""Rules between the parameters of a study: conditions, branches, derived values, circles, what exists with what.

In: the parameters that could be read, and the fixed settings. Out: findings. Knows nothing of files.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import get_args

from finesweep.events import Value
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
)
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
    same,
)
from finesweep.spec.space_rules import ROOT, Space, branches_of, setting_value_faults
from finesweep.spec.sweep import Method, TrainingSpec

_MOST_ASSIGNMENTS = 10_000  # of the parameters that others depend on, when it is checked what exists with what


def reference_faults(space: Space) -> Iterator[Finding]:
    for name, parameter in space.parameters.items():
        yield from _condition_faults((*ROOT, name), parameter.when, space)
        if isinstance(parameter, BranchedParameter):
            yield from _branching_faults((*ROOT, name), parameter, space)
        for path, branch in branches_of(name, parameter):
            if isinstance(parameter, BranchedParameter):
                yield from _condition_faults(path, branch.when, space)
            if isinstance(branch, DerivedParameter):
                for used in expression_names(branch):
                    if used not in space.fixed and used not in space.names:
                        message = unknown("the expression's name", used, (*space.names, "method"))
                        yield Finding((*path, "value"), f"{message} Text needs quotes of its own.")


def _condition_faults(at: KeyPath, when: Condition | None, space: Space) -> Iterator[Finding]:
    for name, allowed in (when or {}).items():
        here = (*at, "when", name)
        if name in space.unread:
            continue
        if name not in space.parameters and name not in space.fixed:
            yield Finding(here, unknown("parameter", name, (*space.names, "method")))
            continue
        if allowed == ():
            yield Finding(here, "an empty list of values is never met. Name at least one.")
        for value in allowed_values(allowed):
            if name not in space.parameters:
                yield from setting_value_faults(here, name, value, space.settings)
            elif not can_take(space.parameters[name], value):
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
    elif by == "method" and space.settings is TrainingSpec:  # fixed in this sweep; the study may serve others
        keys = [*get_args(Method)]
        rule = "method"
    elif by in space.fixed and space.settings is not TrainingSpec:  # only its trainer knows what it can be
        return
    else:
        yield Finding((*at, "by"), unknown("parameter", by, (*space.names, "method")))
        return
    for branch in parameter.branches:
        if branch not in keys:
            yield Finding((*at, branch), unknown("branch", branch, keys, verb=f"is no {rule}"))


def can_take(parameter: Parameter, value: Value) -> bool:
    """Tell whether a parameter can have a value in some trial."""
    branches = parameter.branches.values() if isinstance(parameter, BranchedParameter) else [parameter]
    return any(contains(branch, value) for branch in branches)


def _takes(parameter: Parameter) -> str:
    return describe_range(parameter) if isinstance(parameter, Range) else "Name a value that it can have."


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


def cycle_faults(space: Space) -> Iterator[Finding]:
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


def existence_faults(space: Space) -> Iterator[Finding]:
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
        controls = [control for control in sorted(controls_of({used: space.parameters[used]})) if control in values]
        told = [control for control in controls if same(values[control], values[control])]  # not the nan for "others"
        case = (
            f"where {', '.join(f'{control} is {show(values[control])}' for control in told)}"
            if told
            else "in some trials"
        )
        message = f"{name} is computed from {used}, which does not exist {case}."
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
        for _, part in [("", parameter), *branches_of("", parameter)]
        for value in allowed_values((part.when or {}).get(name, ()))
        if contains(branch, value)
    ]
    if isinstance(branch, FloatParameter | IntParameter) and n_values(branch) == len(set(named)):
        return named
    return [*named, math.nan]  # nan equals nothing: it stands for all values that no condition names
