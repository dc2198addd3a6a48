"""Functions of the user's own that judge a model, held to give one number.

In: a function. Out: a number, or an error that names the function. It must not know what is judged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Any

from finesweep.errors import EvaluationError


@dataclass(frozen=True, slots=True)
class OwnMetric:
    """A function of the user's own that makes one number of what a model said and what it should have said."""

    name: str
    key: str  # where the sweep names it
    path: str  # package.module:function
    function: Callable[[Any, Any], Any]

    def __call__(self, said: Any, wanted: Any) -> float:
        """Raise EvaluationError where the function raises or returns no number; NaN is one."""
        try:
            value = self.function(said, wanted)
        except Exception as error:
            raise EvaluationError(
                f"{self.key}: {self.path} raised {type(error).__name__}: {error}. Mend the function, or remove the key."
            ) from error
        if getattr(value, "ndim", None) == 0:  # a number in numpy's or torch's clothes
            value = value.item()
        if not isinstance(value, Real):
            raise EvaluationError(
                f"{self.key}: {self.path} returned {value!r:.60} ({type(value).__name__}), not a number. "
                "Have it return one; where there is none to give, float('nan')."
            )
        return float(value)
