"""One Ray for the tests of a module, and stored sweeps."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.contract.stored_sweep import ASHA, StoredSweep, sweep_spec

from finesweep.results.writer import open_writer


@pytest.fixture(scope="module")
def local_ray() -> Iterator[Any]:
    """Start a local Ray with 8 logical CPUs and 4 logical GPUs, and stop it."""
    import ray

    import finesweep.scheduling.ray_tune  # noqa: F401  # sets Ray up before it is imported

    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)  # workers import the scripts from this test tree
    context = ray.init(address="local", num_cpus=8, num_gpus=4, include_dashboard=False, log_to_driver=False)
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before
    yield context
    ray.shutdown()


@pytest.fixture
def make_sweep(tmp_path: Path) -> Iterator[Callable[..., StoredSweep]]:
    with open_writer(tmp_path / "r.db") as writer:

        def make(
            name: str = "scripted", *, trials: int = 6, retries: int = 1, pruner: Mapping[str, Any] = ASHA
        ) -> StoredSweep:
            return StoredSweep(writer, sweep_spec(name, trials, retries, pruner))

        yield make


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Give an empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'r.db'}"
    server: str = request.getfixturevalue("postgresql_url")
    return server
