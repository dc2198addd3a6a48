"""Workers that die in each phase of a trial, on one Ray; and a Ray that loses its raylet."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest
from killing.checks import examine
from killing.striking import kill_daemon, kill_worker_while
from killing.sweep import Driver, Sweep
from killing.trainer import PHASES
from tests.contract.conftest import local_ray  # noqa: F401  # a fixture

from finesweep import load_sweep, run
from finesweep.driver import SweepEnd
from finesweep.results.schema import SweepState


@dataclass
class HereDriving:
    """Stands for the driver where that is this process."""

    pid: int = 0
    is_over: bool = field(default=False)


def drive_here(sweep: Sweep, *, meanwhile: Callable[[Driver], object] = lambda driver: None) -> SweepEnd:
    """Run a sweep on the Ray that is there, and do something to it in a thread."""
    driver = HereDriving()
    thread = threading.Thread(target=meanwhile, args=(driver,))
    thread.start()
    try:
        return run(load_sweep(sweep.folder / "sweep.yaml"), results=str(sweep.database))
    finally:
        driver.is_over = True
        thread.join()


@pytest.mark.usefixtures("local_ray", "modules_as_before")
@pytest.mark.parametrize("phase", PHASES)
def test_a_worker_killed_in_any_phase_costs_its_trial_what_came_after_its_checkpoint(
    tmp_path: Path, phase: str
) -> None:
    sweep = Sweep(tmp_path / "sweep", "ray", n_trials=6, pause_s=0.03)
    sweep.n_drivers = 1
    end = drive_here(sweep, meanwhile=lambda driver: kill_worker_while(phase)(driver, sweep, Random(phase)))
    assert end.state is SweepState.FINISHED
    assert sweep.rows("select count(*) from finesweep_attempts where ending = 'lost'") == [(1,)]
    assert examine(sweep, before=[]).all == []


@pytest.mark.usefixtures("local_ray", "modules_as_before")
def test_a_trainer_that_segfaults_takes_its_worker_and_nothing_else(tmp_path: Path) -> None:
    trouble = {"kind": "segfaults", "trial": 1, "unit": 0}
    sweep = Sweep(tmp_path / "sweep", "ray", n_trials=4, pause_s=0.02, settings={"trouble": trouble})
    sweep.n_drivers = 1
    assert drive_here(sweep).state is SweepState.FINISHED
    endings = sweep.rows("select ending from finesweep_attempts where number = 1 order by attempt")
    assert endings[0] == ("lost",)
    assert endings[1] in (("done",), ("stopped",))
    assert examine(sweep, before=[]).all == []


def test_a_ray_that_loses_its_raylet_ends_the_drive_with_what_died_and_how_to_go_on(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path / "sweep", "ray", n_trials=40, pause_s=0.05)
    driver = sweep.go_on()
    assert kill_daemon("raylet")(driver, sweep, Random(0)) is not None
    assert driver.wait() == 1, driver.output
    assert "Ray's raylet (process" in driver.output
    assert "finesweep resume round" in driver.output
    assert "Traceback" not in driver.output
    sweep.backend = "inline"  # it comes to the same, sooner
    assert sweep.go_on().wait() == 0
    assert examine(sweep, before=[]).all == []
