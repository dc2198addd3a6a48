"""Trials that are jobs of a fine-tuning server: beside or instead of the GPUs here.

A trainer like any other: it knows neither Optuna, Ray nor the database. Works with any server of the protocol, through
the `openai` client library.
"""

from __future__ import annotations

import importlib.util

from finesweep.errors import ResourcesError


def require_client() -> None:
    """Raise ResourcesError unless the client library that asks servers is installed."""
    if importlib.util.find_spec("openai") is None:
        raise ResourcesError("trainer: remote needs the package openai. Run: pip install 'finesweep[remote]'.")
