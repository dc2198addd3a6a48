from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from pydantic import TypeAdapter

from finesweep.results.columns import json_rows, parameter_column, parameter_columns, typed_frame
from finesweep.spec.parameters import Parameter

PARAMETER: TypeAdapter[Any] = TypeAdapter(Parameter)


def parameter(**content: Any) -> Parameter:
    result: Parameter = PARAMETER.validate_python(content)
    return result


def choices(*values: Any) -> Parameter:
    return parameter(type="categorical", choices=list(values))


@pytest.mark.parametrize(
    ("given", "dtype"),
    [
        (parameter(type="float", low=0.0, high=1.0), "float64"),
        (parameter(type="int", low=0, high=1), "Int64"),
        (choices(8, 16), "Int64"),
        (choices(8, 0.5), "float64"),
        (choices(True, False), "boolean"),
        (choices("a", None), "string"),
        (choices("a", 1), "object"),
        (choices(None), "object"),
        (parameter(value=3), "Int64"),
        (parameter(value=None), "object"),
        (parameter(value="2 * lora_rank"), "object"),
        (
            parameter(by="m", a={"type": "int", "low": 0, "high": 1}, b={"type": "float", "low": 0.0, "high": 1.0}),
            "float64",
        ),
    ],
)
def test_a_parameters_type_follows_from_the_study(given: Parameter, dtype: str) -> None:
    assert parameter_columns([{"p": given}]) == {"p": dtype}


def test_studies_that_disagree_widen_the_type() -> None:
    both = parameter_columns([{"p": choices(1), "q": choices("a")}, {"p": choices(0.5), "q": choices(1)}])
    assert both == {"p": "float64", "q": "object"}


def test_a_parameter_called_like_a_fixed_column_gets_its_own() -> None:
    assert parameter_column("reason") == "configuration.reason"
    assert parameter_column("learning_rate") == "learning_rate"


def test_rows_are_json_values() -> None:
    frame = typed_frame(
        {"n": "Int64", "x": "float64", "t": "string", "at": "datetime64[ns, UTC]", "any": "object", "b": "boolean"},
        [
            (1, 0.5, "a", 0.0, {"k": 1}, True),
            (None, None, None, None, None, None),
            (2, float("inf"), "", 1.5, 3, False),
        ],
    )
    assert json_rows(frame) == (
        {"n": 1, "x": 0.5, "t": "a", "at": "1970-01-01T00:00:00+00:00", "any": {"k": 1}, "b": True},
        dict.fromkeys(["n", "x", "t", "at", "any", "b"]),
        {"n": 2, "x": "inf", "t": "", "at": "1970-01-01T00:00:01+00:00", "any": 3, "b": False},
    )
    assert all(type(row["n"]) is int for row in (json_rows(frame)[0], json_rows(frame)[2]))
    assert json_rows(pd.DataFrame({"a": []})) == ()
