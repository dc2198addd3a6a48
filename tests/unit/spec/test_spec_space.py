"""Order, existence, starts and size of search spaces."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from pydantic import TypeAdapter

from finesweep.events import Source
from finesweep.spec.parameters import Parameter, Parameters
from finesweep.spec.space import (
    HEAD_LEARNING_RATE,
    active_branch,
    contains,
    is_active,
    n_values,
    parameter_order,
    space_size,
    starting_configurations,
    values_of,
)
from finesweep.spec.sweep import SweepSpec

ADAPTER: TypeAdapter[Any] = TypeAdapter(Parameter)
METHOD = {"type": "categorical", "choices": ["feature-extraction", "full"]}
CONTINUOUS = {"type": "float", "low": 0.0, "high": 1.0}
SMALL = {"type": "int", "low": 1, "high": 3}


def space(**parameters: Mapping[str, Any]) -> Parameters:
    return {name: ADAPTER.validate_python(parameter) for name, parameter in parameters.items()}


def test_order_follows_dependence_and_otherwise_the_file() -> None:
    parameters = space(
        d={"value": "2 * c"},
        b={"by": "a", "full": {"type": "int", "low": 0, "high": 1, "when": {"e": 1}}},
        c={**SMALL, "when": {"b": 1}},
        a=METHOD,
        e=SMALL,
    )
    assert parameter_order(parameters) == ("a", "e", "b", "c", "d")
    assert parameter_order(space(z=SMALL, y=SMALL)) == ("z", "y")
    assert set(parameter_order(space(x={"value": "y"}, y={"value": "x"}))) == {"x", "y"}


def test_conditions() -> None:
    assert is_active(None, {})
    assert is_active({"a": 1}, {"a": 1})
    assert is_active({"a": (1, 2), "b": "x"}, {"a": 2, "b": "x"})
    assert not is_active({"a": 1, "b": "x"}, {"a": 1, "b": "y"})
    assert not is_active({"a": 1}, {})
    assert not is_active({"a": 1}, {"a": True})
    assert is_active({"a": None}, {"a": None})


def test_the_branch_that_holds() -> None:
    parameter = space(x={"by": "a", "when": {"b": 1}, "8": SMALL, "True": {**SMALL, "when": {"c": 1}}})["x"]
    assert active_branch(parameter, {"a": 8, "b": 1}) == ADAPTER.validate_python(SMALL)
    assert active_branch(parameter, {"a": 8, "b": 2}) is None
    assert active_branch(parameter, {"b": 1}) is None
    assert active_branch(parameter, {"a": 9, "b": 1}) is None
    assert active_branch(parameter, {"a": True, "b": 1}) is None
    assert active_branch(parameter, {"a": True, "b": 1, "c": 1}) is not None


@pytest.mark.parametrize(
    ("parameter", "inside", "outside"),
    [
        (SMALL, [1, 3, 2.0], [0, 4, 1.5, True, "1", None]),
        ({**SMALL, "step": 2}, [1, 3], [2]),
        (CONTINUOUS, [0, 1, 0.123], [-0.1, 1.1, "x"]),
        ({**CONTINUOUS, "step": 0.1}, [0.3, 0.7, 1.0], [0.35]),
        ({"type": "categorical", "choices": [1, "a", None]}, [1, "a", None], [True, "b", 2]),
        ({"value": 3}, [3], [4]),
        ({"value": "2 * x"}, [4], []),
    ],
)
def test_what_a_range_contains(parameter: Mapping[str, Any], inside: list[Any], outside: list[Any]) -> None:
    (read,) = space(x=parameter).values()
    assert [value for value in inside if not contains(read, value)] == []
    assert [value for value in outside if contains(read, value)] == []


def test_values_of_discrete_ranges() -> None:
    parameters = space(
        a={"type": "float", "low": 0.1, "high": 0.7, "step": 0.2},
        b={"type": "int", "low": 2, "high": 8, "step": 3},
        c={"type": "categorical", "choices": ["x", "y"]},
        d=CONTINUOUS,
    )
    assert list(values_of(parameters["a"])) == [0.1, 0.3, 0.5, 0.7]
    assert list(values_of(parameters["b"])) == [2, 5, 8]
    assert list(values_of(parameters["c"])) == ["x", "y"]
    assert [n_values(parameter) for parameter in parameters.values()] == [4, 3, 2, None]


def test_the_size_of_a_space() -> None:
    assert space_size(space(a=SMALL, b=SMALL)) == 9
    assert space_size(space(a=SMALL, b=CONTINUOUS)) is None
    assert space_size(space(a=METHOD, b={**SMALL, "when": {"a": "full"}})) == 1 + 3
    assert space_size(space(a=METHOD, b={"by": "a", "full": SMALL, "feature-extraction": {"value": 1}}, c=SMALL)) == 12
    assert space_size(space(a=METHOD, b={**CONTINUOUS, "when": {"a": "full"}})) is None
    assert space_size(space(b={**CONTINUOUS, "when": {"a": "full"}}, c=SMALL), fixed={"a": "other"}) == 3
    assert space_size(space(b={**SMALL, "when": {"a": "full"}}, c=SMALL), fixed={"a": "full"}) == 9
    assert space_size(space(a={"type": "int", "low": 0, "high": 10**12})) == 10**12 + 1


def test_the_size_where_a_derived_value_decides() -> None:
    assert space_size(space(a=SMALL, d={"value": "2 * a"}, b={**SMALL, "when": {"d": 4}})) == 1 + 3 + 1
    assert space_size(space(a=SMALL, d={"value": 4}, b={**SMALL, "when": {"d": 4}})) == 9
    assert space_size(space(a=SMALL, d={"value": "1 / (a - 1)"}, b={**SMALL, "when": {"d": 1}})) == 1 + 3 + 1


def test_a_space_too_large_to_count() -> None:
    wide = {"type": "int", "low": 0, "high": 10**9}
    assert space_size(space(a=wide, b={**SMALL, "when": {"a": 3}})) is None
    thousand = {"type": "int", "low": 0, "high": 999}
    assert space_size(space(a=thousand, b=thousand, c={**SMALL, "when": {"a": 3, "b": 4}})) is None


# --- where a sweep starts ----------------------------------------------------------------------------------------


def sweep(make_spec: Callable[..., SweepSpec], parameters: Mapping[str, Any], **sections: Any) -> SweepSpec:
    study = {"objective": {"metric": "loss", "direction": "minimize"}, "parameters": parameters}
    return make_spec(study=study, **sections)


RATES = {
    "by": "method",
    "full": {"type": "float", "low": 1e-6, "high": 1e-4},
    "feature-extraction": {"type": "float", "low": 1e-4, "high": 1e-1},
}


def test_starts_are_those_given_then_a_default_for_each_method(make_spec: Callable[..., SweepSpec]) -> None:
    parameters = {"method": METHOD, "learning_rate": RATES, "batch_size": {"type": "categorical", "choices": [8, 16]}}
    starts = starting_configurations(sweep(make_spec, parameters, start_with=[{"method": "full", "batch_size": 16}]))
    assert starts == (
        (Source.START_WITH, {"method": "full", "batch_size": 16}),
        (
            Source.DEFAULT,
            {"method": "feature-extraction", "learning_rate": HEAD_LEARNING_RATE, "batch_size": 8},
        ),
        (Source.DEFAULT, {"method": "full", "learning_rate": 5e-5, "batch_size": 8}),
    )


def test_defaults_can_be_left_out(make_spec: Callable[..., SweepSpec]) -> None:
    assert starting_configurations(sweep(make_spec, {"epochs": SMALL}, try_defaults=False)) == ()


def test_a_default_outside_the_range_or_off_the_step_is_left_to_the_sampler(
    make_spec: Callable[..., SweepSpec],
) -> None:
    parameters = {
        "learning_rate": {"type": "float", "low": 1e-3, "high": 1e-1},
        "batch_size": {"type": "int", "low": 6, "high": 12, "step": 3},
        "epochs": {"type": "int", "low": 1, "high": 5, "step": 2},
        "warmup_steps": {"type": "int", "low": 0, "high": 10, "when": {"batch_size": 6}},
        "weight_decay": {"value": "0.01 * epochs"},
        "max_grad_norm": {"type": "float", "low": 0.5, "high": 2.0},
        "device_batch_size": SMALL,
    }
    assert starting_configurations(sweep(make_spec, parameters)) == (
        (Source.DEFAULT, {"epochs": 3, "max_grad_norm": 1.0}),
    )
    ((_, configuration),) = starting_configurations(sweep(make_spec, {"epochs": {"type": "int", "low": 1, "high": 5}}))
    assert isinstance(configuration["epochs"], int)


def test_a_space_without_any_default_starts_with_the_sampler(make_spec: Callable[..., SweepSpec]) -> None:
    parameters = {"learning_rate": {"type": "float", "low": 1e-3, "high": 1e-1}}
    assert starting_configurations(sweep(make_spec, parameters)) == ()


def test_a_fixed_method_chooses_branch_and_default(make_spec: Callable[..., SweepSpec]) -> None:
    spec = sweep(make_spec, {"learning_rate": RATES}, training={"method": "feature-extraction"})
    assert starting_configurations(spec) == ((Source.DEFAULT, {"learning_rate": HEAD_LEARNING_RATE}),)


def test_no_configuration_starts_twice(make_spec: Callable[..., SweepSpec]) -> None:
    parameters = {"batch_size": {"type": "categorical", "choices": [8, 16]}}
    starts = [{"batch_size": 8}, {"batch_size": 16}, {"batch_size": 8}]
    spec = sweep(make_spec, parameters, start_with=starts)
    assert [configuration["batch_size"] for _, configuration in starting_configurations(spec)] == [8, 16]
