"""Packed text: no token is lost, none is learnt twice."""

from __future__ import annotations

from typing import Any

import pytest
from bpe import TEXT, make_tokenizer
from hypothesis import given
from hypothesis import strategies as st

from finesweep.training.encoding import IGNORED, Encoded
from finesweep.training.packing import pack

TOKENIZER = make_tokenizer()
END = TOKENIZER.eos_token_id


def stream(texts: list[str]) -> list[int]:
    return [token for text in texts for token in (*TOKENIZER(text)["input_ids"], END)]


def blocks(packed: Encoded) -> list[dict[str, list[int]]]:
    rows: list[dict[str, list[int]]] = packed.table.to_pylist()
    return rows


@given(st.lists(st.text(alphabet="ab é\n🦊", min_size=1, max_size=60), min_size=1, max_size=8), st.integers(8, 40))
def test_every_token_of_the_texts_is_learnt_once(texts: list[str], max_length: int) -> None:
    made = blocks(pack(TOKENIZER, texts, max_length=max_length))
    tokens = stream(texts)
    assert [token for block in made for token in block["labels"] if token != IGNORED] == tokens
    before = [END, *tokens]
    for block in made:
        assert block["labels"] == [IGNORED, *block["input_ids"][1:]]
        assert block["input_ids"] == before[: len(block["input_ids"])]  # what stood before it comes first
        before = before[len(block["input_ids"]) - 1 :]
    assert before == tokens[-1:]
    assert [len(block["input_ids"]) for block in made[:-1]] == [max_length] * (len(made) - 1)
    assert 2 <= len(made[-1]["input_ids"]) <= max_length


def test_line_breaks_are_kept() -> None:
    text = "one line\nanother\n\n  a third\n"
    made = blocks(pack(TOKENIZER, [text], max_length=8))
    assert TOKENIZER.decode([token for block in made for token in block["labels"][1:]]) == f"{text}<|im_end|>"


def test_a_limit_counts_blocks_and_stops_early() -> None:
    texts = TEXT * 2000
    whole = blocks(pack(TOKENIZER, texts, max_length=16))
    asked: list[int] = []

    def watch(some: list[str], **options: Any) -> Any:
        asked.append(len(some))
        return TOKENIZER(some, **options)

    watch.eos_token_id = END  # type: ignore[attr-defined]
    few = blocks(pack(watch, texts, max_length=16, most_blocks=3))
    assert few == whole[:3]
    assert asked == [1000]
    assert blocks(pack(TOKENIZER, texts, max_length=16, most_blocks=10**6)) == whole


def test_a_tokenizer_that_ends_texts_by_itself_does_so_once() -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer = make_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="$A <|im_end|>", special_tokens=[("<|im_end|>", END)]
    )
    assert tokenizer("hello")["input_ids"][-1] == END
    assert blocks(pack(tokenizer, ["hello", "there"], max_length=64)) == blocks(
        pack(TOKENIZER, ["hello", "there"], max_length=64)
    )


@pytest.mark.parametrize("max_length", [8, 9])
def test_a_block_that_just_fits_is_the_last(max_length: int) -> None:
    tokens = stream(["a" * 7])
    assert len(tokens) == 8
    made = blocks(pack(TOKENIZER, ["a" * 7], max_length=max_length))
    assert [len(block["input_ids"]) for block in made] == ([8, 2] if max_length == 8 else [9])
