"""Python values as stored text and back, exactly: JSON whose non-finite numbers survive, text any database takes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from finesweep.errors import ResultsError

_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
TELEMETRY = "telemetry."  # begins the names of what is no metric of a report, in the same mapping
NUMBER_KEY = "$number"  # {"$number": "nan"}: told apart from the word "nan", which may be a category


class ExactJson(sa.TypeDecorator[Any]):
    """JSON kept as text, the same in every database. Reads back what was written; tuples come back as lists."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: sa.Dialect) -> str | None:
        return None if value is None else to_json(value)

    def process_result_value(self, value: str | None, dialect: sa.Dialect) -> Any:
        return None if value is None else from_json(value)


class PlainText(sa.TypeDecorator[str]):
    """Text in which whatever a database refuses (NUL, lone surrogates) is spelled out."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: sa.Dialect) -> str | None:
        return None if value is None else plain_text(value)


def to_json(value: Any) -> str:
    """Write a JSON value. Raises ResultsError for anything else, saying where in it."""
    return _ENCODER.encode(_tagged(value, "value"))


def from_json(text: str) -> Any:
    """Read what `to_json` wrote."""
    return json.loads(text, object_hook=_untagged) if NUMBER_KEY in text else json.loads(text)


def metrics_to_json(metrics: Mapping[str, float], telemetry: Mapping[str, float] | None = None) -> str:
    """Write metrics with non-finite values as the strings "nan", "inf" and "-inf"; telemetry under a prefix."""
    named = {**metrics, **{f"{TELEMETRY}{name}": value for name, value in (telemetry or {}).items()}}
    numbers = {
        plain_text(name): float(value) if math.isfinite(value) else str(float(value)) for name, value in named.items()
    }
    return _ENCODER.encode(numbers)


def metrics_from_json(text: str) -> dict[str, float]:
    """Read the metrics that `metrics_to_json` wrote."""
    return {name: float(value) for name, value in json.loads(text).items() if not name.startswith(TELEMETRY)}


def telemetry_from_json(text: str) -> dict[str, float]:
    """Read the telemetry that `metrics_to_json` wrote."""
    named = json.loads(text).items()
    return {name.removeprefix(TELEMETRY): float(value) for name, value in named if name.startswith(TELEMETRY)}


def plain_text(text: str) -> str:
    """Spell out NUL and lone surrogates, which PostgreSQL and UTF-8 refuse."""
    return text.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode("utf-8")


def _tagged(value: Any, where: str) -> Any:
    match value:
        case None | bool() | int():
            return value
        case str():
            return plain_text(value)
        case float():
            return value if math.isfinite(value) else {NUMBER_KEY: str(value)}
        case Mapping():
            return {_key(key, where): _tagged(item, f"{where}.{key}") for key, item in value.items()}
        case list() | tuple():
            return [_tagged(item, f"{where}[{index}]") for index, item in enumerate(value)]
        case _ if callable(getattr(value, "item", None)):  # a number of numpy or torch
            return _tagged(value.item(), where)
        case _:
            raise ResultsError(
                f"{where}: {value!r} is a {type(value).__name__}, which JSON cannot hold. "
                "Store a number, text, list or mapping."
            )


def _key(key: Any, where: str) -> str:
    if not isinstance(key, str):
        raise ResultsError(f"{where}: key {key!r} is a {type(key).__name__}; keys must be text. Write it as text.")
    return plain_text(key)


def _untagged(mapping: dict[str, Any]) -> Any:
    return float(mapping[NUMBER_KEY]) if mapping.keys() == {NUMBER_KEY} else mapping
