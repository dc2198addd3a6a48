"""Who gets an answer, and what no page may give away."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from starlette.testclient import TestClient
from tests.unit.dashboard.conftest import LOOPBACK

from finesweep.dashboard.app import make_app
from finesweep.dashboard.guard import COOKIE, HEADERS
from finesweep.dashboard.serving import serve
from finesweep.dashboard.trial import LOG_TAIL
from finesweep.errors import ResourcesError
from finesweep.layout import log_path
from finesweep.listening import is_loopback
from finesweep.notebook import Results
from finesweep.results.writer import ResultsWriter

TOKEN = "a-token-of-some-length"
ELSEWHERE = "http://192.0.2.7:8765"


@pytest.fixture
def guarded(results: Results) -> TestClient:
    return TestClient(make_app(results, token=TOKEN), base_url=ELSEWHERE, follow_redirects=False)


@pytest.mark.parametrize("path", ["/", "/marks", "/plotly.js", "/assets/dashboard.js", "/sweep/tickets", "/nope"])
def test_without_the_token_nothing_is_given(guarded: TestClient, path: str) -> None:
    for address in (path, f"{path}?token=wrong", f"{path}?token="):
        answer = guarded.get(address)
        assert answer.status_code == 401
        assert "tickets" not in answer.text
    guarded.cookies.set(COOKIE, "wrong")
    assert guarded.get(path).status_code == 401


def test_the_token_is_handed_over_once_and_then_is_a_cookie(guarded: TestClient) -> None:
    answer = guarded.get("/sweep/tickets", params={"where": "value > 0", "token": TOKEN})
    assert answer.status_code == 303
    assert answer.headers["location"] == "/sweep/tickets?where=value+%3E+0"
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert guarded.get("/sweep/tickets").status_code == 200
    assert TOKEN not in guarded.get("/sweep/tickets").text


@pytest.mark.parametrize("path", ["//evil.example/", "/\\evil.example/", "///evil.example"])
def test_the_redirect_never_leads_elsewhere(guarded: TestClient, path: str) -> None:
    where = guarded.get(f"{ELSEWHERE}{path}?token={TOKEN}").headers["location"]
    assert where.startswith("/")
    assert not where.startswith(("//", "/\\"))


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8765", "127.0.0.1.evil.example", "", "[::2]:80"])
def test_another_name_of_the_loopback_gets_nothing(client: TestClient, host: str) -> None:
    answer = client.get("/", headers={"Host": host})
    assert answer.status_code == 421
    assert "tickets" not in answer.text


@pytest.mark.parametrize("host", ["localhost:8765", "127.0.0.1", "[::1]:8765", "LOCALHOST"])
def test_the_names_of_the_loopback_are_answered(client: TestClient, host: str) -> None:
    assert client.get("/", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("path", ["/", "/sweep/nope", "/assets/style.css", "/plotly.js", "/marks", "/nope"])
def test_every_answer_tells_the_browser_what_it_may_do(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    assert {name: headers[name] for name in HEADERS} == HEADERS
    script = next(part for part in headers["content-security-policy"].split("; ") if part.startswith("script-src"))
    assert script == "script-src 'self'"
    assert "cache-control" in headers


def test_it_only_reads(client: TestClient, guarded: TestClient) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        assert client.request(method, "/sweep/tickets").status_code == 405
        assert guarded.request(method, "/sweep/tickets").status_code == 405


@pytest.mark.parametrize(
    "path",
    [
        "/assets/../app.py",
        "/assets/%2e%2e/app.py",
        "/assets/..%2fapp.py",
        "/assets//etc/passwd",
        "/assets/%2fetc%2fpasswd",
        "/sweep/tickets/trial/..%2f..%2f0/parts/log",
        "/sweep/..%2f..%2fetc/parts/head",
    ],
)
def test_no_path_leads_out_of_the_package(client: TestClient, path: str) -> None:
    answer = client.get(f"{LOOPBACK}{path}")
    assert answer.status_code == 404
    assert "import " not in answer.text
    assert "root:" not in answer.text


def test_a_log_that_is_a_link_is_not_followed(client: TestClient, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("the secret")
    path = log_path(tmp_path / "artifacts", 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(secret)
    page = client.get("/sweep/tickets/trial/1").text
    assert "the secret" not in page
    assert "Its log is not here" in page


def test_of_a_long_log_the_end_is_shown_and_a_pipe_does_not_hang(client: TestClient, tmp_path: Path) -> None:
    path = log_path(tmp_path / "artifacts", 0)
    path.write_text("first\n" + "x" * LOG_TAIL + "\nlast\n")
    page = client.get("/sweep/tickets/trial/0/parts/log").text
    assert "last" in page
    assert "first" not in page
    path.unlink()
    os.mkfifo(path)
    assert client.get("/sweep/tickets/trial/0/parts/log").status_code == 200


def test_the_password_of_the_database_is_on_no_page(results: Results) -> None:
    """Its server does not answer; what is said of that has no password either."""
    with_password = Results("postgresql+psycopg://me:hunter2@127.0.0.1:9/none", results.clock)
    answer = TestClient(make_app(with_password), base_url=LOOPBACK).get("/")
    assert answer.status_code == 503
    assert "hunter2" not in answer.text
    assert "me:***@" in answer.text


def test_a_header_cannot_be_smuggled_into_an_answer(client: TestClient) -> None:
    answer = client.get("/sweep/tickets/trial/0/export.json%0d%0aX-Evil:%201")
    assert answer.status_code == 404
    assert "x-evil" not in answer.headers


def test_an_address_of_others_always_has_a_token(results: Results) -> None:
    assert [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "127.9.9.9")] == [True] * 4
    assert [is_loopback(host) for host in ("0.0.0.0", "::", "192.0.2.1", "example.org", "")] == [False] * 5
    with pytest.raises(ResourcesError, match="at least 16"):
        serve(results, host="127.0.0.1", port=0, token="short", say=print)


def test_a_port_that_is_taken_is_said_in_words(results: Results) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ResourcesError, match="already in use"):
            serve(results, host="127.0.0.1", port=taken.getsockname()[1], token=None, say=print)


def test_the_command_line_makes_a_token_for_an_address_of_others(results: Results) -> None:
    """And Ctrl-C ends it."""
    command = [sys.executable, "-m", "finesweep", "dashboard", results.url, "--host", "0.0.0.0", "--port", "0"]
    quiet = {name: value for name, value in os.environ.items() if name != "FINESWEEP_DASHBOARD_TOKEN"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=quiet) as served:
        assert served.stderr is not None
        try:
            said = served.stderr.readline()
            [(port, token)] = re.findall(r"http://0.0.0.0:(\d+)/\?token=(\S+)", said)
            with httpx.Client(base_url=f"http://127.0.0.1:{port}") as asking:
                assert asking.get("/").status_code == 401
                assert asking.get("/", params={"token": token}).status_code == 303
                assert "tickets" in asking.get("/").text
            served.send_signal(signal.SIGINT)
            assert served.wait(20) in (0, 130)
        finally:
            served.kill()


def test_nothing_is_written_to_the_database(client: TestClient, writer: ResultsWriter, tmp_path: Path) -> None:
    before = (tmp_path / "r.db").read_bytes(), (tmp_path / "r.db-wal").read_bytes()
    for address in ("/", "/sweep/tickets", "/sweep/tickets/trial/0", "/compare?sweep=tickets", "/marks"):
        client.get(address)
    assert ((tmp_path / "r.db").read_bytes(), (tmp_path / "r.db-wal").read_bytes()) == before
