"""Pictures of the dashboard for the README: the real quickstart in a real browser. Run by `make screenshots`.

    python tools/screenshots.py demo/finesweep.db docs/images

Needs playwright (of the development tools) and chromium; where the database has no quickstart yet, it is run first.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from playwright.sync_api import Page, sync_playwright

from finesweep.dashboard.app import make_app, warm_up
from finesweep.errors import FinesweepError
from finesweep.notebook import Results, open_results

SWEEP = "quickstart"
FILE = Path("sweeps/quickstart.yaml")
DRAWN = "() => [...document.querySelectorAll('.canvas')].every(one => one.data || one.classList.contains('bare'))"


@dataclass(frozen=True)
class Picture:
    """A page as it is shown: its path, what it looks like, how much of it."""

    name: str
    path: str
    width: int = 1280
    height: int = 1000
    scheme: str = "light"


def main(database: Path, folder: Path) -> None:
    results = _with_quickstart(database)
    best = results.best(SWEEP)
    assert best is not None, "the quickstart completes trials"
    pictures = (
        Picture("sweep", f"/sweep/{SWEEP}", height=1350),
        Picture("trial", f"/sweep/{SWEEP}/trial/{best.number}", height=1000),
        Picture("sweep-dark-phone", f"/sweep/{SWEEP}", width=390, height=1000, scheme="dark"),
    )
    folder.mkdir(parents=True, exist_ok=True)
    with _served(results) as address, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for picture in pictures:
            size = {"width": picture.width, "height": picture.height}
            page = browser.new_page(viewport=size, color_scheme=picture.scheme)
            page.goto(address + picture.path)
            _draw_all(page)
            path = folder / f"{picture.name}.png"
            page.screenshot(path=path)
            print(path)
        browser.close()


def _draw_all(page: Page) -> None:
    """Bring each plot into sight once: those out of sight are not drawn."""
    page.wait_for_load_state("networkidle")
    for canvas in page.locator(".canvas").all():
        canvas.scroll_into_view_if_needed()
    page.wait_for_function(DRAWN)
    page.evaluate("() => window.scrollTo({ top: 0, behavior: 'instant' })")
    page.wait_for_load_state("networkidle")


def _with_quickstart(database: Path) -> Results:
    try:
        results = open_results(str(database))
        results.spec(SWEEP)
    except FinesweepError:
        database.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-m", "finesweep", "run", FILE, "--results", database], check=True)
        results = open_results(str(database))
    return results


@contextmanager
def _served(results: Results) -> Iterator[str]:
    app = make_app(results)
    warm_up(app)
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning")
    listening = config.bind_socket()
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
