"""Optuna's own dashboard beside ours, for those who know it. In: a results database. Out: an ASGI app.

It reads Optuna's tables, a copy that follows the trials that have ended. Its paths are absolute, and so they are what
it is served at. It is given a connection that cannot write, and the guard lets only reading requests through.
"""

from __future__ import annotations

import threading
from typing import Any

import sqlalchemy as sa
from starlette.concurrency import run_in_threadpool
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from finesweep.errors import FinesweepError, ResultsError
from finesweep.results.database import read
from finesweep.results.url import redacted

PAGE = "/dashboard"
POLICY = "; ".join(  # of its pages: parallel coordinates on WebGL need `eval`
    (
        "default-src 'none'",
        "script-src 'self' 'unsafe-eval'",
        "style-src 'self' data: 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_PATHS = (PAGE, "/dashboard/{rest:path}", "/api/{rest:path}", "/static/{rest:path}", "/csv/{rest:path}", "/favicon.ico")


class OptunasDashboard:
    """Makes Optuna's dashboard when it is first asked for: its imports take a second."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._app: ASGIApp | None = None
        self._lock = threading.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer: ASGIApp
        try:
            answer = await run_in_threadpool(self._made)
        except FinesweepError as error:
            answer = PlainTextResponse(f"{error}\n", 503)
        await answer(scope, receive, send)

    def _made(self) -> ASGIApp:
        with self._lock:
            if self._app is None:
                self._app = _make(self._url)
            return self._app


def routes(url: str) -> list[Route]:
    """Give the routes of Optuna's dashboard of a results database."""
    app = OptunasDashboard(url)
    return [Route(path, app) for path in _PATHS]


def _make(url: str) -> Any:  # Any: a2wsgi has ASGI types of its own
    try:
        from a2wsgi import WSGIMiddleware
        from optuna_dashboard import wsgi

        from finesweep.search.mirror import open_to_read  # imports optuna
    except ModuleNotFoundError as error:
        raise ResultsError(
            f"Optuna's dashboard needs {error.name}. Run: pip install 'finesweep[dashboard]'."
        ) from error
    if not read(url, lambda connection: sa.inspect(connection).has_table("studies")):
        raise ResultsError(f"{redacted(url)} has no tables of Optuna's yet: they come with the first trial that ends.")
    return WSGIMiddleware(wsgi(open_to_read(url)), workers=4)
