"""The study's parameters in Optuna's terms: drawn in order of dependence, branches under names of their own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal

from optuna.trial import Trial

from finesweep.events import Configuration, Value
from finesweep.spec.expressions import evaluate_value
from finesweep.spec.parameters import (
    BranchedParameter,
    CategoricalParameter,
    DerivedParameter,
    FloatParameter,
    IntParameter,
    Parameters,
    Range,
)
from finesweep.spec.space import active_branch, parameter_order, same, space_size, values_of

# A finite space up to this size is searched for what is left once the sampler repeats itself.
MOST_LISTED = 100_000


def suggest_configuration(trial: Trial, parameters: Parameters, *, fixed: Configuration) -> dict[str, Value]:
    """Draw the active parameters in order of dependence and compute the derived ones.

    `fixed` holds the sweep's settings, on which conditions and branches may depend too. The result is in the order
    of the study file, under the names users know; Optuna stores a branch's parameter as "branch.name".
    """
    drawn: dict[str, Value] = {}
    for name in parameter_order(parameters):
        known = {**fixed, **drawn}
        branch = active_branch(parameters[name], known)
        if isinstance(branch, DerivedParameter):
            drawn[name] = evaluate_value(branch.value, known)
        elif branch is not None:
            drawn[name] = _suggest(trial, stored_name(name, parameters, known), branch)
    return {name: drawn[name] for name in parameters if name in drawn}


def stored_name(name: str, parameters: Parameters, known: Configuration) -> str:
    """Name a parameter as Optuna stores it, so that two branches' ranges are never mixed under one name."""
    parameter = parameters[name]
    return f"{known[parameter.by]}.{name}" if isinstance(parameter, BranchedParameter) else name


def stored_parameters(
    configuration: Configuration, parameters: Parameters, *, fixed: Configuration
) -> dict[str, Value]:
    """Name a (perhaps partial) configuration as Optuna stores it, without what is derived or does not exist."""
    known = {**fixed, **configuration}
    return {
        stored_name(name, parameters, known): value
        for name, value in configuration.items()
        if isinstance(active_branch(parameters[name], known), Range)
    }


def list_configurations(parameters: Parameters, *, fixed: Configuration) -> Iterator[Configuration] | None:
    """List the space's configurations; None if there are endlessly or too many."""
    size = space_size(parameters, fixed=fixed)
    if size is None or size > MOST_LISTED:
        return None
    return _walk(parameter_order(parameters), parameters, {}, fixed)


def grid_values(parameters: Parameters) -> Mapping[str, Sequence[Value]]:
    """List the values of each parameter of a discrete space without branches, for the grid sampler."""
    return {name: values_of(parameter) for name, parameter in parameters.items() if isinstance(parameter, Range)}


def _walk(
    names: Sequence[str], parameters: Parameters, drawn: Configuration, fixed: Configuration
) -> Iterator[Configuration]:
    if not names:
        yield {name: drawn[name] for name in parameters if name in drawn}
        return
    name, *rest = names
    known = {**fixed, **drawn}
    branch = active_branch(parameters[name], known)
    if branch is None:
        yield from _walk(rest, parameters, drawn, fixed)
    elif isinstance(branch, DerivedParameter):
        yield from _walk(rest, parameters, {**drawn, name: evaluate_value(branch.value, known)}, fixed)
    else:
        for value in values_of(branch):
            yield from _walk(rest, parameters, {**drawn, name: value}, fixed)


def _suggest(trial: Trial, name: str, parameter: Range) -> Value:
    """Draw a value, and spell it as the study does, so that equal configurations are found to be equal."""
    match parameter:
        case CategoricalParameter(choices=choices):
            drawn: Value = trial.suggest_categorical(name, choices)
            return next(choice for choice in choices if same(choice, drawn))  # 8 for the 8.0 of a start_with
        case IntParameter():
            return trial.suggest_int(name, parameter.low, parameter.high, step=parameter.step, log=parameter.log)
        case FloatParameter():
            value = trial.suggest_float(name, parameter.low, parameter.high, step=parameter.step, log=parameter.log)
            return float(value) if parameter.step is None else _on_step(value, parameter.low, parameter.step)


def _on_step(value: float, low: float, step: float) -> float:
    """Give 0.3 for the 0.1 + 2 * 0.1 that Optuna adds up to 0.30000000000000004."""
    return float(Decimal(str(low)) + round((value - low) / step) * Decimal(str(step)))
