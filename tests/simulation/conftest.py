"""An empty database to begin simulated sweeps in, made once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from optuna.storages._rdb.storage import _VersionManager

from finesweep.simulation.drives import Simulation, make_template
from finesweep.simulation.faults import FaultPlan
from finesweep.simulation.workload import Workload

MakeSimulation = Callable[..., Simulation]


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_template(tmp_path_factory.mktemp("template") / "empty.db")


@pytest.fixture(scope="module", autouse=True)
def quick_to_open() -> Iterator[None]:
    """Have Optuna look up once which version its tables have: at each opening it imports all of its migrations."""
    with pytest.MonkeyPatch.context() as patch:
        head = _VersionManager.get_head_version
        known: list[str] = []

        def remembered(self: _VersionManager) -> str:
            if not known:
                known.append(head(self))
            return known[0]

        patch.setattr(_VersionManager, "get_head_version", remembered)
        yield


@pytest.fixture
def simulate(tmp_path: Path, template: Path) -> MakeSimulation:
    """Make a simulated sweep in a folder of its own."""
    n_made = 0

    def make(workload: Workload, plan: FaultPlan | None = None) -> Simulation:
        nonlocal n_made
        n_made += 1
        folder = tmp_path / f"sweep-{n_made}"
        folder.mkdir()
        return Simulation(workload, folder, template=template, plan=plan)

    return make
