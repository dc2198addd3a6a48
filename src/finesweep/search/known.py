"""Configurations met before, and what is left to try once the sampler repeats itself.

In: configurations as they are proposed. Out: the trial that has or will have the result of an equal one. Knows neither
Optuna nor what trials came to.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from finesweep.events import Configuration
from finesweep.search.space import list_configurations
from finesweep.spec.parameters import Parameters

# Repeats of known configurations in a row before the sampler is helped to one that is new.
REPEATS_BEFORE_HELP = 5
# In a space too large to list, this many repeats in a row, all but the first few drawn at random, mean its end.
REPEATS_BEFORE_END = 100


class KnownConfigurations:
    """Remembers which trial has or will have the result of a configuration."""

    def __init__(self, parameters: Parameters, *, fixed: Configuration) -> None:
        self._parameters = parameters
        self._fixed = fixed
        self._trials: dict[str, int] = {}  # configuration -> trial
        self._n_repeats = 0  # proposals in a row that were known
        self._unseen: Iterator[Configuration] | None = None
        self.used_up: str | None = None  # why there is nothing new to try

    @property
    def needs_help(self) -> bool:
        """Tell whether the sampler only repeats itself."""
        return self._n_repeats >= REPEATS_BEFORE_HELP

    def propose(self, configuration: Configuration, number: int) -> int | None:
        """Note a trial that was just proposed; give the earlier one of the same configuration."""
        earlier = self._trials.setdefault(_key(configuration), number)
        is_repeat = earlier != number
        self._n_repeats = self._n_repeats + 1 if is_repeat else 0
        return earlier if is_repeat else None

    def keep(self, configuration: Configuration, number: int) -> None:
        """Have a trial stand for its configuration."""
        self._trials[_key(configuration)] = number

    def forget(self, configuration: Configuration) -> None:
        """Let a configuration be tried again: its trial has failed."""
        self._trials.pop(_key(configuration), None)

    def find(self, configuration: Configuration) -> int | None:
        return self._trials.get(_key(configuration))

    def go_on(self, *, n_repeats: int, may_propose: bool) -> None:
        """Note how many proposals in a row were known when the sweep was left, and whether anything is left to try."""
        self._n_repeats = n_repeats
        if self.needs_help and may_propose:
            self.next_unseen()
            self._unseen = None

    def next_unseen(self) -> Configuration | None:
        """Find a configuration that was not tried; None in a space too large to list, and once all is used up."""
        if self._unseen is None:
            self._unseen = list_configurations(self._parameters, fixed=self._fixed)
        if self._unseen is None:
            if self._n_repeats >= REPEATS_BEFORE_END:
                self.used_up = f"the last {self._n_repeats} proposals were all of configurations that have been tried"
            return None
        unseen = next((candidate for candidate in self._unseen if _key(candidate) not in self._trials), None)
        if unseen is None:
            self.used_up = "the search space is used up: every configuration has been tried"
        return unseen


def _key(configuration: Configuration) -> str:
    """Make equal configurations equal strings; 1, 1.0 and True stay different."""
    return json.dumps(configuration, sort_keys=True)
