"""Ports of servers of ours: opened, named, guarded."""

from __future__ import annotations

import socket

import pytest

from finesweep.errors import ResourcesError
from finesweep.listening import SHORTEST_TOKEN, address_of, check_token, is_loopback, listen, names_loopback


def test_a_free_port_is_found_and_named() -> None:
    with listen("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]
        assert port > 0
        assert address_of(listening, "127.0.0.1") == f"http://127.0.0.1:{port}"
        with socket.create_connection(("127.0.0.1", port)):
            pass


@pytest.mark.skipif(not socket.has_ipv6, reason="needs IPv6")
def test_addresses_with_colons_stand_in_brackets() -> None:
    with listen("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]
        assert address_of(listening, "::1") == f"http://[::1]:{port}"


def test_a_port_that_is_taken_is_told_with_the_way_out() -> None:
    with listen("127.0.0.1", 0) as listening:
        port = listening.getsockname()[1]
        with pytest.raises(ResourcesError, match=rf"--host 127\.0\.0\.1 --port {port}: .*Choose another port, 0 for a"):
            listen("127.0.0.1", port)


@pytest.mark.parametrize("host", ["no-such-host.invalid", "999.1.1.1", "192.0.2.1"])
def test_a_host_that_is_not_this_machine_is_told(host: str) -> None:
    with pytest.raises(ResourcesError, match=rf"--host {host} --port 0: "):
        listen(host, 0)


@pytest.mark.parametrize("port", [-1, 65536, 99999])
def test_numbers_that_are_no_ports_are_told(port: int) -> None:
    with pytest.raises(ResourcesError, match=rf"--port {port}: "):
        listen("127.0.0.1", port)


@pytest.mark.parametrize(
    ("host", "alone"),
    [
        ("127.0.0.1", True),
        ("127.8.9.10", True),
        ("::1", True),
        ("localhost", True),
        ("LOCALHOST", True),
        ("0.0.0.0", False),
        ("::", False),
        ("", False),
        ("192.168.1.7", False),
        ("localhost.example.org", False),
        ("127.0.0.1.example.org", False),
    ],
)
def test_who_can_reach_an_address(host: str, alone: bool) -> None:
    assert is_loopback(host) is alone


@pytest.mark.parametrize(
    ("header", "ours"),
    [
        ("127.0.0.1:8777", True),
        ("127.0.0.1", True),
        ("127.0.0.2:8777", True),  # where it may listen without a token, it answers
        ("localhost:80", True),
        ("LocalHost", True),
        ("[::1]:8777", True),
        ("[::1]", True),
        ("::1", True),
        ("", False),
        ("evil.example", False),
        ("192.168.1.7:8777", False),
        ("127.0.0.1.evil.example:8777", False),
        ("localhost.evil.example", False),
        ("[evil.example]:80", False),
    ],
)
def test_pages_of_elsewhere_that_are_led_here_are_known_by_their_name(header: str, ours: bool) -> None:
    assert names_loopback(header) is ours


def test_tokens_that_could_be_guessed_are_refused_and_not_repeated() -> None:
    check_token(None)
    check_token("x" * SHORTEST_TOKEN)
    for token in ("", "secret-15-chars"):
        with pytest.raises(
            ResourcesError, match=f"--token: it has {len(token)} characters; give at least 16"
        ) as raised:
            check_token(token)
        assert not token or token not in str(raised.value)
