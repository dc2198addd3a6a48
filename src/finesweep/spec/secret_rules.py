"""No secrets in a sweep: what stands there is stored in the database, with every export, and shown by `check --json`.

In: the values of a sweep with its study. Out: findings by key path. The results database's URL may hold its password:
it is left out of whatever is written down.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from finesweep.secrets import secret_in_setting
from finesweep.spec.faults import Finding, KeyPath

_WAY_OUT = "it would be stored in the database and in exports. Give it in an environment variable, and read it there."
_MAY_HOLD_PASSWORD: KeyPath = ("results",)


def secret_faults(values: Mapping[str, Any]) -> list[Finding]:
    return [
        Finding(path, f"{said}, and {_WAY_OUT}")
        for path, text in _texts(values, ())
        if path != _MAY_HOLD_PASSWORD and (said := secret_in_setting(_named(path), text))
    ]


def _texts(value: Any, path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    """Give every text in a tree of values with its key path."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _texts(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _texts(item, (*path, index))


def _named(path: KeyPath) -> str:
    """Name a setting by the last word around it: that of a list's entries is the list's. Other texts have no name."""
    if path[:1] != ("training",):
        return ""
    return next((part for part in reversed(path) if isinstance(part, str)), "")
