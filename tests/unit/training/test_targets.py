"""Classes are held to each other over the splits."""

from __future__ import annotations

from typing import Any

import pytest

from finesweep.errors import DataError
from finesweep.training.rows import Rows
from finesweep.training.targets import classes, targets

MULTI = "multi-label-classification"


def rows(split: str, labels: list[Any], **options: Any) -> Rows:
    return Rows(f"data.{split}: {split[0]}.jsonl", {"label": labels}, range(1, len(labels) + 1), **options)


def found(train: list[Any], validation: list[Any], *, task: Any = "classification", **options: Any) -> list[Any]:
    splits = {"train": rows("train", train, **options), "validation": rows("validation", validation)}
    return classes(splits, column="label", task=task)


def test_classes_are_in_order() -> None:
    assert found(["b", "a", "b"], ["a"]) == ["a", "b"]
    assert found([10, 9, 2], [9]) == [2, 9, 10]
    assert found([("b", "a"), ()], [("b",)], task=MULTI) == ["a", "b"]
    assert found([0.5, 1.5], [7.0], task="regression") == []


def test_the_data_sets_own_order_of_classes_is_kept_for_those_there_are() -> None:
    assert found(["fair", "poor"], ["poor"], class_names=("poor", "good", "fair")) == ["poor", "fair"]


def test_targets_are_numbers_or_marks() -> None:
    assert targets(rows("train", ["b", "a"]), ["a", "b"], task="classification") == [1, 0]
    assert targets(rows("train", [("b", "a"), (), ("b",)]), ["a", "b"], task=MULTI) == [
        [1.0, 1.0],
        [0.0, 0.0],
        [0.0, 1.0],
    ]
    assert targets(rows("train", [0.5, 2.0]), [], task="regression") == [0.5, 2.0]


@pytest.mark.parametrize(
    ("task", "train", "validation", "message"),
    [
        (
            "classification",
            ["a", "b"],
            ["a", "c"],
            r"data\.validation: v\.jsonl, row 2, column \"label\": the class 'c' is in no training row",
        ),
        (
            MULTI,
            [("a",), ("b",)],
            [("a", "c")],
            r"v\.jsonl, row 1, column \"label\": the class 'c' is in no training row",
        ),
        (
            "classification",
            ["a", "a"],
            ["a"],
            r"data\.train: t\.jsonl, column \"label\" has one class only \('a'\)",
        ),
        (MULTI, [("a", "b"), ("b", "a")], [("a",)], r"every row has the same labels \(\('a', 'b'\)\)"),
        (MULTI, [(), ()], [()], r"every row has the same labels \(\(\)\)"),
        ("classification", ["1", "2"], [1], r"text in some rows and whole numbers in others \(t\.jsonl, v\.jsonl\)"),
        ("regression", [2.0, 2.0], [1.0], r'data\.train: t\.jsonl, column "label": every row has the number 2\.'),
    ],
)
def test_faults_of_targets(task: Any, train: list[Any], validation: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        found(train, validation, task=task)
