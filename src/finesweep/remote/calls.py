"""Asking a server that may be slow, busy or away for a while. In: a question. Out: its answer, or why there is none.

Transient faults (429, most 5xx, timeouts, broken connections, a proxy's pages) are asked again, later and later, with
some chance in it, and not before a server says; for as long as patience lasts. All others are raised at once, in our
words.
"""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

import httpx2
import openai

from finesweep.errors import RemoteError, ServerAwayError
from finesweep.secrets import hide

FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 60.0
LOOKS = 4  # for what an answer that was lost may have told of: a server's lists may lag behind what it has done
_PERMANENT = (501, 505)  # a server will not learn it by being asked again
_SPENT_CODES = ("insufficient_quota", "billing_hard_limit_reached")  # come as 429, and stay
_NOT_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)
_ADDRESS = "does remote.base_url end as the server's address does, as in /v1?"

Answer = TypeVar("Answer")


class NotOfProtocolError(Exception):
    """An answer that came with a status of success is not what the protocol says; often it is a proxy's page."""


class NotYetError(Exception):
    """The server cannot do it yet, and has not done it."""


class Calls:
    """Asks again as long as it makes sense."""

    def __init__(
        self,
        *,
        patience_s: float,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        chance: random.Random | None = None,
    ) -> None:
        self._patience_s, self._sleep, self._clock = patience_s, sleep, clock
        self._chance = chance or random.Random()

    def ask(
        self,
        question: Callable[[], Answer],
        *,
        what: str,
        found: Callable[[], Answer | None] | None = None,
    ) -> Answer:
        """Ask until there is an answer.

        Args:
            what: is asked for, for messages.
            found: whether what was asked for was done all the same. Asked before each further try of what must not be
                done twice, several times where an answer was lost; it asks by itself, without patience.

        Raises:
            RemoteError: the server says no.
            ServerAwayError: it did not answer for as long as patience lasts.
        """
        began_s, n, n_looks = self._clock(), 0, 1
        while True:
            is_asked = False
            try:
                if n and found is not None:
                    if (answer := self._look(found, n_looks)) is not None:
                        return answer
                    n_looks = 1
                is_asked = True
                return question()
            except openai.APIConnectionError as error:  # timeouts among them
                reason, told_s = _connection_text(error), 0.0
                may_be_done = not isinstance(error.__cause__, _NOT_SENT)
            except openai.APIStatusError as error:
                if not _is_transient(error):
                    raise remote_error(error, what) from None
                reason, told_s = f"{error.status_code}: {error.message}", _told_to_wait_s(error)
                may_be_done = error.status_code == 408 or error.status_code >= 500
            except (NotOfProtocolError, json.JSONDecodeError, UnicodeDecodeError) as error:
                reason, told_s, may_be_done = _strange_text(error), 0.0, True
            except NotYetError as error:
                reason, told_s, may_be_done = str(error), 0.0, False
            if is_asked and may_be_done:
                n_looks = LOOKS
            pause_s = told_s + self._backoff_s(n)  # with its chance, lest all who were told the same return together
            if self._clock() - began_s + pause_s > self._patience_s:
                asks = f"; it asks to wait {told_s:,.0f} s" if told_s else ""
                patience = f"{self._patience_s / 60:.3g} min"
                raise ServerAwayError(
                    f"{what}: the server did not answer for {patience} (at last {hide(reason)}{asks})"
                )
            self._sleep(pause_s)
            n += 1

    def _look(self, found: Callable[[], Answer | None], n_looks: int) -> Answer | None:
        """Look whether something was done, the more often the likelier it is: what was done may be shown later."""
        for look in range(n_looks):
            if look:
                self._sleep(FIRST_WAIT_S * 2 ** (look - 1))
            if (answer := found()) is not None:
                return answer
        return None

    def _backoff_s(self, n: int) -> float:
        """Choose from 50 to 100 % of a wait that doubles, so that those who were refused together do not return so."""
        wait_s: float = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** min(n, 10))
        return wait_s * (0.5 + 0.5 * self._chance.random())


def remote_error(error: openai.APIStatusError, what: str) -> RemoteError:
    """Put a refusal into our words; the key, should a server repeat it, is left out."""
    code = f" ({error.code})" if error.code else ""
    hint = {
        401: " Check the key in the variable that remote.api_key_env names.",
        403: " The key may not do this.",
    }.get(error.status_code, "" if isinstance(error.body, dict) else f"; {_ADDRESS}")
    message = hide(f"{what}: the server says {error.status_code}{code}: {_said(error)}{hint}")
    return RemoteError(message, error.code, error.status_code)


def _said(error: openai.APIStatusError) -> str:
    body = error.body
    message = body.get("message") if isinstance(body, dict) else None
    return str(message or error.message)


def _connection_text(error: openai.APIConnectionError) -> str:
    """The client says that there was no connection; its cause says why."""
    cause = error.__cause__
    return f"{type(error).__name__}: {error}{f' ({cause})' if cause is not None and str(cause) else ''}"


def _strange_text(error: Exception) -> str:
    said = str(error) if isinstance(error, NotOfProtocolError) else f"its answer is no JSON ({error})"
    return f"{said}; {_ADDRESS}"


def _is_transient(error: openai.APIStatusError) -> bool:
    if error.code in _SPENT_CODES:
        return False
    return error.status_code in (408, 409, 425, 429) or (
        error.status_code >= 500 and error.status_code not in _PERMANENT
    )


def _told_to_wait_s(error: openai.APIStatusError) -> float:
    """Read Retry-After, a number of seconds or a date; 0 where it is neither."""
    for header, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            wait_s = float(error.response.headers[header]) * unit_s
        except (KeyError, ValueError):
            continue
        if 0 <= wait_s < math.inf:
            return wait_s
    with suppress(KeyError, TypeError, ValueError):
        until = parsedate_to_datetime(error.response.headers["retry-after"])
        return max(0.0, (until - datetime.now(UTC)).total_seconds())
    return 0.0
