"""Choosing rows and columns of a table of trials."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import pytest

from finesweep.errors import ResultsError
from finesweep.results.columns import METRIC_PREFIX, OBJECTIVE_PREFIX
from finesweep.views.selection import Selection

TRIALS = pd.DataFrame(
    {
        "number": pd.Series([0, 1, 2, 3], dtype="Int64"),
        "state": pd.Series(["COMPLETE", "PRUNED", "COMPLETE", "FAILED"], dtype="string"),
        "value": [0.9, None, 0.8, None],
        "learning_rate": [1e-3, 1e-4, 1e-5, 1e-4],
        "method": ["lora", None, "full", "full"],
        f"{OBJECTIVE_PREFIX}size": [3.0, None, 1.0, None],
        f"{METRIC_PREFIX}f1": [0.7, 0.1, 0.6, None],
    }
)


def numbers(selection: Selection) -> list[int]:
    return list(selection.rows_of(TRIALS, metric="accuracy")["number"])


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("learning_rate < 5e-4 and state == 'PRUNED'", [1]),
        ("learning_rate < 5e-4 or value > 0.85", [0, 2]),  # where `value` is missing, nothing holds
        ("0.5 <= value < 0.85", [2]),
        ("accuracy > 0.85", [0]),
        ("size == 1", [2]),
        ("f1 > 0.5", [0, 2]),
        ("not state == 'FAILED'", [0, 1, 2]),
        ("method == 'full'", [2, 3]),
        ("number % 2 == 1", [1, 3]),
        ("True", [0, 1, 2, 3]),
        ("1 > 2", []),
    ],
)
def test_a_condition_chooses_trials(where: str, expected: Sequence[int]) -> None:
    assert numbers(Selection(where=where)) == expected


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("lerning_rate < 1", r'column "lerning_rate" is unknown; did you mean "learning_rate"'),
        ("learning_rate <", "is not an expression"),
        ("__import__('os').system('true')", "only these functions can be called"),
        ("state.lower() == 'x'", "only these functions can be called"),
        ("state > 3", "--where: .*has no value"),
        ("learning_rate / 0 > 1", "--where: .*divides by zero"),
        ("[number for number in state]", "is not allowed"),
    ],
)
def test_what_is_no_condition_is_refused_and_never_run(where: str, said: str) -> None:
    with pytest.raises(ResultsError, match=said):
        numbers(Selection(where=where))


def test_rows_are_ordered_by_the_first_column_then_the_next_and_those_without_a_value_come_last() -> None:
    assert numbers(Selection(sort=["value"])) == [2, 0, 1, 3]
    assert numbers(Selection(sort=["-value"])) == [0, 2, 1, 3]
    assert numbers(Selection(sort=["learning_rate", "-number"])) == [2, 3, 1, 0]
    assert numbers(Selection(sort=["-accuracy"], top=1)) == [0]
    with pytest.raises(ResultsError, match="column"):
        numbers(Selection(sort=["-nothing"]))


def test_columns_are_named_as_a_user_names_them_and_come_in_that_order() -> None:
    chosen = Selection(columns=["size", "number", "accuracy", "f1"]).columns_of(TRIALS, metric="accuracy")
    assert chosen == [f"{OBJECTIVE_PREFIX}size", "number", "value", f"{METRIC_PREFIX}f1"]
    assert Selection().columns_of(TRIALS) == list(TRIALS.columns)


def test_a_parameter_of_the_metrics_name_is_the_parameter() -> None:
    frame = TRIALS.assign(accuracy=[1, 2, 3, 4])
    assert Selection(columns=["accuracy"]).columns_of(frame, metric="accuracy") == ["accuracy"]
