"""The dashboard in a real browser: Debian's Chromium, driven by Playwright. Skipped where either is missing."""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, distribution_to_json
from optuna.storages import RDBStorage
from tests.browser.conftest import Watched, served

from finesweep.events import Event, Grid, TrialState
from finesweep.results.lease import Holder
from finesweep.results.writer import ResultsWriter, open_writer
from finesweep.spec.sweep import SweepSpec

PARAMETERS = {
    "learning_rate": {"type": "float", "low": 1e-6, "high": 1e-1, "log": True},
    "batch_size": {"type": "categorical", "choices": [8, 16, 32]},
}
STUDY = {
    "objective": {"metric": "accuracy", "direction": "maximize"},
    "pruner": {"type": "asha", "first_rung": 100, "reduction_factor": 2},
    "parameters": PARAMETERS,
}
DISTRIBUTIONS = {
    "learning_rate": distribution_to_json(FloatDistribution(1e-6, 1e-1, log=True)),
    "batch_size": distribution_to_json(CategoricalDistribution([8, 16, 32])),
}
N_COMPLETE = 24
POINTS = "document.querySelector('#curves').data.flatMap(t => Array.from(t.y)).filter(y => y !== null).length"


@pytest.fixture
def writer(
    tmp_path: Path, make_spec: Callable[..., SweepSpec], trial_events: Callable[..., list[Event]]
) -> Iterator[ResultsWriter]:
    """Keep a sweep that is driven, of many COMPLETE trials, a PRUNED, a FAILED and a RUNNING one."""
    chance = random.Random(0)
    with open_writer(tmp_path / "r.db") as opened:
        grid = Grid("examples", 100, 400)
        opened.create_sweep(make_spec(study=STUDY), grid=grid, provenance={"artifact_dir": str(tmp_path)})
        opened.create_sweep(make_spec("other", study=STUDY), grid=grid, provenance={"artifact_dir": str(tmp_path)})
        opened.acquire("tickets", Holder.this_process())
        for number in range(N_COMPLETE + 2):
            configuration = {"learning_rate": 10 ** chance.uniform(-6, -1), "batch_size": chance.choice([8, 16, 32])}
            value = 0.9 - abs(math.log10(configuration["learning_rate"]) + 3) / 10
            values, state = [value - 0.2, value], TrialState.COMPLETE
            if number >= N_COMPLETE:
                values, state = [0.1], (TrialState.PRUNED, TrialState.FAILED)[number - N_COMPLETE]
            reason = None if state is TrialState.COMPLETE else "<img src=x onerror=alert(1)>"
            suggested, *rest = trial_events(number, values, state=state, reason=reason, configuration=configuration)
            events = [replace(suggested, distributions=DISTRIBUTIONS), *rest]
            opened.listener("tickets")(events)
            if number < 3:
                opened.listener("other")(events)
        opened.listener("tickets")(trial_events(N_COMPLETE + 2, (0.3,), state=None, configuration=configuration))
        yield opened


@pytest.fixture
def address(writer: ResultsWriter) -> Iterator[str]:
    with served(writer.url) as served_at:
        yield served_at


def test_from_the_first_page_to_an_exported_configuration(open_page: Callable[..., Watched]) -> None:
    watched = open_page("/")
    page = watched.page
    page.get_by_label("Search by name").fill("tick")
    page.locator("#sweeps:not(:has-text('other'))").wait_for()
    page.get_by_role("link", name="tickets").click()
    watched.plot("#curves")

    page.locator("#parallel").scroll_into_view_if_needed()
    grip = page.locator("[data-axis=learning_rate]")
    grip.scroll_into_view_if_needed()
    box = grip.bounding_box()
    middle = box["x"] + box["width"] / 2
    page.mouse.move(middle, box["y"] + box["height"] * 0.2)
    page.mouse.down()
    page.mouse.move(middle, box["y"] + box["height"] * 0.6, steps=5)
    page.mouse.up()
    page.locator("#rows-shown", has_text="that match").wait_for()
    where = page.locator("#where").input_value()
    assert re.fullmatch(r"learning_rate >= \S+ and learning_rate <= \S+", where)
    low, high = map(float, re.findall(r"= (\S+)", where))
    rates = [float(text) for text in page.locator("#trials tbody td:nth-child(5)").all_inner_texts()]
    assert rates and all(0.9 * low <= rate <= 1.1 * high for rate in rates)
    assert "where=" in page.url

    page.get_by_role("button", name="Clear the ranges").click()
    page.locator("#rows-shown", has_text=f"of {N_COMPLETE + 3} trials").wait_for()
    page.get_by_label("Show trials of which it holds").fill("state == 'COMPLETE' and batch_size == 8")
    page.keyboard.press("Enter")
    page.locator("#rows-shown", has_text="that match").wait_for()
    assert set(page.locator("#trials tbody td:nth-child(6)").all_inner_texts()) == {"8"}

    page.locator("#trials tbody a").first.click()
    page.locator("h1", has_text="Trial").wait_for()
    page.wait_for_function("() => document.querySelector('#curves > div')?.data")
    with page.expect_download() as download:
        page.get_by_role("link", name="Export the configuration").click()
    exported = json.loads(Path(download.value.path()).read_text())
    assert exported["configuration"]["batch_size"] == 8


def test_a_new_report_appears_without_a_reload(
    open_page: Callable[..., Watched], writer: ResultsWriter, trial_events: Callable[..., list[Event]]
) -> None:
    watched = open_page("/sweep/tickets")
    watched.plot("#curves")
    before = watched.n_points()
    watched.page.evaluate("() => { window.isTheSame = true; }")
    suggested, *rest = trial_events(N_COMPLETE + 3, (0.2, 0.95), configuration={"learning_rate": 1e-3, "batch_size": 8})
    writer.listener("tickets")([replace(suggested, distributions=DISTRIBUTIONS), *rest])
    watched.page.wait_for_function(f"n => {POINTS} === n", arg=before + 2)
    watched.page.locator("#head", has_text=f"0.95 (trial {N_COMPLETE + 3})").wait_for()
    assert watched.page.evaluate("() => window.isTheSame") is True


def test_optunas_own_dashboard_stands_beside_it(open_page: Callable[..., Watched], writer: ResultsWriter) -> None:
    study = optuna.create_study(storage=RDBStorage(writer.url), study_name="tickets", direction="maximize")
    rates = {"learning_rate": FloatDistribution(1e-6, 1e-1, log=True)}
    for number in range(5):
        params = {"learning_rate": 10.0**-number / 10}
        study.add_trial(optuna.trial.create_trial(value=0.1 * number, params=params, distributions=rates))
    watched = open_page("/")
    watched.page.get_by_role("link", name="Optuna's own").click()
    watched.page.get_by_text("tickets").first.click()
    watched.page.get_by_role("heading", name="History").wait_for()
    assert watched.page.url.endswith("/dashboard/studies/1")


@pytest.mark.parametrize(("width", "scheme"), [(1280, "dark"), (390, "light")])
def test_pages_fit_their_width_and_follow_the_colour_scheme(
    open_page: Callable[..., Watched], width: int, scheme: str
) -> None:
    options = {"viewport": {"width": width, "height": 800}, "color_scheme": scheme}
    watched = open_page("/sweep/tickets", **options)
    page = watched.page
    watched.plot("#curves")
    shade = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
    ink = page.evaluate("() => document.querySelector('#curves').layout.font.color")
    assert (shade, ink) == (("rgb(20, 23, 26)", "#e8eaed") if scheme == "dark" else ("rgb(255, 255, 255)", "#16191d"))
    for path in ("/", "/sweep/tickets", "/sweep/tickets/trial/0", "/compare?sweep=tickets&sweep=other"):
        page.goto(_base(page.url) + path)
        assert page.evaluate("() => document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize(
    "path", ["/", "/sweep/tickets", "/sweep/tickets/trial/0", "/compare?sweep=tickets&sweep=other"]
)
def test_a_screen_reader_and_a_keyboard_find_their_way(open_page: Callable[..., Watched], path: str) -> None:
    """By axe-core's rules of WCAG 2, without findings that it calls serious or critical; the first stop skips ahead."""
    axe = pytest.importorskip("axe_playwright_python", reason="axe-playwright-python is not installed")
    watched = open_page(path)
    page = watched.page
    page.wait_for_load_state("networkidle")
    page.keyboard.press("Tab")
    assert page.evaluate("() => document.activeElement.className") == "skip"
    page.evaluate((Path(axe.__file__).parent / "axe.min.js").read_text(encoding="utf-8"))
    found = page.evaluate("() => axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa']})")
    serious = [
        (violation["id"], [node["html"][:200] for node in violation["nodes"][:3]])
        for violation in found["violations"]
        if violation["impact"] in ("serious", "critical")
    ]
    assert serious == []


def _base(url: str) -> str:
    return "/".join(url.split("/")[:3])
