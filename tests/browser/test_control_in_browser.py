"""The buttons, in a real browser: what it sends with a form is what the guard asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from tests.browser.conftest import Watched, served

from finesweep.events import Grid
from finesweep.results.writer import open_writer
from finesweep.spec.sweep import SweepSpec

ASKED: list[list[str]] = []


def verb(words: Sequence[str]) -> str:
    ASKED.append([*words])
    return f"tickets: {words[0]}, as asked."


@pytest.fixture
def address(tmp_path: Path, make_spec: Callable[..., SweepSpec]) -> Iterator[str]:
    ASKED.clear()
    with open_writer(tmp_path / "r.db") as writer:
        writer.create_sweep(make_spec(), grid=Grid("examples", 100, 400), provenance={})
        with served(writer.url, verb=verb) as served_at:
            yield served_at


def test_buttons_do_what_they_say(open_page: Callable[..., Watched]) -> None:
    page = open_page("/sweep/tickets").page
    page.get_by_label("Trials in all").fill("40")
    page.get_by_role("button", name="Set").click()
    page.get_by_text("tickets: extend, as asked.").wait_for()
    page.get_by_role("button", name="Resume").click()
    page.get_by_text("tickets: resume, as asked.").wait_for()
    assert ASKED == [["extend", "tickets", "--trials=40"], ["resume", "tickets", "--detach"]]
    page.get_by_label("Trials in all").fill("0")
    page.get_by_role("button", name="Set").click()  # the browser itself refuses
    assert page.locator("#total:invalid").count() == 1
    assert len(ASKED) == 2
