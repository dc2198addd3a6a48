"""What is asked again, when, and for how long; what is not."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx2
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.remote.conftest import KEY, Fake, Time, refusal

from finesweep.errors import RemoteError, ServerAwayError
from finesweep.remote import calls
from finesweep.remote.calls import FIRST_WAIT_S, LONGEST_WAIT_S, LOOKS, Calls, NotOfProtocolError

Ask = Callable[..., Any]
OK = (200, {"id": "davinci-002", "object": "model", "created": 0, "owned_by": "x"})


@pytest.fixture
def ask(client: openai.OpenAI, time: Time) -> Ask:
    """Return a function that asks for a model, with as much patience as it is given."""

    def ask(*, patience_s: float = 600.0, chance: int = 0, **options: Any) -> Any:
        patient = Calls(patience_s=patience_s, sleep=time.sleep, clock=time.clock, chance=random.Random(chance))
        return patient.ask(lambda: client.models.retrieve("davinci-002").id, what="the model", **options)

    return ask


@pytest.mark.parametrize(
    "fault",
    [
        *(refusal(status, "later") for status in (408, 409, 425, 429, 500, 502, 503, 504, 520)),
        httpx2.ConnectError("refused"),
        httpx2.ReadTimeout("slow"),
        httpx2.RemoteProtocolError("cut off"),
        httpx2.Response(200, text='{"id": ', headers={"content-type": "application/json"}),
    ],
    ids=lambda fault: str(getattr(fault, "status_code", type(fault).__name__)),
)
def test_transient_faults_are_asked_again(fake: Fake, ask: Ask, fault: Any) -> None:
    fake.script = [fault, fault, OK]
    assert ask() == "davinci-002"
    assert len(fake.requests) == 3


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (refusal(400, "what?"), "the model: the server says 400: what?"),
        (refusal(401, "no", "invalid_api_key"), r"401 \(invalid_api_key\): no Check the key in the variable"),
        (refusal(403, "no"), "403: no The key may not do this"),
        (refusal(404, "none", "model_not_found"), r"404 \(model_not_found\): none"),
        (refusal(422, "odd"), "422: odd"),
        (refusal(429, "pay", "insufficient_quota"), r"429 \(insufficient_quota\): pay"),
        (refusal(429, "pay", "billing_hard_limit_reached"), "billing_hard_limit_reached"),
        (refusal(501, "never"), "501: never"),
    ],
)
def test_refusals_are_raised_at_once(fake: Fake, ask: Ask, time: Time, answer: Any, told: str) -> None:
    fake.script = [answer]
    with pytest.raises(RemoteError, match=told) as raised:
        ask()
    assert (len(fake.requests), time.sleeps) == (1, [])
    assert raised.value.status == answer.status_code


def test_a_refusal_that_is_none_of_the_protocol_is_told_with_the_usual_cause(fake: Fake, ask: Ask) -> None:
    fake.script = [httpx2.Response(404, text="<h1>not here</h1>")]
    with pytest.raises(RemoteError, match=r"the model: the server says 404: .*; does remote\.base_url end as"):
        ask()


@given(st.integers(0, 2**32))
def test_waits_double_up_to_a_bound_with_chance(chance: int) -> None:
    time = Time()
    left = iter(range(12))

    def question() -> int:
        if (n := next(left)) < 11:
            raise NotOfProtocolError
        return n

    patient = Calls(patience_s=1e6, sleep=time.sleep, clock=time.clock, chance=random.Random(chance))
    assert patient.ask(question, what="it") == 11
    for n, slept_s in enumerate(time.sleeps):
        whole_s = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2**n)
        assert 0.5 * whole_s <= slept_s <= whole_s
    assert len(set(time.sleeps[-4:])) > 1  # bounded, but not the same for all


@pytest.mark.parametrize(
    ("headers", "told_s"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "2.5"}, 2.5),
        ({"retry-after-ms": "1500", "Retry-After": "9"}, 1.5),
        ({"retry-after-ms": "soon", "Retry-After": "9"}, 9.0),
        ({"Retry-After": "0"}, 0.0),  # whoever is told to come at once does not hammer all the same
        ({"Retry-After": "-3"}, 0.0),
        ({"Retry-After": "nan"}, 0.0),
        ({"Retry-After": "inf"}, 0.0),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"Retry-After": ""}, 0.0),
        ({}, 0.0),
    ],
)
def test_a_server_that_says_when_is_heeded(
    fake: Fake, ask: Ask, time: Time, headers: dict[str, str], told_s: float
) -> None:
    """Not before that, and not all at once."""
    fake.script = [refusal(429, "later", **headers), OK]
    ask()
    [slept_s] = time.sleeps
    assert told_s + 0.5 * FIRST_WAIT_S <= slept_s <= told_s + FIRST_WAIT_S


@pytest.mark.parametrize("is_date", [False, True])
def test_a_server_that_asks_for_more_patience_than_there_is_is_not_asked_again(
    fake: Fake, ask: Ask, time: Time, is_date: bool
) -> None:
    in_a_day = format_datetime(datetime.now(UTC) + timedelta(days=1), usegmt=True)
    fake.script = [refusal(429, "later", **{"Retry-After": in_a_day if is_date else "86400"}), OK]
    with pytest.raises(ServerAwayError, match=r"it asks to wait 86,[34]"):
        ask()
    assert time.sleeps == []


def test_patience_ends(fake: Fake, ask: Ask, time: Time) -> None:
    fake.script = [refusal(503, "busy")] * 100
    with pytest.raises(ServerAwayError, match=r"the model: the server did not answer for 2 min \(at last 503: .*busy"):
        ask(patience_s=120)
    assert 60 < time.now_s <= 120
    assert len(fake.requests) < 12


def test_who_is_told_to_wait_beyond_patience_does_not(fake: Fake, ask: Ask, time: Time) -> None:
    fake.script = [refusal(429, "later", **{"Retry-After": "900"})]
    with pytest.raises(ServerAwayError, match="it asks to wait 900 s"):
        ask(patience_s=600)
    assert time.sleeps == []


def test_why_there_is_no_connection_is_told(fake: Fake, ask: Ask) -> None:
    fake.script = [httpx2.ConnectError("Name or service not known")]
    with pytest.raises(ServerAwayError, match="Name or service not known"):
        ask(patience_s=0)


def test_a_page_where_json_should_be_is_told_with_the_usual_cause(fake: Fake, ask: Ask) -> None:
    fake.script = [httpx2.Response(200, text="{", headers={"content-type": "application/json"})]
    with pytest.raises(ServerAwayError, match=r"its answer is no JSON .* does remote\.base_url end as .* in /v1\?"):
        ask(patience_s=0)


def _founds(*answers: Any) -> tuple[Callable[[], Any], list[int]]:
    given, n_asked = iter(answers), [0]

    def found() -> Any:
        n_asked[0] += 1
        answer = next(given)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return found, n_asked


LOST = httpx2.ReadTimeout("no answer")
NOT_SENT = httpx2.ConnectError("refused")


def test_what_was_done_already_is_not_asked_for_again(fake: Fake, ask: Ask) -> None:
    fake.script = [LOST]
    found, _ = _founds("the same")
    assert ask(found=found) == "the same"
    assert len(fake.requests) == 1


def test_an_answer_at_once_needs_no_look(fake: Fake, ask: Ask) -> None:
    fake.script = [OK]
    found, n_asked = _founds()
    ask(found=found)
    assert n_asked == [0]


@pytest.mark.parametrize("fault", [LOST, refusal(500, "oops"), httpx2.ReadError("broke")])
def test_where_it_may_have_been_done_one_looks_for_a_while(fake: Fake, ask: Ask, time: Time, fault: Any) -> None:
    fake.script = [fault]
    found, n_asked = _founds(*[None] * (LOOKS - 1), "shown late")
    assert ask(found=found) == "shown late"
    assert (len(fake.requests), n_asked) == (1, [LOOKS])
    assert sum(time.sleeps) > 5 * FIRST_WAIT_S


@pytest.mark.parametrize("fault", [NOT_SENT, refusal(429, "later"), refusal(409, "locked")])
def test_where_it_was_not_done_one_look_is_enough(fake: Fake, ask: Ask, fault: Any) -> None:
    fake.script = [fault, OK]
    found, n_asked = _founds(None)
    assert ask(found=found) == "davinci-002"
    assert n_asked == [1]


def test_a_look_that_fails_is_repeated_before_anything_is_asked_for(fake: Fake, ask: Ask) -> None:
    fake.script = [LOST]
    away = openai.APIConnectionError(request=httpx2.Request("GET", "http://server.test"))
    found, n_asked = _founds(away, None, away, None, None, "there")
    assert ask(found=found) == "there"
    assert (len(fake.requests), n_asked) == (1, [6])


def test_what_is_never_found_is_asked_for_again(fake: Fake, ask: Ask) -> None:
    fake.script = [LOST, NOT_SENT, OK]
    found, n_asked = _founds(*[None] * (LOOKS + 1))
    assert ask(found=found) == "davinci-002"
    assert n_asked == [LOOKS + 1]  # once it is known not to have been done, one look is enough


def test_a_refusal_while_looking_is_raised(fake: Fake, ask: Ask) -> None:
    fake.script = [LOST]
    request = httpx2.Request("GET", "http://server.test")
    no = openai.AuthenticationError("no", response=httpx2.Response(401, request=request), body=None)
    found, _ = _founds(no)
    with pytest.raises(RemoteError, match="401"):
        ask(found=found)


@pytest.fixture
def texts(fake: Fake, ask: Ask) -> Iterator[list[str]]:
    yield [_text_of(fake, ask, answer) for answer in (refusal(400, f"{KEY} is odd"), refusal(503, f"key {KEY}!"))]


def _text_of(fake: Fake, ask: Ask, answer: Any) -> str:
    fake.script = [answer]
    with pytest.raises((RemoteError, ServerAwayError)) as raised:
        ask(patience_s=0)
    return str(raised.value)


def test_the_key_is_in_no_text(texts: list[str]) -> None:
    assert len(texts) == 2
    assert all("***" in text and KEY not in text for text in texts)


def test_the_key_is_in_no_text_with_a_line_end_either(fake: Fake, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "another-key-of-no-known-shape\n")
    said = _text_of(fake, ask, refusal(400, "another-key-of-no-known-shape is odd"))
    assert "another-key" not in said


def test_the_first_wait_is_a_name_that_other_tests_may_shorten(
    fake: Fake, ask: Ask, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "FIRST_WAIT_S", 0.001)
    fake.script = [refusal(503, "busy"), OK]
    ask()
    assert time.sleeps[0] <= 0.001
