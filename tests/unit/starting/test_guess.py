"""What `init` takes columns for: kinds, tasks, which column is what, and when it asks instead of guessing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from finesweep.errors import DataError
from finesweep.starting.columns import Kind, profile
from finesweep.starting.guess import Asked, Guess, guess

N = 40
PROSE = [f"a sentence of some words, number {i}" for i in range(N)]
OTHER_PROSE = [f"another sentence about the row {i}" for i in range(N)]
CHATS = [[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]] * N


def few(*values: Any) -> list[Any]:
    return [values[i % len(values)] for i in range(N)]


def made_of(table: Mapping[str, Sequence[Any]], *, is_text: bool = False, **asked: Any) -> Guess:
    columns = [profile(name, values, is_text=is_text) for name, values in table.items()]
    task = asked.pop("task", None)
    return guess(columns, Asked(task, asked), where="--data rows")


@pytest.mark.parametrize(
    ("values", "is_text", "kind"),
    [
        (PROSE, False, Kind.TEXT),
        ([1, 2, 3], False, Kind.WHOLE),
        ([1, 2.5, None], False, Kind.NUMBER),
        (["1", "2", ""], True, Kind.WHOLE),
        (["1", "2.5"], True, Kind.NUMBER),
        (["1", "2.5", "x"], True, Kind.TEXT),
        (["1", "2"], False, Kind.TEXT),  # JSON says which it is
        ([["a"], [], ["a", "b"]], False, Kind.LABELS),
        (CHATS, False, Kind.CHAT),
        ([True, False], False, Kind.OTHER),
        ([{"a": 1}], False, Kind.OTHER),
        ([1, "a"], False, Kind.OTHER),
        ([None, float("nan"), " "], False, Kind.OTHER),
    ],
)
def test_a_column_is_what_all_of_its_values_are(values: Sequence[Any], is_text: bool, kind: Kind) -> None:
    assert profile("c", values, is_text=is_text).kind is kind


def test_a_profile_counts() -> None:
    column = profile("queue", ["a", "a", "a", "b", None, " "], is_text=False)
    assert (column.n_rows, column.n_distinct, column.n_missing) == (6, 2, 2)
    assert (column.largest_share, column.smallest_share) == (3 / 6, 1 / 6)
    assert str(column) == "queue (text, 2 different, 2 missing)"
    assert profile("id", list(range(9)), is_text=False).is_numbered


@pytest.mark.parametrize(
    ("table", "task", "columns"),
    [
        ({"text": PROSE, "label": few("x", "y")}, "classification", {"text": "text", "label": "label"}),
        (
            {"id": list(range(N)), "uid": [f"u{i}" for i in range(N)], "body": PROSE, "queue": few("x", "y", "z")},
            "classification",
            {"text": "body", "label": "queue"},
        ),
        ({"review": PROSE, "stars": few(1, 2, 3, 4, 5)}, "classification", {"text": "review", "label": "stars"}),
        ({"t": PROSE, "price": few(*range(100, 130))}, "regression", {"text": "t", "label": "price"}),
        ({"t": PROSE, "score": few(0.5, 1.5)}, "regression", {"text": "t", "label": "score"}),
        (
            {"t": PROSE, "topics": few(["a"], ["a", "b"])},
            "multi-label-classification",
            {"text": "t", "label": "topics"},
        ),
        ({"t": PROSE, "label": few("a|b", "b")}, "multi-label-classification", {"text": "t", "label": "label"}),
        (
            {"premise": PROSE, "hypothesis": OTHER_PROSE, "label": few(0, 1, 2)},
            "classification",
            {"text": "premise", "text_pair": "hypothesis", "label": "label"},
        ),
        (
            {"title": PROSE, "notes": OTHER_PROSE, "label": few("x", "y")},
            "classification",
            {"text": "title", "label": "label"},
        ),
        (
            {"text": PROSE, "label": few("x", "y"), "votes": few(1, 2, 3)},
            "classification",
            {"text": "text", "label": "label"},
        ),
        ({"prompt": PROSE, "completion": OTHER_PROSE}, "causal-lm", {"prompt": "prompt", "completion": "completion"}),
        (
            {"Instruction": PROSE, "output": OTHER_PROSE, "length": few(3, 4, 5)},
            "causal-lm",
            {"prompt": "Instruction", "completion": "output"},
        ),
        ({"messages": CHATS, "source": few("x", "y")}, "causal-lm", {"messages": "messages"}),
        ({"text": PROSE}, "causal-lm", {"text": "text"}),
        ({"id": list(range(N)), "chapter": PROSE}, "causal-lm", {"text": "chapter"}),
    ],
)
def test_what_can_be_told_is_guessed(table: Mapping[str, Any], task: str, columns: Mapping[str, str]) -> None:
    found = made_of(table)
    assert found.task == task
    assert found.columns == columns
    said = "\n".join(found.reasons)
    assert all(name in said for name in columns.values())
    assert (found.format is not None) == (task == "causal-lm")


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ({"body": PROSE, "team": few("x", "y"), "priority": few(1, 2)}, "team, priority could each be the label"),
        ({"a": PROSE, "b": OTHER_PROSE, "label": few("x", "y")}, "a, b could each be the text"),
        ({"a": PROSE, "b": OTHER_PROSE}, "no column holds labels or numbers to be told"),
        (
            {"question": PROSE, "answer": OTHER_PROSE, "label": few(0, 1)},
            "answer could be written from question, or label",
        ),
        ({"text": PROSE, "label": OTHER_PROSE}, "no column holds labels or numbers to be told"),
        ({"n": few(1, 2), "m": few(0.5, 0.2)}, "n, m could each be the label"),
        ({"label": few("x", "y")}, "there is no text to tell it of"),
        ({"flag": few(True, False), "text": PROSE}, None),
    ],
)
def test_what_cannot_is_asked_with_all_columns(table: Mapping[str, Any], told: str | None) -> None:
    if told is None:
        assert made_of(table).task == "causal-lm"  # what is neither text, number nor list of them is left alone
        return
    with pytest.raises(DataError) as error:
        made_of(table)
    assert str(error.value).startswith(f"--data rows leaves open what is to be learnt: {told}")
    assert all(f"{name} (" in str(error.value) for name in table)
    assert all(option in str(error.value) for option in ("--text", "--label", "--prompt", "--completion", "--task"))


def test_what_is_said_is_done() -> None:
    tickets = {"body": PROSE, "queue": few("x", "y"), "priority": few(1, 2), "answer": OTHER_PROSE}
    by_priority = made_of(tickets, text="body", label="priority")
    assert (by_priority.task, by_priority.columns) == ("classification", {"text": "body", "label": "priority"})
    assert made_of(tickets, text="body", label="priority", task="regression").task == "regression"
    assert made_of(tickets, prompt="body", completion="answer").format == "prompt-completion"
    assert made_of(tickets, text="body", text_pair="answer", label="queue").columns["text_pair"] == "answer"
    assert made_of(tickets, text="body", task="causal-lm").format == "text"
    assert made_of({"q": few("x", "y"), "body": PROSE}, task="causal-lm").columns == {"text": "body"}
    assert made_of({"t": PROSE, "n": few(1, 2), "k": few("x", "y")}, task="regression").columns["label"] == "n"


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"label": "queu"}, '--label: column "queu" is not there; did you mean "queue"?'),
        ({"text_pair": "x", "text": "body"}, '--text-pair: column "x" is not there'),
        (
            {"label": "queue", "text": "body", "task": "regression"},
            "--task regression: queue (text, 2 different) is no",
        ),
        ({"prompt": "body"}, "--data rows leaves open what is to be learnt: with --prompt alone there is no pair"),
        ({"task": "causal-lm"}, "--data rows leaves open what is to be learnt: body, answer are all texts"),
        (
            {"task": "multi-label-classification"},
            "--data rows leaves open what is to be learnt: no column holds labels",
        ),
    ],
)
def test_what_is_said_wrongly_is_told(asked: Mapping[str, Any], told: str) -> None:
    with pytest.raises(DataError) as error:
        made_of({"body": PROSE, "queue": few("x", "y"), "answer": OTHER_PROSE}, **asked)
    assert str(error.value).startswith(told)
