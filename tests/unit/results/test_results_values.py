from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finesweep.errors import ResultsError
from finesweep.results.values import from_json, metrics_from_json, metrics_to_json, plain_text, to_json

words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | words
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(words, inner), max_leaves=20)


@given(values)
def test_json_values_come_back_as_they_were(value: Any) -> None:
    assert from_json(to_json(value)) == value


def test_the_word_nan_and_the_number_stay_apart() -> None:
    restored = from_json(to_json({"word": "nan", "number": math.nan, "low": -math.inf}))
    assert restored["word"] == "nan"
    assert math.isnan(restored["number"])
    assert restored["low"] == -math.inf


def test_metrics_keep_what_is_not_finite_as_strings() -> None:
    text = metrics_to_json({"a": math.nan, "b": math.inf, "c": -math.inf, "d": 0.1})
    assert json.loads(text) == {"a": "nan", "b": "inf", "c": "-inf", "d": 0.1}
    restored = metrics_from_json(text)
    assert math.isnan(restored.pop("a"))
    assert restored == {"b": math.inf, "c": -math.inf, "d": 0.1}


def test_numbers_of_numpy_are_numbers() -> None:
    assert from_json(to_json({"a": np.float32(0.5), "b": np.int64(3)})) == {"a": 0.5, "b": 3}


def test_other_objects_are_refused_saying_where() -> None:
    with pytest.raises(ResultsError, match=r"value\.facts\[1\]: .* PosixPath, which JSON cannot hold"):
        to_json({"facts": [1, Path("/x")]})
    with pytest.raises(ResultsError, match=r"key 3 is a int; keys must be text"):
        to_json({"facts": {3: 1}})


def test_text_that_databases_refuse_is_spelled_out() -> None:
    assert plain_text("a\0b\ud800c") == "a\\x00b\\ud800c"
