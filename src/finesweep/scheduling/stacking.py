"""Which trials may be handed to a worker together, to be trained as one computation.

Data and a pure function: it must not know what makes trials alike, only that they are.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass

from finesweep.events import Configuration


def _alone(configuration: Configuration) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Stacking:
    """Trials whose keys are equal, and not None, may share an assignment of at most `n_lanes` trials."""

    n_lanes: int = 1
    key: Callable[[Configuration], Hashable | None] = _alone


ALONE = Stacking()  # every trial is an assignment of its own
