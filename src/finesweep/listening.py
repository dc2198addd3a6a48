"""Opening a port for a server of ours: who can reach it, and what guards it."""

from __future__ import annotations

import socket
from ipaddress import ip_address

from finesweep.errors import ResourcesError

LAST_PORT = 65535
SHORTEST_TOKEN = 16  # characters


def listen(host: str, port: int) -> socket.socket:
    """Open a port. Raises ResourcesError for one that is taken."""
    if not 0 <= port <= LAST_PORT:  # what is beyond would be counted from 0 again
        raise ResourcesError(f"--port {port}: must be from 0 to {LAST_PORT}; 0 is a free one.")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address, family=family)
    except OSError as error:
        raise ResourcesError(
            f"--host {host} --port {port}: {error.strerror or error}. Choose another port, 0 for a free one."
        ) from None


def address_of(listening: socket.socket, host: str) -> str:
    """Write where a server is reached that listens at a host, without a path."""
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{listening.getsockname()[1]}"


def check_token(token: str | None) -> None:
    """Raise ResourcesError for a token that could be guessed."""
    if token is not None and len(token) < SHORTEST_TOKEN:
        raise ResourcesError(
            f"--token: it has {len(token)} characters; give at least {SHORTEST_TOKEN}, or none at all."
        )


def names_loopback(header: str) -> bool:
    """Tell whether a Host header names this machine's loopback: a page of elsewhere, led here by its name, does not."""
    if header.startswith("["):
        name = header[1:].partition("]")[0]
    else:
        name = header.rpartition(":")[0] if header.count(":") == 1 else header
    return is_loopback(name)


def is_loopback(host: str) -> bool:
    """Tell whether an address can be reached from this machine alone."""
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
