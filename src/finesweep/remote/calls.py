"""Asking a server that may be slow, busy or away for a while. In: a question. Out: its answer, or why there is none.

Transient faults (429, 5xx, timeouts, broken connections) are asked again, later and later, with some chance in it, and
not before a server says; for as long as patience lasts. All others are raised at once, in our words.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

import openai

from finesweep.errors import RemoteError, ServerAwayError
from finesweep.secrets import hide

FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 60.0

Answer = TypeVar("Answer")


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
                done twice; it asks by itself, without patience.

        Raises:
            RemoteError: the server says no.
            ServerAwayError: it did not answer for as long as patience lasts.
        """
        began_s, n = self._clock(), 0
        while True:
            try:
                if n and found is not None and (answer := found()) is not None:
                    return answer
                return question()
            except openai.APIConnectionError as error:  # timeouts among them
                reason, wait_s = f"{type(error).__name__}: {error}", None
            except openai.APIStatusError as error:
                if not _is_transient(error):
                    raise remote_error(error, what) from None
                reason, wait_s = f"{error.status_code}: {error.message}", _told_to_wait_s(error)
            pause_s = wait_s if wait_s is not None else self._backoff_s(n)
            if self._clock() - began_s + pause_s > self._patience_s:
                raise ServerAwayError(
                    f"{what}: the server did not answer for {self._patience_s / 60:.3g} min (at last {hide(reason)})"
                )
            self._sleep(pause_s)
            n += 1

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
    }.get(error.status_code, "")
    return RemoteError(f"{what}: the server says {error.status_code}{code}: {hide(_said(error))}{hint}", error.code)


def _said(error: openai.APIStatusError) -> str:
    body = error.body
    message = body.get("message") if isinstance(body, dict) else None
    return str(message or error.message)


def _is_transient(error: openai.APIStatusError) -> bool:
    if error.code == "insufficient_quota":  # comes as 429, and stays
        return False
    return error.status_code in (408, 409, 429) or error.status_code >= 500


def _told_to_wait_s(error: openai.APIStatusError) -> float | None:
    """Read Retry-After, where it is a number of seconds."""
    for header, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            wait_s = float(error.response.headers[header]) * unit_s
        except (KeyError, ValueError):
            continue
        if 0 <= wait_s < 3600:
            return wait_s
    return None
