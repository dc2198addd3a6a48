"""What a search space means: in which order parameters are drawn, when they exist, where a sweep starts, how many
configurations there are. Pure functions of parameters that have passed the rules; knows nothing of Optuna.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterator, Mapping, Sequence
from decimal import Decimal

from finesweep.events import Configuration, Source, Value
from finesweep.spec.expressions import ExpressionError, parse_expression
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
from finesweep.spec.settings import Settings, default_of
from finesweep.spec.sweep import SweepSpec, TransformersSweep

MOST_PATTERNS = 100_000  # assignments of the parameters that others depend on, before counting is given up

# A head begins at random and alone must travel far: transformers' 5e-5 is meant for moving pre-trained weights. 1e-3 is
# Adam's own default (Kingma and Ba 2015) and what linear probes are commonly trained with.
HEAD_LEARNING_RATE = 1e-3
# Adapters begin at nothing and take larger steps than pre-trained weights do (Dettmers et al. 2023, table 9).
LORA_LEARNING_RATE = 2e-4


_LEARNING_RATES = {"feature-extraction": HEAD_LEARNING_RATE, "lora": LORA_LEARNING_RATE}


def parameter_order(parameters: Parameters) -> tuple[str, ...]:
    """Order names so that each comes after those it depends on, otherwise as in the file."""
    ordered: dict[str, None] = {}
    waiting: list[str] = []  # a cycle, which the rules refuse, ends here instead of in endless recursion

    def place(name: str) -> None:
        if name in ordered or name in waiting:
            return
        waiting.append(name)
        for other in dependencies(parameters[name]):
            if other in parameters:
                place(other)
        waiting.pop()
        ordered[name] = None

    for name in parameters:
        place(name)
    return tuple(ordered)


def dependencies(parameter: Parameter) -> tuple[str, ...]:
    """Name what a parameter's existence, branch or value depends on."""
    names = list(parameter.when or ())
    if isinstance(parameter, BranchedParameter):
        names.append(parameter.by)
        for branch in parameter.branches.values():
            names.extend(dependencies(branch))
    elif isinstance(parameter, DerivedParameter):
        names.extend(expression_names(parameter))
    return tuple(dict.fromkeys(names))


def expression_names(parameter: DerivedParameter) -> tuple[str, ...]:
    """Name what a derived value is computed from; nothing for a constant or an expression that does not parse."""
    if not isinstance(parameter.value, str):
        return ()
    try:
        return tuple(sorted(parse_expression(parameter.value).names))
    except ExpressionError:
        return ()


def is_active(when: Condition | None, configuration: Configuration) -> bool:
    """Tell whether a condition holds; a name that the configuration lacks meets none."""
    return all(
        name in configuration and any(same(configuration[name], value) for value in allowed_values(allowed))
        for name, allowed in (when or {}).items()
    )


def allowed_values(allowed: Value | tuple[Value, ...]) -> tuple[Value, ...]:
    return allowed if isinstance(allowed, tuple) else (allowed,)


def active_branch(parameter: Parameter, configuration: Configuration) -> Branch | None:
    """Return the range or derivation that holds under a configuration; None where the parameter does not exist."""
    if not is_active(parameter.when, configuration):
        return None
    if not isinstance(parameter, BranchedParameter):
        return parameter
    if parameter.by not in configuration:
        return None
    branch = parameter.branches.get(str(configuration[parameter.by]))
    return branch if branch is not None and is_active(branch.when, configuration) else None


def same(one: Value, other: Value) -> bool:
    """Compare values as a file means them: true is not 1."""
    return isinstance(one, bool) == isinstance(other, bool) and one == other


def contains(parameter: Branch, value: Value) -> bool:
    """Tell whether a value can be drawn; of a derived value only a constant can be told."""
    match parameter:
        case CategoricalParameter():
            return any(same(value, choice) for choice in parameter.choices)
        case DerivedParameter():
            return isinstance(parameter.value, str) or same(value, parameter.value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not parameter.low <= value <= parameter.high:
        return False
    if isinstance(parameter, IntParameter) and value != int(value):
        return False
    if parameter.step is None:
        return True
    steps = (value - parameter.low) / parameter.step
    return math.isclose(steps, round(steps), rel_tol=1e-9, abs_tol=1e-9)


def n_values(parameter: Range) -> int | None:
    """Count a range's values; None for a continuous one."""
    match parameter:
        case CategoricalParameter():
            return len(parameter.choices)
        case FloatParameter(step=None):
            return None
        case FloatParameter() | IntParameter():
            low, high, step = (Decimal(str(number)) for number in (parameter.low, parameter.high, parameter.step))
            return int((high - low) // step) + 1


def values_of(parameter: Range) -> Sequence[Value]:
    """List a discrete range's values from low to high, choices in their order."""
    match parameter:
        case CategoricalParameter():
            return parameter.choices
        case IntParameter():
            return range(parameter.low, parameter.high + 1, parameter.step)
        case FloatParameter():
            assert parameter.step is not None, "a continuous parameter is not counted"
            low, step = Decimal(str(parameter.low)), Decimal(str(parameter.step))
            return [float(low + k * step) for k in range(n_values(parameter) or 0)]


def fixed_settings(training: Settings, searched: Container[str]) -> dict[str, Value]:
    """Return the settings that conditions, branches and expressions may refer to beside the parameters."""
    dumped = training.model_dump()
    return {
        name: value
        for name, value in dumped.items()
        if name not in searched and isinstance(value, str | int | float | bool | None)
    }


def starting_configurations(spec: SweepSpec) -> tuple[tuple[Source, Configuration], ...]:
    """Return what is tried before the sampler is asked: start_with in order, then a default for each method.

    A trainer of the user's own has no defaults that we knew of.

    A configuration may be partial: what it leaves out is drawn by the sampler. None occurs twice.
    """
    starts: list[tuple[Source, Configuration]] = [(Source.START_WITH, dict(entry)) for entry in spec.start_with]
    if spec.try_defaults and isinstance(spec, TransformersSweep):
        starts += [(Source.DEFAULT, defaults) for defaults in _default_configurations(spec)]
    distinct: list[tuple[Source, Configuration]] = []
    for source, configuration in starts:
        if configuration not in [earlier for _, earlier in distinct]:
            distinct.append((source, configuration))
    return tuple(distinct)


def _default_configurations(spec: TransformersSweep) -> Iterator[dict[str, Value]]:
    parameters = spec.study.parameters
    method = parameters.get("method")
    methods: Sequence[Value] = method.choices if isinstance(method, CategoricalParameter) else [spec.training.method]
    fixed = fixed_settings(spec.training, parameters)
    for choice in methods:
        configuration: dict[str, Value] = {}
        for name in parameter_order(parameters):
            branch = active_branch(parameters[name], {**fixed, **configuration})
            value = choice if name == "method" else _default(name, choice)
            if branch is None or isinstance(branch, DerivedParameter) or value is None:
                continue
            if contains(branch, value):
                configuration[name] = int(value) if isinstance(branch, IntParameter) else value
        if configuration:
            yield {name: configuration[name] for name in parameters if name in configuration}


def default_configuration(spec: TransformersSweep, method: Value) -> dict[str, Value]:
    """Give the library's default configuration for a method, whole: also where a default lies outside its range."""
    parameters = spec.study.parameters
    known = fixed_settings(spec.training, parameters)
    configuration: dict[str, Value] = {}
    for name in parameter_order(parameters):
        branch = active_branch(parameters[name], {**known, **configuration})
        if isinstance(branch, DerivedParameter):
            configuration[name] = _derived(branch, {**known, **configuration})
        elif branch is not None:
            configuration[name] = method if name == "method" else _spelled(_default(name, method), branch)
    return {name: configuration[name] for name in parameters if name in configuration}


def _spelled(value: Value, parameter: Range) -> Value:
    """Write a value as a parameter would: 3 for 3.0 where it is a whole number, a choice as it stands in the file."""
    match parameter:
        case CategoricalParameter(choices=choices):
            return next((choice for choice in choices if same(choice, value)), value)
        case IntParameter() if isinstance(value, float) and value.is_integer():
            return int(value)
        case FloatParameter() if isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        case _:
            return value


def _default(name: str, method: Value) -> Value:
    if name == "learning_rate" and method in _LEARNING_RATES:
        return _LEARNING_RATES[str(method)]
    value: Value = default_of(name)
    return value


def space_size(parameters: Parameters, *, fixed: Configuration | None = None) -> int | None:
    """Count the distinct configurations; None if a continuous parameter makes them endless, or they are too many to
    count (more than MOST_PATTERNS assignments of the parameters that others depend on).
    """
    total = 0
    for n_patterns, pattern in enumerate(_patterns(parameters, fixed or {}, controls_of(parameters))):
        if pattern is None or n_patterns >= MOST_PATTERNS:
            return None
        total += pattern[1]
    return total


def controls_of(parameters: Parameters) -> frozenset[str]:
    """Name the parameters on which the existence or branch of others depends."""
    names: set[str] = set()
    for parameter in parameters.values():
        names |= set(parameter.when or ())
        if isinstance(parameter, BranchedParameter):
            names.add(parameter.by)
            for branch in parameter.branches.values():
                names |= set(branch.when or ())
    for name in reversed(parameter_order(parameters)):  # what a derived one among them is computed from
        if name in names and isinstance(parameters[name], DerivedParameter):
            names |= set(dependencies(parameters[name]))
    return frozenset(names)


def _patterns(
    parameters: Parameters, fixed: Configuration, controls: frozenset[str]
) -> Iterator[tuple[Configuration, int] | None]:
    """Yield each assignment of the controls with the number of configurations that share it; None: cannot count."""
    order = parameter_order(parameters)

    def walk(index: int, known: dict[str, Value], count: int) -> Iterator[tuple[Configuration, int] | None]:
        while index < len(order):
            name = order[index]
            index += 1
            branch = active_branch(parameters[name], known)
            if branch is None:
                continue
            if isinstance(branch, DerivedParameter):
                known = {**known, name: _derived(branch, known)} if name in controls else known
                continue
            size = n_values(branch)
            if size is None or (name in controls and size > MOST_PATTERNS):
                yield None
                return
            if name not in controls:
                count *= size
                continue
            for value in values_of(branch):
                yield from walk(index, {**known, name: value}, count)
            return
        yield known, count

    return walk(0, dict(fixed), 1)


def _derived(branch: DerivedParameter, known: Mapping[str, Value]) -> Value:
    try:
        return parse_expression(branch.value).evaluate(known) if isinstance(branch.value, str) else branch.value
    except ExpressionError:
        return None
