"""Results that are read again only when their sweep has changed. In: a results database. Out: the same answers."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pandas as pd

from finesweep import notebook
from finesweep.events import TrialState
from finesweep.results.changes import change_marks
from finesweep.results.database import read

MOST_KEPT = 500  # answers
EXACT = 200  # COMPLETE trials; of more, importances are computed again when a twentieth has come to them

Answer = TypeVar("Answer")


@dataclass(slots=True)
class Kept:
    """Answers by key, each with the mark of the state that it was made from. Each is made by one thread at a time."""

    _answers: OrderedDict[Hashable, tuple[Hashable, Any]] = field(default_factory=OrderedDict)
    _locks: dict[Hashable, threading.Lock] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def get(self, key: Hashable, mark: Hashable, make: Callable[[], Answer]) -> Answer:
        """Give the answer for a key; made anew if what is kept has another mark."""
        with self._lock:
            own = self._locks.setdefault(key, threading.Lock())
        with own:
            with self._lock:
                kept = self._answers.get(key)
                if kept is not None and kept[0] == mark:
                    self._answers.move_to_end(key)
                    answer: Answer = kept[1]
                    return answer
            made = make()
            with self._lock:
                self._answers[key] = (mark, made)
                self._answers.move_to_end(key)
                while len(self._answers) > MOST_KEPT:
                    gone, _ = self._answers.popitem(last=False)
                    self._locks.pop(gone, None)
            return made


@dataclass(frozen=True, slots=True, repr=False)
class CachedResults(notebook.Results):
    """Reads as `notebook.Results` does. Frames are shared: whoever gets one must not change it."""

    kept: Kept = field(default_factory=Kept, compare=False)

    def mark(self, sweep: str) -> str:
        """Give a text that is another after whatever happens to the sweep. Raises SweepNameError."""
        return self.marks(sweep)[sweep]

    def marks(self, sweep: str | None = None) -> dict[str, str]:
        """Give the marks of one sweep or of all."""
        return dict(read(self.url, lambda connection: change_marks(connection, sweep, now_s=self.clock())))

    def trials(self, sweep: str | None = None) -> pd.DataFrame:
        """List the trials of one sweep or of all, with a column for each parameter."""
        if sweep is None:
            return notebook.Results.trials(self)
        return self.kept.get(("trials", sweep), self.mark(sweep), lambda: notebook.Results.trials(self, sweep))

    def attempts(self, sweep: str | None = None) -> pd.DataFrame:
        """List the attempts at trials: where they ran and how they ended."""
        if sweep is None:
            return notebook.Results.attempts(self)
        return self.kept.get(("attempts", sweep), self.mark(sweep), lambda: notebook.Results.attempts(self, sweep))

    def importances(self, sweep: str, *, metric: str | None = None) -> pd.DataFrame:
        """Tell which parameters decide; of a large sweep that runs, as of a little while ago."""
        n_complete = int((self.trials(sweep)["state"] == TrialState.COMPLETE).sum())
        mark = n_complete - n_complete % max(1, n_complete // EXACT * EXACT // 20)
        key = ("importances", sweep, metric)
        return self.kept.get(key, mark, lambda: notebook.Results.importances(self, sweep, metric=metric))
