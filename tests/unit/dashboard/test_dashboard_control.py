"""Buttons: there only when asked for, for pages of the dashboard alone, doing what the command line does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from starlette.testclient import TestClient
from tests.unit.dashboard.conftest import LOOPBACK, SCRIPT

from finesweep.cli.dashboard import _verb
from finesweep.dashboard.app import make_app
from finesweep.notebook import Results
from finesweep.results.lease import Holder
from finesweep.results.schema import SweepState
from finesweep.results.writer import ResultsWriter

OWN = {"Origin": LOOPBACK}
BUTTONS = "/sweep/tickets/control"


@pytest.fixture
def asked() -> list[list[str]]:
    return []


@pytest.fixture
def controlled(results: Results, asked: list[list[str]]) -> Iterator[TestClient]:
    def verb(words: Sequence[str]) -> str:
        asked.append([*words])
        return f"done {SCRIPT}"

    with TestClient(make_app(results, verb=verb), base_url=LOOPBACK, follow_redirects=False) as asking:
        yield asking


def test_without_control_there_are_no_buttons(client: TestClient) -> None:
    assert BUTTONS not in client.get("/sweep/tickets").text
    assert client.post(BUTTONS, data={"verb": "stop"}, headers=OWN).status_code == 405


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"verb": "stop"}, ["stop", "tickets"]),
        ({"verb": "resume"}, ["resume", "tickets", "--detach"]),
        ({"verb": "extend", "trials": "40"}, ["extend", "tickets", "--trials=40"]),
    ],
)
def test_a_button_runs_a_verb_and_shows_what_it_said(
    controlled: TestClient, asked: list[list[str]], form: dict[str, str], words: list[str]
) -> None:
    answer = controlled.post(BUTTONS, data=form, headers=OWN)
    assert (answer.status_code, answer.headers["location"]) == (303, "/sweep/tickets")
    assert asked == [words]
    page = controlled.get("/sweep/tickets").text
    assert "done &lt;script&gt;" in page
    assert SCRIPT not in page
    assert "done" not in controlled.get("/sweep/two").text


@pytest.mark.parametrize(
    "headers",
    [{}, {"Origin": "http://evil.example"}, {"Origin": "null"}, {"Origin": "http://127.0.0.1:1"}, {"Origin": ""}],
)
def test_a_form_of_another_page_is_refused(
    controlled: TestClient, asked: list[list[str]], headers: dict[str, str]
) -> None:
    assert controlled.post(BUTTONS, data={"verb": "stop"}, headers=headers).status_code == 403
    assert asked == []


@pytest.mark.parametrize(
    ("path", "form", "status"),
    [
        ("/sweep/nope/control", {"verb": "stop"}, 404),
        (BUTTONS, {"verb": "delete"}, 400),
        (BUTTONS, {}, 400),
        (BUTTONS, {"verb": "extend"}, 400),
        (BUTTONS, {"verb": "extend", "trials": "-5"}, 400),
        (BUTTONS, {"verb": "extend", "trials": "٣"}, 400),
        (BUTTONS, {"verb": "extend", "trials": "1 --results=x"}, 400),
        (BUTTONS, {"verb": "stop" + "x" * 2000}, 413),
        ("/sweep/tickets", {"verb": "stop"}, 405),
        ("/api/studies", {"verb": "stop"}, 405),
    ],
)
def test_what_no_button_sends_does_nothing(
    controlled: TestClient, asked: list[list[str]], path: str, form: dict[str, str], status: int
) -> None:
    assert controlled.post(path, data=form, headers=OWN).status_code == status
    assert asked == []


def test_a_button_needs_the_token_too(results: Results, asked: list[list[str]]) -> None:
    app = make_app(results, token="a-token-of-some-length", verb=lambda words: str(asked.append([*words])))
    elsewhere = "http://192.0.2.7:8765"
    asking = TestClient(app, base_url=elsewhere, follow_redirects=False)
    headers = {"Origin": elsewhere}
    assert asking.post(BUTTONS, data={"verb": "stop"}, headers=headers).status_code == 401
    asking.get("/", params={"token": "a-token-of-some-length"})
    assert asking.post(BUTTONS, data={"verb": "stop"}, headers=headers).status_code == 303
    assert asked == [["stop", "tickets"]]


def test_buttons_are_those_that_the_state_allows(controlled: TestClient, writer: ResultsWriter) -> None:
    page = controlled.get("/sweep/tickets").text
    assert 'value="resume"' in page
    assert 'value="stop"' not in page
    writer.acquire("tickets", Holder.this_process())
    writer.set_state("tickets", SweepState.RUNNING)
    page = controlled.get("/sweep/tickets/parts/control").text
    assert 'value="stop"' in page
    assert 'value="resume"' not in page


def test_the_command_line_does_the_work(results: Results) -> None:
    assert "40 trials in total" in _verb(results.url, ["extend", "tickets", "--trials=40"])
    sweeps = results.sweeps().set_index("sweep")
    assert sweeps.loc["tickets", "budget_trials"] == 40
    said = _verb(results.url, ["extend", "nope", "--trials=40"])
    assert "nope" in said
    assert "tickets" in said  # those that are known
