"""Trials that come to nothing: which are begun again, and when a sweep has seen enough of one kind of failure.

In: endings and reasons. Out: yes or no. It must not know trials or Optuna.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from finesweep.events import Ending

# What may differ between two failures of one cause: numbers, addresses, and what is quoted.
_PARTICULARS = re.compile(r"0x[0-9a-fA-F]+|\d+(?:[.,]\d+)*|'[^']*'|\"[^\"]*\"")


class Retries:
    """How often a trial may be begun again, and after which endings of its attempts."""

    def __init__(self, most: int, *, after: Collection[Ending]) -> None:
        self._most = most
        self._after = frozenset(after)

    def allow(self, ending: Ending, n_spoiled: int) -> bool:
        """Tell whether a trial goes on whose attempt ended so, the n-th of its attempts that came to nothing."""
        return ending in self._after and n_spoiled <= self._most

    def explain(self, reason: str, n_spoiled: int) -> str:
        """Give the reason of a trial that is not begun again, with how often it was tried."""
        return f"{reason} ({n_spoiled} times; budget.retries is {self._most})" if n_spoiled > 1 else reason


class FailureStreak:
    """Trials that fail one after another for the same reason, with no other outcome between."""

    def __init__(self, limit: int) -> None:
        """Stop at so many; 0: never."""
        self._limit = limit
        self._kind: str | None = None
        self._length = 0

    def add(self, reason: str) -> str | None:
        """Count a failure; give the reason to stop the sweep, if it is enough."""
        kind = _PARTICULARS.sub("#", reason)
        self._length = self._length + 1 if kind == self._kind else 1
        self._kind = kind
        if self._length != self._limit:
            return None
        return f"{self._length} trials in a row failed for the same reason: {reason}"

    def end(self) -> None:
        """Forget it: a trial came to something."""
        self._kind, self._length = None, 0
