"""Serving the dashboard: on which address, behind which token. In: what the command line was told."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable

import uvicorn

from finesweep import notebook
from finesweep.dashboard.app import make_app, warm_up
from finesweep.dashboard.control import Verb
from finesweep.dashboard.guard import PARAMETER
from finesweep.listening import address_of, check_token, is_loopback, listen
from finesweep.results.url import redacted


def serve(
    results: notebook.Results,
    *,
    host: str,
    port: int,
    token: str | None,
    say: Callable[[str], None],
    verb: Verb | None = None,
) -> None:
    """Serve until interrupted. On another address than the loopback there is always a token, made where none is given.

    With `verb` the pages have buttons that run verbs of the command line.

    Raises ResourcesError for a token that is too short, or a port that is taken.
    """
    check_token(token)
    if token is None and not is_loopback(host):
        token = secrets.token_urlsafe(24)
    app = make_app(results, token=token, verb=verb)
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,  # its lines would hold the token
        server_header=False,
        proxy_headers=False,
    )
    threading.Thread(target=warm_up, args=(app,), name="warm-up", daemon=True).start()
    with listen(host, port) as listening:
        address = f"{address_of(listening, host)}/"
        say(f"{redacted(results.url)} at {address if token is None else f'{address}?{PARAMETER}={token}'}")
        say("Ctrl-C ends it.")
        uvicorn.Server(config).run(sockets=[listening])
