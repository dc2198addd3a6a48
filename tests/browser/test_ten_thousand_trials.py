"""A sweep of ten thousand trials, twenty reports each: the page holds what is in sight, and finds all the rest."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, distribution_to_json
from tests.browser.conftest import Watched, served

from finesweep.events import Event, Grid, TrialState
from finesweep.results.lease import Holder
from finesweep.results.schema import SweepState
from finesweep.results.writer import open_writer
from finesweep.spec.sweep import SweepSpec

N_TRIALS, N_REPORTS = 10_000, 20
DISTRIBUTIONS = {
    "learning_rate": distribution_to_json(FloatDistribution(1e-6, 1e-3, log=True)),
    "batch_size": distribution_to_json(CategoricalDistribution([8, 16, 32])),
    "scheduler": distribution_to_json(CategoricalDistribution(["linear", "cosine"])),
}
AT_ONCE = 250  # trials stored in one transaction
MOST_ROWS = 400  # in the document


@pytest.fixture
def address(
    browser: Any, tmp_path: Path, make_spec: Callable[..., SweepSpec], trial_events: Callable[..., list[Event]]
) -> Iterator[str]:
    chance = random.Random(0)
    with open_writer(tmp_path / "r.db") as writer:
        writer.create_sweep(make_spec(), grid=Grid("examples", 100, 100 * N_REPORTS), provenance={})
        writer.acquire("tickets", Holder.this_process())
        take = writer.listener("tickets")
        for first in range(0, N_TRIALS, AT_ONCE):
            events: list[Event] = []
            for number in range(first, first + AT_ONCE):
                level, is_pruned = chance.random(), number % 3 > 0
                values = [level + step / 100 for step in range(2 if is_pruned else N_REPORTS)]
                configuration = {
                    "learning_rate": 10 ** chance.uniform(-6, -3),
                    "batch_size": chance.choice([8, 16, 32]),
                    "scheduler": "cosine",
                }
                state = TrialState.PRUNED if is_pruned else TrialState.COMPLETE
                suggested, *rest = trial_events(number, values, state=state, configuration=configuration)
                events += [replace(suggested, distributions=DISTRIBUTIONS), *rest]
            take(events)
        writer.set_state("tickets", SweepState.FINISHED)
        writer.release("tickets")
        with served(writer.url) as served_at:
            yield served_at


def test_it_scrolls_sorts_and_filters(open_page: Callable[..., Watched]) -> None:
    watched = open_page("/sweep/tickets")
    page = watched.page
    watched.plot("#curves")
    names = page.evaluate("() => document.querySelector('#curves').data.map(trace => trace.name)")
    assert {"median", "80 % of trials"} <= {*names}
    assert watched.n_points() < 20_000  # of 90,000 reports

    def rows() -> list[str]:
        return page.locator("#trials tbody tr td:first-child a").all_inner_texts()

    assert page.locator("#trials table").get_attribute("aria-rowcount") == str(N_TRIALS + 1)
    before = {*rows()}
    page.locator("#trials .wide").evaluate("box => { box.scrollTop = box.scrollHeight; }")
    page.locator(f"#trials tr[aria-rowindex='{N_TRIALS + 1}']").wait_for()
    page.locator("#rows-seen", has_text="10,000").wait_for()
    assert not before & {*rows()}
    assert len(rows()) <= MOST_ROWS
    page.locator("#trials .wide").evaluate("box => { box.scrollTop = box.scrollHeight / 2; }")
    page.locator("#trials tr[aria-rowindex='5002']").wait_for()
    assert len(rows()) <= MOST_ROWS

    page.get_by_role("link", name="trial", exact=True).click()  # by its number, the largest first
    page.locator("#trials tbody a", has_text="9999").wait_for()
    page.get_by_label("Show trials of which it holds").fill("number < 150 and state == 'COMPLETE'")
    page.keyboard.press("Enter")
    page.locator("#rows-shown", has_text="of 50 trials that match").wait_for()
    assert len(rows()) == 50
    page.locator("#findings", has_text="decides").wait_for()  # of 3,334 COMPLETE trials, after the plots
