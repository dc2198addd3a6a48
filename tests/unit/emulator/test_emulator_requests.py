"""What clients may ask: bodies and rows, and how a refusal looks."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finesweep.emulator.objects import Hyperparameters
from finesweep.emulator.requests import (
    ChatBody,
    CompletionBody,
    JobBody,
    RequestError,
    Rows,
    check_rows,
    is_chat_model,
    read_body,
)

JOB = {"model": "davinci-002", "training_file": "file-1"}
MADE = {"n_epochs": 3, "batch_size": 8, "learning_rate_multiplier": 0.5}


def read(kind: Any, **content: Any) -> Any:
    return read_body(kind, json.dumps(content).encode())


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ({}, Hyperparameters()),
        ({"hyperparameters": MADE}, Hyperparameters(3, 8, 0.5)),
        ({"hyperparameters": {"n_epochs": "auto"}}, Hyperparameters()),
        ({"method": {"type": "supervised", "supervised": {"hyperparameters": MADE}}}, Hyperparameters(3, 8, 0.5)),
        ({"method": {"type": "supervised"}}, Hyperparameters()),
        ({"hyperparameters": None, "method": None, "suffix": None, "metadata": None}, Hyperparameters()),
    ],
)
def test_both_forms_of_a_job(given: dict[str, Any], asked: Hyperparameters) -> None:
    assert read(JobBody, **JOB, **given).asked == asked


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"hyperparameters": {"n_epochs": 0}}, "hyperparameters.n_epochs"),
        ({"hyperparameters": {"n_epochs": 51}}, "hyperparameters.n_epochs"),
        ({"hyperparameters": {"n_epochs": 1.5}}, "hyperparameters.n_epochs"),
        ({"hyperparameters": {"batch_size": 257}}, "hyperparameters.batch_size"),
        ({"hyperparameters": {"learning_rate_multiplier": 0}}, "hyperparameters.learning_rate_multiplier"),
        ({"hyperparameters": {"weight_decay": 0.1}}, "hyperparameters.weight_decay"),
        ({"method": {"type": "dpo"}}, "method.type"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**31}, "seed"),
        ({"suffix": "x" * 65}, "suffix"),
        ({"metadata": {str(n): "x" for n in range(17)}}, "metadata"),
        ({"metadata": {"key": "x" * 513}}, "metadata.key"),
        ({"metadata": {"key": 3}}, "metadata.key"),
        ({"training_file": None}, "training_file"),
    ],
)
def test_what_is_wrong_in_a_job_is_named(given: dict[str, Any], param: str) -> None:
    with pytest.raises(RequestError) as raised:
        read(JobBody, **{**JOB, **given})
    assert (raised.value.status, raised.value.code) == (400, "invalid_value")
    assert str(raised.value.param).startswith(param)
    assert raised.value.shown()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff", b'"text"', b"[" * 100_000])
def test_what_is_no_object_is_refused(content: bytes) -> None:
    with pytest.raises(RequestError) as raised:
        read_body(JobBody, content)
    assert raised.value.status == 400


@pytest.mark.parametrize(
    ("status", "kind"), [(400, "invalid_request_error"), (429, "rate_limit_error"), (503, "server_error")]
)
def test_kinds_of_errors(status: int, kind: str) -> None:
    shown = RequestError(status, "no", code="c", param="p").shown()
    assert shown == {"error": {"message": "no", "type": kind, "param": "p", "code": "c"}}


def test_how_answers_are_written() -> None:
    body = read(CompletionBody, model="m", prompt=["a", "b"], stop="\n", max_tokens=3, temperature=0, seed=1)
    assert body.sampling.stops == ("\n",)
    assert (body.sampling.max_tokens, body.sampling.temperature, body.sampling.seed) == (3, 0, 1)
    chat = read(ChatBody, model="m", messages=[{"role": "user", "content": "a"}], max_tokens=3, max_completion_tokens=9)
    assert (chat.sampling.max_tokens, chat.sampling.stops) == (9, ())
    for wrong in ({"messages": []}, {"messages": [{"role": "robot", "content": "a"}]}, {"stream": True}, {"n": 2}):
        with pytest.raises(RequestError):
            read(ChatBody, **{"model": "m", "messages": [{"role": "user", "content": "a"}], **wrong})


def as_file(rows: list[Any]) -> bytes:
    return "\n".join(json.dumps(row) for row in rows).encode()


PAIR = {"prompt": "a", "completion": "b"}
CHAT = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}


def check(content: bytes, *, is_chat: bool = False) -> Rows:
    return check_rows(content, is_chat=is_chat, what="training_file")


def test_rows_of_both_kinds() -> None:
    assert check(as_file([PAIR] * 10)) == Rows(10, ("prompt", "completion"))
    assert check(as_file([CHAT] * 11), is_chat=True) == Rows(11, ("messages",))
    assert check(b"\r\n\n".join([as_file([PAIR])] * 10) + b"\n").n_rows == 10
    assert check(as_file([{"prompt": "", "completion": "b\u2028c"}] * 10)).n_rows == 10


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (b"{", "Line 11 is not JSON"),
        (b"\xff", "Line 11 is not JSON"),
        (b"[" * 100_000, "Line 11 is not JSON"),
        (b"[]", "Example 11 cannot be used: it is not an object"),
        (b"null", "it is not an object"),
        (b'{"prompt": "a"}', 'it has no text "completion"'),
        (b'{"prompt": null, "completion": "b"}', 'it has no text "prompt"'),
        (b'{"prompt": "a", "completion": ""}', 'it has no text "completion"'),
        (b'{"prompt": "a", "completion": 3}', 'it has no text "completion"'),
    ],
)
def test_pairs_that_cannot_be_used(row: bytes, told: str) -> None:
    with pytest.raises(RequestError, match=told) as raised:
        check(as_file([PAIR] * 10) + b"\n" + row)
    assert (raised.value.code, raised.value.param) == ("invalid_training_file", "training_file")


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (PAIR, 'it has no list "messages"'),
        ({"messages": []}, 'it has no list "messages"'),
        ({"messages": "a"}, 'it has no list "messages"'),
        ({"messages": ["a"]}, "a message has no text"),
        ({"messages": [{"role": "assistant", "content": None}]}, "a message has no text"),
        ({"messages": [{"role": "robot", "content": "a"}]}, "there is no role 'robot'"),
        ({"messages": [{"content": "a"}]}, "there is no role None"),
        ({"messages": [{"role": "user", "content": "a"}]}, "the last message must be the assistant's"),
        ({"messages": [{"role": ["user"], "content": "a"}]}, "there is no role"),
    ],
)
def test_chats_that_cannot_be_used(row: Any, told: str) -> None:
    with pytest.raises(RequestError, match=told):
        check(as_file([CHAT] * 10 + [row]), is_chat=True)


@given(st.binary(max_size=60), st.booleans())
def test_whatever_a_file_holds_it_is_taken_or_refused(content: bytes, is_chat: bool) -> None:
    try:
        check(b"\n".join([as_file([CHAT if is_chat else PAIR])] * 10 + [content]), is_chat=is_chat)
    except RequestError as error:
        assert error.status == 400


def test_names_of_models_say_what_they_take() -> None:
    assert [is_chat_model(name) for name in ("davinci-002", "babbage-002", "gpt-4o-mini-2024-07-18")] == [
        False,
        False,
        True,
    ]
