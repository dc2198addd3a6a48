"""Shares and limits: disjoint, seeded, each class with its share."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finesweep.errors import DataError
from finesweep.training.rows import Rows
from finesweep.training.splits import limit, set_aside

MULTI = "multi-label-classification"


def rows(labels: list[Any]) -> Rows:
    columns = {"text": [f"t{i}" for i in range(len(labels))], "label": labels}
    return Rows("data.train: t.jsonl", columns, range(1, len(labels) + 1))


def numbers(parts: dict[str, Rows]) -> dict[str, list[int]]:
    return {split: list(part.numbers) for split, part in parts.items()}


@given(st.lists(st.floats(allow_nan=False), min_size=3), st.floats(0.01, 0.98), st.integers(0, 3), st.booleans())
def test_every_row_is_in_one_split(labels: list[float], share: float, seed: int, with_test: bool) -> None:
    shares = {"validation": share / 2, "test": share / 2} if with_test else {"validation": share}
    sizes = {split: round(part * len(labels)) for split, part in shares.items()}
    try:
        parts, notes = set_aside(rows(labels), shares, seed=seed, task="regression")
    except DataError:
        assert 0 in sizes.values() or sum(sizes.values()) == len(labels)
        return
    assert {split: len(parts[split]) for split in shares} == sizes
    assert notes == []
    assert sorted(number for part in parts.values() for number in part.numbers) == list(range(1, len(labels) + 1))
    for part in parts.values():
        assert list(part.numbers) == sorted(part.numbers)
        assert part.columns["text"] == [f"t{number - 1}" for number in part.numbers]


@given(
    st.lists(st.integers(3, 40), min_size=1, max_size=8),
    st.floats(0.05, 0.45),
    st.floats(0.05, 0.45),
    st.integers(0, 3),
)
def test_classes_keep_their_shares(sizes: list[int], validation: float, test: float, seed: int) -> None:
    labels = [f"c{i}" for i, size in enumerate(sizes) for _ in range(size)]
    shares = {"validation": validation, "test": test}
    wanted = [round(share * len(labels)) for share in shares.values()]
    if min(wanted) == 0 or sum(wanted) == len(labels):
        return  # refused, as the test above holds
    parts, _ = set_aside(rows(labels), shares, seed=seed, task="classification")
    counts = {split: Counter(part.columns["label"]) for split, part in parts.items()}
    for i, size in enumerate(sizes):
        for split, share in shares.items():
            n = counts[split][f"c{i}"]
            assert n >= 1
            assert abs(n - share * size) < 2
        assert counts["train"][f"c{i}"] >= 1


def test_the_seed_decides() -> None:
    labels = ["a", "b"] * 50
    chosen = [
        numbers(set_aside(rows(labels), {"validation": 0.2}, seed=s, task="classification")[0]) for s in (0, 0, 1)
    ]
    assert chosen[0] == chosen[1] != chosen[2]


def test_a_share_that_few_rows_of_a_class_make_larger_is_told() -> None:
    labels = [f"c{i % 20}" for i in range(40)]
    parts, notes = set_aside(rows(labels), {"validation": 0.1}, seed=0, task="classification")
    assert len(parts["validation"]) == 20
    assert notes == ["validation: 20 rows are 50.0% instead of 10.0%, because every class gives one at least"]


def test_a_class_of_one_row_cannot_be_in_two_splits() -> None:
    message = (
        r"data\.train: t\.jsonl: the class 'rare' has too few rows \(row 3\) to be in training and in what "
        r"data\.validation \(0\.5\) sets aside\. Give it more rows"
    )
    with pytest.raises(DataError, match=message):
        set_aside(rows(["a", "a", "rare", "a"]), {"validation": 0.5}, seed=0, task="classification")


def test_a_share_of_no_row() -> None:
    with pytest.raises(DataError, match=r"data\.test: a share of 0\.01 of the 20 rows of t\.jsonl rounds to no row\."):
        set_aside(rows([1.0] * 20), {"validation": 0.5, "test": 0.01}, seed=0, task="regression")


def test_shares_that_leave_nothing_to_train_on() -> None:
    message = r"nothing is left to train on of 3 rows\. Lower data\.validation \(0\.6\) and data\.test \(0\.3\)"
    with pytest.raises(DataError, match=message):
        set_aside(rows([1.0] * 3), {"validation": 0.6, "test": 0.3}, seed=0, task="regression")


@given(st.lists(st.frozensets(st.sampled_from("abcdef")), min_size=8, max_size=60), st.integers(0, 3))
def test_of_several_labels_the_rarest_is_in_training_where_it_can_be(labels: list[frozenset[str]], seed: int) -> None:
    given_labels = [tuple(sorted(row)) for row in labels]
    parts, _ = set_aside(rows(given_labels), {"validation": 0.3}, seed=seed, task=MULTI)
    assert sorted(n for part in parts.values() for n in part.numbers) == list(range(1, len(labels) + 1))
    rarest = min("abcdef", key=lambda label: (sum(label in row for row in labels) or 1000, label))
    if any(rarest in row for row in labels):
        assert any(rarest in row for row in parts["train"].columns["label"])


def test_a_limit_keeps_shares_and_order() -> None:
    taken = limit(rows(["a"] * 30 + ["b"] * 10), 20, seed=0, task="classification")
    assert Counter(taken.columns["label"]) == {"a": 15, "b": 5}
    assert list(taken.numbers) == sorted(taken.numbers)
    assert len(limit(taken, 20, seed=0, task="classification")) == 20


# --- one text ----------------------------------------------------------------------------------------------------


def document(text: str) -> Rows:
    return Rows("data.train: t.txt", {"text": [text]}, [1], is_document=True)


@given(
    st.lists(st.text(alphabet="ab \t", max_size=9), min_size=3, max_size=30).map(
        lambda lines: "\n".join(lines) + "\nc"
    ),
    st.floats(0.01, 0.49),
    st.floats(0.01, 0.49),
)
def test_a_text_is_cut_at_line_breaks(text: str, validation: float, test: float) -> None:
    parts, _ = set_aside(document(text), {"validation": validation, "test": test}, seed=0, task="causal-lm")
    pieces = [parts[split].columns["text"][0] for split in ("train", "validation", "test")]
    assert "".join(pieces) == text
    assert all(pieces)
    assert all(piece.endswith("\n") for piece in pieces[:2])


def test_the_last_part_of_a_text_is_set_aside() -> None:
    text = "".join(f"{i:03}\n" for i in range(100))
    parts, _ = set_aside(document(text), {"validation": 0.1, "test": 0.2}, seed=0, task="causal-lm")
    starts = [parts[split].columns["text"][0][:3] for split in ("train", "validation", "test")]
    assert starts == ["000", "070", "080"]
    assert parts["validation"].where == "data.validation: 0.1 of t.txt"


def test_a_text_of_too_few_lines() -> None:
    with pytest.raises(DataError, match=r"t\.txt has 1 lines, too few for training and data\.validation \(0\.1\)"):
        set_aside(document("all in one line"), {"validation": 0.1}, seed=0, task="causal-lm")
