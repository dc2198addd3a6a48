"""Whatever stands in the files, the end is a spec or a SpecError."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finesweep.errors import SpecError
from finesweep.spec.expressions import ExpressionError, parse_expression
from finesweep.spec.files import load_sweep
from finesweep.spec.parameters import DerivedParameter
from finesweep.spec.space import contains, n_values, parameter_order, space_size, starting_configurations, values_of
from finesweep.spec.sweep import SweepSpec, read_sweep
from finesweep.spec.yaml_tree import read_text

if TYPE_CHECKING:
    from conftest import Files

RELAXED = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
WORDS = [
    "name",
    "study",
    "model",
    "task",
    "data",
    "training",
    "start_with",
    "budget",
    "resources",
    "parameters",
    "method",
    "learning_rate",
    "batch_size",
    "type",
    "low",
    "high",
    "log",
    "step",
    "choices",
    "when",
    "by",
    "value",
    "full",
    "branches",
    "float",
    "int",
    "categorical",
    "tpe",
    "asha",
    "patient",
    "then",
    "objective",
    "sampler",
    "pruner",
    "trials",
    "devices",
]
SCALARS = st.one_of(
    st.sampled_from(WORDS),
    st.sampled_from(["2 * batch_size", "5e-6", "~x/y", "a\0b", "package:", "sqlite://", "./", ""]),
    st.text(max_size=12),
    st.integers(),
    st.floats(),
    st.booleans(),
    st.none(),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(st.sampled_from(WORDS), SCALARS.filter(lambda key: key == key)), inner, max_size=5),
    ),
    max_leaves=20,
)


def ends_well(files: Files, *overrides: str) -> SweepSpec | None:
    """Load; a spec must survive storage and serve every question that the other rooms ask of it."""
    try:
        spec = load_sweep(files.sweep_path, overrides=overrides)
    except SpecError as error:
        assert error.faults
        assert all(str(fault) and fault.message for fault in error.faults)
        return None
    assert read_sweep(json.loads(spec.model_dump_json())) == spec
    assert set(parameter_order(spec.study.parameters)) == set(spec.study.parameters)
    space_size(spec.study.parameters)
    starting_configurations(spec)
    return spec


def mangle(data: st.DataObject, text: str) -> str:
    """Replace one node of a YAML text by something else, drop it, or give it another name."""
    tree: Any = yaml.safe_load(text)
    here, steps = tree, data.draw(st.integers(1, 5))
    for _ in range(steps):
        keys = list(here) if isinstance(here, dict) else list(range(len(here)))
        if not keys:
            break
        key = data.draw(st.sampled_from(keys))
        if isinstance(here[key], dict | list) and data.draw(st.booleans()):
            here = here[key]
            continue
        match data.draw(st.sampled_from(["replace", "drop", "rename", "add"])):
            case "replace":
                here[key] = data.draw(VALUES)
            case "drop":
                del here[key]
            case "rename" if isinstance(here, dict):
                here[data.draw(st.sampled_from(WORDS))] = here.pop(key)
            case "add" if isinstance(here, dict):
                here[data.draw(st.sampled_from(WORDS))] = data.draw(VALUES)
        break
    return yaml.safe_dump(tree, allow_unicode=True)


@RELAXED
@given(value=st.dictionaries(st.sampled_from(WORDS), VALUES, max_size=8))
def test_any_values(shared_files: Files, value: Any) -> None:
    shared_files.study_path.write_text(shared_files.right_study, encoding="utf-8")
    shared_files.sweep_path.write_text(yaml.safe_dump(value), encoding="utf-8")
    ends_well(shared_files)


@RELAXED
@given(data=st.data())
def test_mangled_files(shared_files: Files, data: st.DataObject) -> None:
    shared_files.study_path.write_text(mangle(data, shared_files.right_study), encoding="utf-8")
    shared_files.sweep_path.write_text(mangle(data, shared_files.right_sweep), encoding="utf-8")
    ends_well(shared_files)


@RELAXED
@given(content=st.one_of(st.binary(max_size=200), st.text(alphabet="{}[]&*!:-#\"'\n ab1,%@|>\\?\t", max_size=80)))
def test_any_bytes(shared_files: Files, content: bytes | str) -> None:
    shared_files.study_path.write_text(shared_files.right_study, encoding="utf-8")
    shared_files.sweep_path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert ends_well(shared_files) is None


@RELAXED
@given(
    key=st.lists(st.one_of(st.sampled_from([*WORDS, "0", "-1", "99"]), st.text(max_size=5)), min_size=1, max_size=4),
    value=st.one_of(st.text(max_size=20), st.sampled_from(["{}", "[]", "null", "&a [*a]", "1e999"])),
)
def test_any_override(shared_files: Files, key: list[str], value: str) -> None:
    shared_files.study_path.write_text(shared_files.right_study, encoding="utf-8")
    shared_files.sweep_path.write_text(shared_files.right_sweep, encoding="utf-8")
    ends_well(shared_files, f"{'.'.join(key)}={value}")


@RELAXED
@given(kind=st.sampled_from(["float", "int"]), low=SCALARS, high=SCALARS, step=SCALARS, log=st.booleans())
def test_any_range(shared_files: Files, kind: str, low: Any, high: Any, step: Any, log: bool) -> None:
    parameter = {"type": kind, "low": low, "high": high, "log": log, **({} if step is None else {"step": step})}
    study = yaml.safe_load(shared_files.right_study) | {
        "parameters": {"weight_decay": parameter, "adam_beta2": parameter}
    }
    shared_files.study_path.write_text(yaml.safe_dump(study), encoding="utf-8")
    shared_files.sweep_path.write_text(
        shared_files.right_sweep.partition("start_with")[0] + "budget: {trials: 3}\n", encoding="utf-8"
    )
    spec = ends_well(shared_files)
    if spec is None:
        return
    for read in spec.study.parameters.values():
        assert not isinstance(read, DerivedParameter)
        assert contains(read, read.low)  # type: ignore[union-attr]
        assert contains(read, read.high)  # type: ignore[union-attr]
        size = n_values(read)  # type: ignore[arg-type]
        if size is not None and size < 10_000:
            drawn = values_of(read)  # type: ignore[arg-type]
            assert len(drawn) == size
            assert all(contains(read, value) for value in drawn)


@RELAXED
@given(text=st.text(alphabet="0123456789+-*/%().,<>=! abxinmfelsor'e_[]", max_size=40))
def test_any_expression(text: str) -> None:
    try:
        value = parse_expression(text).evaluate({"a": 3, "b": 0.5, "x": "lora"})
    except ExpressionError as error:
        assert str(error)
    else:
        assert value is None or isinstance(value, str | bool) or math.isfinite(value)


@pytest.mark.parametrize("depth", [10, 39, 41, 1000, 100_000])
@pytest.mark.parametrize("bracket", ["[", "{a: ", "- ", "? "])
def test_deep_nesting(depth: int, bracket: str) -> None:
    closing = {"[": "]", "{a: ": "}"}.get(bracket, "")
    tree = read_text("a:\n  " + bracket * depth + "1" + closing * depth, shown_as="f")
    assert tree.faults or depth < 40
