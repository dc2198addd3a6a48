"""Sweeps to be killed are those of the benchmark: its modules are found by path."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))


@pytest.fixture
def modules_as_before() -> Iterator[None]:
    """Forget what a sweep's own module has left in this process."""
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if name.startswith("killed_"):
            del sys.modules[name]
