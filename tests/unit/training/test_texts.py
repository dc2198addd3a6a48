"""Metrics of texts that a model wrote."""

from __future__ import annotations

import pytest
from rouge_score.rouge_scorer import RougeScorer

from finesweep.training.generation import exact_match, rouge


def test_a_match_is_exact_but_for_white_space_at_its_ends() -> None:
    assert exact_match([" a b\n", "a  b", "A b", "a b"], ["a b"] * 4) == 0.5


def test_rouge_by_hand() -> None:
    # three of four words, two of three pairs, and a common subsequence of three
    scores = rouge(["the cat sat down"], ["The cat sat, there."])
    assert scores == pytest.approx({"rouge1": 3 / 4, "rouge2": 2 / 3, "rougeL": 3 / 4})


def test_rouge_is_the_mean_over_rows_and_nothing_where_nothing_was_written() -> None:
    assert rouge(["a b", ""], ["a b", "a b"]) == {"rouge1": 0.5, "rouge2": 0.5, "rougeL": 0.5}


def test_rouge_is_the_librarys_own_for_the_letters_it_knows() -> None:
    output, reference = "Heart-attack: 2 days of it, don't run!", "heart attack, 3 days (of it); don't"
    expected = RougeScorer(["rouge1", "rouge2", "rougeL"]).score(reference, output)
    assert rouge([output], [reference]) == pytest.approx({name: score.fmeasure for name, score in expected.items()})


@pytest.mark.parametrize("text", ["größere Übung", "сердечный приступ", "καρδιακή προσβολή"])
def test_words_of_other_scripts_are_words(text: str) -> None:
    assert rouge([text], [text])["rouge2"] == 1.0
