"""A browser, a server and a page that watches what it asks for and complains of. Skipped where chromium is missing."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from finesweep.dashboard.app import make_app
from finesweep.notebook import open_results

CHROMIUM = shutil.which("chromium")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("there is no chromium")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


class Watched:
    """A page, and all that it asked for and complained of."""

    def __init__(self, browser: Any, **options: Any) -> None:
        self.context = browser.new_context(**({"viewport": {"width": 1280, "height": 900}} | options))
        self.page = self.context.new_page()
        self.page.set_default_timeout(30_000)
        self.asked: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        self.page.on(
            "console",
            lambda said: self.complaints.append(said.text) if said.type in ("error", "warning") else None,
        )

    def plot(self, selector: str) -> Any:
        """Wait until a plot is drawn, and give it."""
        self.page.locator(selector).scroll_into_view_if_needed()
        self.page.wait_for_function("selector => document.querySelector(selector)?.data", arg=selector)
        return self.page.locator(selector)

    def n_points(self) -> int:
        counted = (
            "() => document.querySelector('#curves').data.flatMap(t => Array.from(t.y)).filter(y => y !== null).length"
        )
        return int(self.page.evaluate(counted))


@contextmanager
def served(url: str, **options: Any) -> Iterator[str]:
    """Serve the dashboard of a database on a free port of the loopback."""
    import uvicorn

    config = uvicorn.Config(make_app(open_results(url), **options), host="127.0.0.1", port=0, log_level="error")
    listening = config.bind_socket()
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    thread.join()
    listening.close()


@pytest.fixture
def open_page(browser: Any, address: str) -> Iterator[Callable[..., Watched]]:
    """Open an address of the dashboard. At the end: no complaint, and nothing asked of anybody else."""
    opened: list[Watched] = []

    def open_one(path: str, **options: Any) -> Watched:
        watched = Watched(browser, **options)
        opened.append(watched)
        watched.page.goto(address + path)
        return watched

    yield open_one
    for watched in opened:
        assert watched.complaints == []
        assert [url for url in watched.asked if not url.startswith((address, "data:", "blob:"))] == []
        watched.context.close()
