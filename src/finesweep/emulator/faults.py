"""Faults to be switched on: what a client of a real server will meet one day. An ASGI middleware, and its settings."""

from __future__ import annotations

import asyncio
import random
import threading
from dataclasses import dataclass, field

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from finesweep.emulator.requests import RequestError

KINDS = ("rate_limit", "server_error", "reset_before", "reset_after", "slow", "slow_events", "validation")


@dataclass(slots=True)
class Faults:
    """How often each kind of fault befalls a request, from 0 to 1. May be changed while the server runs.

    rate_limit: 429 with Retry-After, in bursts of `burst` requests; server_error: 500, 502 or 503, nothing was done;
    reset_before, reset_after: the connection breaks before or after the request was acted on; slow: an answer takes
    `delay_s`; slow_events: the newest events of a job are not shown yet; validation: a new job fails its validation.
    """

    rates: dict[str, float] = field(default_factory=dict)
    burst: int = 3
    delay_s: float = 1.0
    retry_after_s: float = 0.2
    seed: int = 0
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    n_requests: int = 0  # that came, struck or not
    _chance: random.Random = field(init=False)
    _burst_left: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        unknown = [kind for kind in self.rates if kind not in KINDS]
        if unknown:
            raise ValueError(f"there is no fault {unknown[0]!r}. Known: {', '.join(KINDS)}.")
        wrong = [kind for kind, rate in self.rates.items() if not 0 <= rate <= 1]
        if wrong:
            raise ValueError(f"{wrong[0]} is {self.rates[wrong[0]]}, but must be from 0 to 1.")
        self._chance = random.Random(self.seed)

    def strikes(self, kind: str) -> bool:
        """Decide by chance whether a fault befalls now, and count it."""
        with self._lock:
            if kind == "rate_limit" and self._burst_left:
                self._burst_left -= 1
            elif self._chance.random() >= self.rates.get(kind, 0.0):
                return False
            elif kind == "rate_limit":
                self._burst_left = self.burst - 1
            self.counts[kind] += 1
            return True

    def choice(self, among: tuple[int, ...]) -> int:
        with self._lock:
            return self._chance.choice(among)


class BrokenConnectionError(Exception):
    """Makes the server drop the connection without an answer."""


@dataclass(frozen=True, slots=True)
class Faulty:
    """Let faults befall requests."""

    app: ASGIApp
    faults: Faults

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith("/v1/"):
            await self.app(scope, receive, send)
            return
        faults = self.faults
        faults.n_requests += 1
        if faults.strikes("slow"):
            await asyncio.sleep(faults.delay_s)
        if faults.strikes("rate_limit"):
            error = RequestError(429, "Rate limit reached. Try again later.", code="rate_limit_exceeded")
            answer = JSONResponse(error.shown(), 429, headers={"Retry-After": f"{faults.retry_after_s:g}"})
            await answer(scope, receive, send)
        elif faults.strikes("server_error"):
            status = faults.choice((500, 502, 503))
            error = RequestError(status, "The server had an error while processing your request.")
            await JSONResponse(error.shown(), status)(scope, receive, send)
        elif faults.strikes("reset_before"):
            await _break(send)
        elif faults.strikes("reset_after"):
            await self.app(scope, receive, _swallow)
            await _break(send)
        else:
            await self.app(scope, receive, send)


async def _break(send: Send) -> None:
    """Begin an answer and do not go on with it: the server then closes the connection."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1000")]})
    raise BrokenConnectionError


async def _swallow(message: Message) -> None:
    """Answer nobody."""
