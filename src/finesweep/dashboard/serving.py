"""Serving the dashboard: on which address, behind which token. In: what the command line was told."""

from __future__ import annotations

import secrets
import socket
import threading
from collections.abc import Callable
from ipaddress import ip_address

import uvicorn

from finesweep import notebook
from finesweep.dashboard.app import make_app, warm_up
from finesweep.dashboard.control import Verb
from finesweep.dashboard.guard import PARAMETER
from finesweep.errors import ResultsError
from finesweep.results.url import redacted

SHORTEST_TOKEN = 16  # characters


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

    Raises ResultsError for a token that is too short, or a port that is taken.
    """
    if token is not None and len(token) < SHORTEST_TOKEN:
        raise ResultsError(f"--token: it has {len(token)} characters; give at least {SHORTEST_TOKEN}, or none at all.")
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
        shown = f"[{host}]" if ":" in host else host
        address = f"http://{shown}:{listening.getsockname()[1]}/"
        say(f"{redacted(results.url)} at {address if token is None else f'{address}?{PARAMETER}={token}'}")
        say("Ctrl-C ends it.")
        uvicorn.Server(config).run(sockets=[listening])


def listen(host: str, port: int) -> socket.socket:
    """Open a port. Raises ResultsError for one that is taken."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address, family=family)
    except OSError as error:
        raise ResultsError(
            f"--host {host} --port {port}: {error.strerror or error}. Choose another port, 0 for a free one."
        ) from None


def is_loopback(host: str) -> bool:
    """Tell whether an address can be reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
