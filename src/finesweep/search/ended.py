"""Which trials of a study have ended since one last looked, without looking at all of them again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from optuna.trial import FrozenTrial


class Ended:
    """Remembers how far a study was looked at, and which trials were unfinished then."""

    def __init__(self) -> None:
        self._n_seen = 0
        self.unfinished: set[int] = set()  # numbers

    def since(self, trials: Sequence[FrozenTrial]) -> Iterator[FrozenTrial]:
        """Give those of all trials of the study that have ended since this was last asked."""
        looked_at = [*self.unfinished, *range(self._n_seen, len(trials))]
        self._n_seen = len(trials)
        for number in looked_at:
            if trials[number].state.is_finished():
                self.unfinished.discard(number)
                yield trials[number]
            else:
                self.unfinished.add(number)
