"""What is looked for after a kill is found where it is: a whole sweep in which one thing after another is spoilt."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from killing.checks import examine, finished_rows
from killing.sweep import Sweep
from killing.trainer import CHECKPOINT

SPOILT = {
    "a trial is gone": ("lost", "delete from finesweep_trials where number = 2"),
    "a report is gone": ("lost", "delete from finesweep_reports where number = 0 and step = 200"),
    "one attempt is gone": ("lost", "update finesweep_attempts set attempt = 2 where number = 1"),
    "the sweep seems to run": ("lost", "update finesweep_sweeps set state = 'RUNNING'"),
    "a trial seems to run": ("zombie", "update finesweep_trials set state = 'RUNNING' where number = 1"),
    "a lease is held": ("zombie", "update finesweep_sweeps set holder_pid = 1"),
    "an attempt is open": ("zombie", "update finesweep_attempts set ended_at = null where number = 1"),
    "Optuna's trial runs": ("zombie", "update trials set state = 'RUNNING' where number = 1"),
    "two of one configuration": (
        "doubled",
        "update finesweep_trials set configuration = (select configuration from finesweep_trials where number = 0)",
    ),
    "another value": ("wrong", "update finesweep_trials set value = 0.123 where state = 'COMPLETE'"),
    "a pruned trial's value": ("wrong", "update finesweep_trials set value = 0.123 where state = 'PRUNED'"),
    "another report": ("wrong", "update finesweep_reports set metrics = '{\"score\":0.123}' where step = 100"),
    "another decision": ("wrong", "update finesweep_reports set decision = 'stop' where number = 0 and step = 400"),
    "Optuna's value": ("wrong", "update trial_values set value = 0.123"),
    "a time of a finished trial": ("wrong", "update finesweep_trials set started_at = started_at - 1"),
}


@pytest.fixture
def sweep(tmp_path: Path) -> Iterator[Sweep]:
    sweep = Sweep(tmp_path / "sweep", "inline", n_trials=4, n_slots=1, pause_s=0.0)
    assert sweep.go_on().wait() == 0
    yield sweep


@pytest.mark.parametrize("what", SPOILT)
def test_what_is_spoilt_in_the_database_is_found(sweep: Sweep, what: str) -> None:
    before = finished_rows(sweep)
    assert examine(sweep, before=[before]).all == []
    kind, statement = SPOILT[what]
    sweep.execute(statement)
    assert getattr(examine(sweep, before=[before]), kind)


def test_what_is_spoilt_beside_the_database_is_found(sweep: Sweep) -> None:
    [folder] = sweep.artifact_dir.glob("trial-*/folder")
    (folder / CHECKPOINT).with_suffix(".half-written").touch()
    assert examine(sweep, before=[]).left
    with (sweep.folder / "work.txt").open("a") as file:
        file.write("0 2 1\n")
    assert examine(sweep, before=[]).doubled
