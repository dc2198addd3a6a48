"""The app: which address is answered by what, and how an error looks. In: results, perhaps a token. Out: ASGI."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from finesweep import notebook
from finesweep.dashboard import compare, control, home, optunas, sweep, trial
from finesweep.dashboard.cached import CachedResults
from finesweep.dashboard.guard import Guard
from finesweep.dashboard.page import rendered, results_of
from finesweep.errors import ExportError, FinesweepError, ResultsError, SpecError, SweepNameError

ASSETS = Path(__file__).parent / "assets"


def make_app(results: notebook.Results, *, token: str | None = None, verb: control.Verb | None = None) -> Starlette:
    """Make the dashboard of a results database. Raises ResultsError without plotly.

    Without a token it answers requests to the loopback's names alone. With `verb` its pages have buttons, which run
    verbs of the command line; without it they only read.
    """
    plotly = _plotly_path()
    name, number = "/sweep/{sweep}", "/sweep/{sweep}/trial/{number:int}"
    routes = [
        Route("/", _page(home.page)),
        Route("/parts/sweeps", _page(home.sweeps_part)),
        Route("/marks", _data(_marks)),
        Route(name, _page(sweep.page)),
        Route(f"{name}/parts/{{part}}", _page(sweep.part)),
        Route(f"{name}/figures/{{figure}}", _data(sweep.figure)),
        Route(f"{name}/parallel", _data(sweep.parallel)),
        Route(number, _page(trial.page)),
        Route(f"{number}/parts/{{part}}", _page(trial.part)),
        Route(f"{number}/curves", _data(trial.curves)),
        Route(f"{number}/export.json", _page(trial.export)),
        *([Route(f"{name}/control", control.act, methods=["POST"])] if verb is not None else []),
        Route("/compare", _page(compare.page)),
        Route("/compare/figures/{axis}", _data(compare.figure)),
        Route("/plotly.js", partial(_script, plotly)),
        Mount("/assets", StaticFiles(directory=ASSETS)),
        *optunas.routes(results.url),
    ]
    app = Starlette(
        routes=routes,
        middleware=[
            Middleware(Guard, token=token, may_post=verb is not None, policies={optunas.PAGE: optunas.POLICY}),
            Middleware(GZipMiddleware, minimum_size=2000),
        ],
        exception_handlers={HTTPException: _http_error, FinesweepError: _our_error, Exception: _unforeseen},
    )
    app.state.control = None if verb is None else control.Control(verb, clock=results.clock)
    app.state.results = CachedResults(results.url, results.clock)
    return app


def warm_up(app: Starlette) -> None:
    """Do what the first page would wait for: import plotly, pack its script, read the newest sweep."""
    import plotly.graph_objects  # noqa: F401 - it is imported when a figure is made

    _packed(_plotly_path())
    results: CachedResults = app.state.results
    with suppress(FinesweepError):  # whoever opens the page is told
        for name in results.sweeps()["sweep"].tail(1):
            results.trials(name)
            results.attempts(name)


_LONG = {"Cache-Control": "private, max-age=86400"}  # it changes with the installed package alone


def _script(path: Path, request: Request) -> Response:
    """Give plotly.js, packed once and not for each request: that takes a fifth of a second."""
    if "gzip" not in request.headers.get("accept-encoding", ""):
        return FileResponse(path, media_type="text/javascript", headers=_LONG)
    headers = {**_LONG, "Content-Encoding": "gzip", "Vary": "Accept-Encoding"}
    return Response(_packed(path), media_type="text/javascript", headers=headers)


@cache
def _packed(path: Path) -> bytes:
    return gzip.compress(path.read_bytes(), compresslevel=6)


def _page(answer: Callable[[Request], Response]) -> Callable[[Request], Response]:
    """Answer with a page, in words where there is none to give. Runs in a thread, as it reads the database."""

    def answered(request: Request) -> Response:
        try:
            return _with_tag(request, answer(request))
        except FinesweepError as error:
            return _error_page(request, str(error), _status(error))

    return answered


def _status(error: FinesweepError) -> int:
    match error:
        case SweepNameError():
            return 404
        case ExportError() | SpecError():
            return 409  # what is asked for is there, but not so that it can be given
        case _:
            return 503


def _data(answer: Callable[[Request], str]) -> Callable[[Request], Response]:
    """Answer with JSON; where there is nothing to draw, with the reason why, which is no fault."""

    def answered(request: Request) -> Response:
        try:
            text, status = answer(request), 200
        except SweepNameError as error:
            text, status = json.dumps({"nothing": str(error)}), 404
        except ResultsError as error:
            text, status = json.dumps({"nothing": str(error)}), 200
        return _with_tag(request, Response(text, status, media_type="application/json"))

    return answered


def _with_tag(request: Request, answer: Response) -> Response:
    """Let a browser that has the same already keep it."""
    if answer.status_code != 200 or isinstance(answer, FileResponse):
        return answer
    tag = f'"{hashlib.sha256(bytes(answer.body)).hexdigest()[:24]}"'
    headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    answer.headers.update(headers)
    return answer


def _marks(request: Request) -> str:
    """Tell what changes when there is news, of all sweeps or of those asked for."""
    results = results_of(request)
    wanted = request.query_params.getlist("sweep")
    marks = results.marks()
    return json.dumps({name: mark for name, mark in marks.items() if not wanted or name in wanted})


def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    text = "There is no such page." if error.detail == "Not Found" else str(error.detail)
    return _error_page(request, text, error.status_code)


def _our_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, FinesweepError)
    return _error_page(request, str(error), _status(error))


def _unforeseen(request: Request, error: Exception) -> Response:
    return _error_page(request, f"The page could not be made: {type(error).__name__}. The terminal says more.", 500)


def _error_page(request: Request, text: str, status: int) -> Response:
    if request.url.path.rpartition("/")[0].endswith(("/figures", "/parts")):
        return JSONResponse({"nothing": text}, status)
    return HTMLResponse(
        rendered("error.html", request, title="Not there" if status == 404 else "No page", text=text), status
    )


def _plotly_path() -> Path:
    try:
        import plotly
    except ModuleNotFoundError as error:
        raise ResultsError("the dashboard needs plotly. Run: pip install 'finesweep[dashboard]'.") from error
    origin: Any = plotly.__file__  # Any: plotly is untyped
    return Path(origin).parent / "package_data" / "plotly.min.js"
