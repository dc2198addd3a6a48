"""The axes of parallel coordinates: one for each parameter, over the range that the study searches.

Over the whole range, so that a best value at its edge is seen to lie there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from finesweep.spec.parameters import (
    BranchedParameter,
    CategoricalParameter,
    DerivedParameter,
    FloatParameter,
    IntParameter,
    Parameter,
)

NONE = "none"  # where a trial does not have the parameter
_LOG_STEPS = (1, 2, 5)


def parameter_axis(name: str, values: pd.Series[Any], parameter: Parameter) -> dict[str, Any]:
    """Make a dimension of plotly's Parcoords of the trials' values of a parameter, missing where it does not apply."""
    match numeric_span(parameter):
        case low, high, is_log if not values.isna().any():
            return {"label": name, **_numbers(values.astype(float), low, high, is_log=is_log)}
        case _:
            return {"label": name, **_places(values, _choices(parameter))}


def numeric_span(parameter: Parameter) -> tuple[float, float, bool] | None:
    """Give the lowest and the highest value of a numeric parameter, over all of its branches; None for another one."""
    match parameter:
        case FloatParameter() | IntParameter():
            return parameter.low, parameter.high, parameter.log
        case BranchedParameter():
            spans = [numeric_span(branch) for branch in parameter.branches.values()]
            known = [span for span in spans if span is not None]
            if not known or len(known) < len(spans):
                return None
            lows, highs, logs = zip(*known, strict=True)
            return min(lows), max(highs), all(logs)
        case CategoricalParameter() | DerivedParameter():
            return None


def _choices(parameter: Parameter) -> Sequence[Any]:
    return parameter.choices if isinstance(parameter, CategoricalParameter) else ()


def _numbers(values: pd.Series[float], low: float, high: float, *, is_log: bool) -> Mapping[str, Any]:
    low, high = min(low, *values), max(high, *values)  # a default may lie outside of the range
    if not is_log:
        return {"values": values, "range": [low, high]}
    ticks = _log_ticks(low, high)
    return {
        "values": [math.log10(value) for value in values],
        "range": [math.log10(low), math.log10(high)],
        "tickvals": [math.log10(tick) for tick in ticks],
        "ticktext": [f"{tick:g}" for tick in ticks],
    }


def _log_ticks(low: float, high: float) -> list[float]:
    """Give round numbers within a range; powers of ten alone where there are enough of them."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [step * 10.0**exponent for exponent in exponents for step in _LOG_STEPS]
    within = [tick for tick in ticks if low <= tick * (1 + 1e-9) and tick <= high * (1 + 1e-9)]
    powers = [tick for tick in within if math.isclose(math.log10(tick), round(math.log10(tick)))]
    return powers if len(powers) >= len(_LOG_STEPS) else within or [low, high]


def _places(values: pd.Series[Any], choices: Sequence[Any]) -> Mapping[str, Any]:
    """Give each value a place: the study's choices in their order, then whatever else there is."""
    texts = [NONE if pd.isna(value) else choice_text(value) for value in values]
    names = list(dict.fromkeys([*map(choice_text, choices), *sorted({*texts})]))
    return {
        "values": [names.index(text) for text in texts],
        "tickvals": list(range(len(names))),
        "ticktext": names,
        "range": [0, max(1, len(names) - 1)],
    }


def choice_text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
