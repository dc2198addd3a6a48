from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from finesweep.views.printing import sparkline


@pytest.mark.parametrize(
    ("values", "drawn"),
    [
        ([], ""),
        ([0.5], "▁"),
        ([0.5, 0.5, 0.5], "▁▁▁"),
        ([0.0, 0.5, 1.0], "▁▅█"),
        ([1.0, math.nan, 0.0, math.inf], "█ ▁ "),
        ([math.nan], ""),
        ([float(n) for n in range(100)], "▁▃▆█"),
    ],
)
def test_a_curve_is_drawn_from_its_lowest_to_its_highest_value(values: Sequence[float], drawn: str) -> None:
    assert sparkline(values, 4) == drawn
