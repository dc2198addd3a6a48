"""How rows become tokens, and tokens batches."""

from __future__ import annotations

from finesweep.training.encoding import IGNORED, collator


def test_the_mask_goes_by_length_even_where_padding_is_a_word() -> None:
    batch = collator(7)([{"input_ids": [7, 5, 7], "labels": [IGNORED, 5, 7]}, {"input_ids": [7], "labels": [7]}])
    assert batch["input_ids"].tolist() == [[7, 5, 7], [7, 7, 7]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["labels"].tolist() == [[IGNORED, 5, 7], [7, IGNORED, IGNORED]]


def test_classes_stay_one_a_row() -> None:
    batch = collator(0)([{"input_ids": [1, 2], "labels": 2}, {"input_ids": [3], "labels": 0}])
    assert batch["labels"].tolist() == [2, 0]


def test_numbers_of_rows_and_of_classes_are_no_numbers_of_tokens() -> None:
    batch = collator(0)([{"input_ids": [1, 2], "labels": 2.5}, {"input_ids": [3], "labels": -1.0}])
    assert batch["labels"].tolist() == [2.5, -1.0]
    batch = collator(0)([{"input_ids": [1, 2], "labels": [0.0, 1.0]}, {"input_ids": [3], "labels": [1.0, 1.0]}])
    assert batch["labels"].tolist() == [[0.0, 1.0], [1.0, 1.0]]
