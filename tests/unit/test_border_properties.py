"""Whatever is typed, the end is an answer or a clear error: no traceback, and an exit code that says which."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.commandline import invoke

from finesweep.errors import ResultsError
from finesweep.events import Event, Grid
from finesweep.results.url import artifacts_dir, redacted, resolve_url, sqlite_path
from finesweep.results.writer import open_writer

RELAXED = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
TYPED = st.text(st.characters(exclude_characters="\0"), max_size=20)  # no argument can hold a NUL
URLS = st.builds(
    "".join,
    st.lists(
        st.sampled_from(
            ["sqlite", "postgresql", "mysql", "://", ":///", ":", "@", "/", "?", "&", "=", "#", "%40", "%", "..", "~",
             "~nobody/", ":memory:", "host", "[::1]", "x.db", "5432", "password", "+psycopg", "\u202e", "\n", " ", "ü"]
        ),
        max_size=8,
    ),
)  # fmt: skip
NUMBERS = ["nan", "inf", "-inf", "-1", "0", "1e400", "4.9e-324", "1e308", "9223372036854775808", "-9223372036854775809",
           "true", "1_000", "0x10", "٣", "1e3", "²", "½", "1.5", ""]  # fmt: skip
WORDS = ["check", "run", "resume", "extend", "stop", "status", "logs", "samples", "compare", "export", "delete", "diff",
         "report", "--where", "--sort", "--columns", "value < 1", "9**9**9", "(" * 500, "__import__('os')", "a.b",
         "--yes", "--json", "--top", "--trials", "--hours", "--results", "--set", "--name", "-o", "--to", "--step",
         "--metric", "--", "-", "-h",
         "tickets", "tickets:0", "tickets:", ":0", "tickets:99999999999999999999", "tickets:²",
         "../x", "x.csv", "x.db", "/", ".", "nobody"]  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("place")


@pytest.fixture
def stored(
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_spec: Callable[..., Any],
    trial_events: Callable[..., Sequence[Event]],
) -> Path:
    """A folder with a database of one sweep, which is the current one."""
    monkeypatch.chdir(place)
    monkeypatch.delenv("FINESWEEP_RESULTS", raising=False)
    if not (place / "finesweep.db").exists():
        with open_writer(place / "finesweep.db") as writer:
            writer.create_sweep(
                make_spec(), grid=Grid("examples", 100, 200), provenance={"artifact_dir": str(place / "a/tickets")}
            )
            writer.listener("tickets")(trial_events(0))
    return place


def ends_well(*arguments: str) -> None:
    result = invoke(*arguments)
    assert result.exit_code in (0, 2, 130), (arguments, result.output)
    assert "Traceback" not in result.output
    assert result.exit_code != 2 or result.stderr


@RELAXED
@given(text=st.one_of(URLS, TYPED))
def test_any_database_url(place: Path, text: str) -> None:
    redacted(text)
    try:
        url = resolve_url(text, folder=place)
    except ResultsError as error:
        assert str(error)
    else:
        assert resolve_url(url, folder=place) == url
        sqlite_path(url)
        artifacts_dir(url, folder=place)


@RELAXED
@given(text=st.one_of(URLS.filter(lambda text: "postgresql" not in text), TYPED))
def test_any_database_that_is_asked_for(stored: Path, text: str) -> None:
    ends_well("status", "--results", text)


@RELAXED
@given(arguments=st.lists(st.one_of(st.sampled_from(WORDS), st.sampled_from(NUMBERS), TYPED), max_size=6))
def test_any_arguments(stored: Path, arguments: list[str]) -> None:
    if "report" in arguments or "run" in arguments or "resume" in arguments or "delete" in arguments:
        arguments = [*arguments, "--no-such-option"]
    ends_well(*arguments)


@pytest.mark.parametrize("number", NUMBERS)
def test_numbers_on_the_command_line(stored: Path, number: str) -> None:
    for option in (
        ("extend", "tickets", "--trials"),
        ("extend", "tickets", "--hours"),
        ("status", "tickets", "--top"),
        ("samples", "tickets:0", "--step"),
    ):
        ends_well(*option, number)
    ends_well("logs", f"tickets:{number}")


@pytest.mark.parametrize("value", ["", " ", "x.db", "./", "/", "/dev/null", "~", "\u202e", "://", "x" * 5000, "a\nb"])
@pytest.mark.parametrize("name", ["FINESWEEP_RESULTS", "FINESWEEP_MORE_ARGUMENTS", "FINESWEEP_CACHE"])
def test_any_environment(stored: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    ends_well("status")


def test_what_a_terminal_would_obey_is_written_out(stored: Path) -> None:
    said = invoke("status", "\x1b[2J\u202e\a")
    assert "\x1b" not in said.output
    assert "\u202e" not in said.output
    assert r"\x1b[2J" in said.stderr


@pytest.mark.parametrize("text", ["[]", "{}", "1", "[1]", '["--help"]', "x", ""])
def test_arguments_of_a_detached_driver(stored: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("FINESWEEP_MORE_ARGUMENTS", text)
    said = invoke("status")
    is_right = text in ("[]", '["--help"]')
    assert said.exit_code == (0 if is_right else 2)
    assert ("Usage" in said.stdout) == (text == json.dumps(["--help"]))
