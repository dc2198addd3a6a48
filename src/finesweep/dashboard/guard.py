"""Who may ask: the token, the Host header, and what every answer says to the browser.

An ASGI middleware around the whole app. Knows nothing of what is served.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from finesweep.listening import names_loopback

COOKIE = "finesweep_token"
PARAMETER = "token"  # of the query, once; then the cookie has it

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self' 'unsafe-inline'",  # plotly.js writes its own rules into the page, and leaves without them
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",  # without any a browser would not say that a form is our own
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


@dataclass(frozen=True, slots=True)
class Guard:
    """Let through what may ask. Without a token only requests to a name of the loopback are answered.

    A name that a stranger's page resolves to 127.0.0.1 (DNS rebinding) is none of these.
    """

    app: ASGIApp
    token: str | None
    may_post: bool = False
    policies: Mapping[str, str] = field(default_factory=dict)  # of paths that begin so, instead of ours

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers["Content-Security-Policy"] = self._policy(scope["path"])
                if "cache-control" not in headers:
                    headers["Cache-Control"] = "no-store"
            await send(message)

        refusal = self._refusal(HTTPConnection(scope))
        await (self.app if refusal is None else refusal)(scope, receive, send_guarded)

    def _policy(self, path: str) -> str:
        return next((policy for begin, policy in self.policies.items() if path.startswith(begin)), POLICY)

    def _refusal_of_method(self, asked: HTTPConnection) -> Response | None:
        method = asked.scope["method"]
        if method in ("GET", "HEAD"):
            return None
        is_button = asked.url.path.startswith("/sweep/") and asked.url.path.endswith("/control")
        if not (self.may_post and method == "POST" and is_button):
            return PlainTextResponse("This dashboard only reads.\n", 405, headers={"Allow": "GET, HEAD"})
        if not _is_from_own_page(asked):
            return PlainTextResponse("Only a page of this dashboard may ask for that.\n", 403)
        return None

    def _refusal(self, asked: HTTPConnection) -> Response | None:
        refusal = self._refusal_of_method(asked)
        if refusal is not None:
            return refusal
        if self.token is None:
            if names_loopback(asked.headers.get("host", "")):
                return None
            return PlainTextResponse("Open this dashboard as http://127.0.0.1 or http://localhost.\n", 421)
        given = asked.query_params.get(PARAMETER)
        if given is not None and _same(given, self.token):
            rest = asked.url.remove_query_params(PARAMETER)
            answer = RedirectResponse(f"/{rest.path.lstrip('/')}" + (f"?{rest.query}" if rest.query else ""), 303)
            answer.set_cookie(COOKIE, self.token, httponly=True, samesite="strict", path="/")
            return answer
        if given is None and _same(asked.cookies.get(COOKIE, ""), self.token):
            return None
        return PlainTextResponse(
            "This dashboard needs its token: open the address that `finesweep dashboard` printed.\n", 401
        )


def _is_from_own_page(asked: HTTPConnection) -> bool:
    """Tell whether a form was sent by a page of this address, as every browser says of one that changes something."""
    origin, host = asked.headers.get("origin", ""), asked.headers.get("host", "")
    return bool(host) and origin.lower() in (f"http://{host.lower()}", f"https://{host.lower()}")


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())
