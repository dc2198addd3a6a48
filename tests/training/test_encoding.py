"""How rows become tokens, and tokens batches."""

from __future__ import annotations

from typing import Any

import datasets
import pytest
import torch
from bpe import make_tokenizer
from tokenizers.processors import TemplateProcessing

from finesweep.training.encoding import (
    IGNORED,
    collator,
    encode_completions,
    encode_labelled,
    row_lengths,
)


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


def test_pairs_keep_their_token_types_to_the_batch() -> None:
    rows: Any = [
        {"input_ids": [5, 6], "token_type_ids": [0, 1], "labels": 1},
        {"input_ids": [5], "token_type_ids": [1], "labels": 0},
    ]
    assert collator(9)(rows)["token_type_ids"].tolist() == [[0, 1], [1, 0]]
    assert "token_type_ids" not in collator(9)([{"input_ids": [5], "labels": 0}])


@pytest.mark.parametrize(
    ("labels", "dtype"),
    [([0.5, -100.0], torch.float32), ([[1.0, 0.0], [0.0, 0.0]], torch.float32), ([1, 0], torch.int64)],
)
def test_labels_of_rows_have_the_type_their_loss_wants(labels: list[Any], dtype: torch.dtype) -> None:
    batch = collator(0)([{"input_ids": [1, 2], "labels": label} for label in labels])
    assert batch["labels"].tolist() == labels
    assert batch["labels"].dtype == dtype


@pytest.fixture(scope="module")
def bert_like() -> Any:
    tokenizer = make_tokenizer(cls_token="a", sep_token="b", model_input_names=["input_ids", "token_type_ids"])
    special = [(token, tokenizer.convert_tokens_to_ids(token)) for token in "ab"]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="a $A b", pair="a $A b $B:1 b:1", special_tokens=special
    )
    return tokenizer


def test_texts_and_pairs(bert_like: Any) -> None:
    texts, pairs = ["hello there", "you"], ["I am well", "the user " * 20]
    alone = encode_labelled(bert_like, texts, None, [0.5, 1.5], max_length=64)
    assert alone.table.column_names == ["input_ids", "labels"]
    assert alone.table["input_ids"].to_pylist() == [bert_like(text)["input_ids"] for text in texts]
    both = encode_labelled(bert_like, texts, pairs, [[0.0, 1.0], [1.0, 1.0]], max_length=16)
    first, second = both.table.to_pylist()
    assert first["labels"] == [0.0, 1.0]
    assert first["token_type_ids"] == bert_like("hello there", "I am well")["token_type_ids"]
    assert 1 in first["token_type_ids"]
    assert len(second["input_ids"]) == len(second["token_type_ids"]) == 16
    assert both.n_cut == 1


def test_a_row_of_just_the_length_is_not_counted_as_cut(bert_like: Any) -> None:
    n = len(bert_like("hello there")["input_ids"])
    assert encode_labelled(bert_like, ["hello there"], None, [0], max_length=n).n_cut == 0
    assert encode_labelled(bert_like, ["hello there"], None, [0], max_length=n - 1).n_cut == 1


def test_completions_end_once_though_the_tokenizer_ends_every_text() -> None:
    tokenizer = make_tokenizer()
    end = tokenizer.eos_token_id
    plain = encode_completions(tokenizer, ["hello"], [" there"], max_length=64).table.to_pylist()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="$A <|im_end|>", special_tokens=[("<|im_end|>", end)]
    )
    assert encode_completions(tokenizer, ["hello"], [" there"], max_length=64).table.to_pylist() == plain
    ids = plain[0]["input_ids"]
    assert ids.count(end) == 1 and ids[-1] == end


def test_completions_are_cut_or_left_out() -> None:
    tokenizer = make_tokenizer()
    n = len(tokenizer("hello there")["input_ids"])
    encoded = encode_completions(tokenizer, ["hello there"] * 2, [" you", " you and me " * 9], max_length=n + 2)
    assert (len(encoded.table), encoded.n_cut, encoded.n_left_out) == (2, 1, 0)
    encoded = encode_completions(tokenizer, ["hello there", "I"], [" you"] * 2, max_length=n)
    assert (len(encoded.table), encoded.n_left_out) == (1, 1)


def test_lengths_are_told_without_reading_the_tokens() -> None:
    rows = datasets.Dataset.from_dict({"input_ids": [[1, 2, 3], [4]], "labels": [0, 1]})
    assert row_lengths(rows) == [3, 1]
    assert row_lengths(rows.select([1, 0])) == [1, 3]
