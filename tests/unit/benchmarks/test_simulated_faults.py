"""What the benchmark of simulated faults counts, and that a seed does the same again."""

from __future__ import annotations

import json
from pathlib import Path

import simulated_faults

FAULT = "driver killed before it commits"


def ran(**changed: object) -> dict[str, object]:
    found = {"seed": 1, "sampler": "tpe", "pruner": "asha", "drives": 3, "struck": [FAULT, "worker lost"]}
    return {**found, "harms": [], "crash": None, **changed}


def test_a_seed_can_be_run_again_and_tells_the_same(tmp_path: Path) -> None:
    once, again = (simulated_faults.strike(7, tmp_path) for _ in range(2))
    assert once == again
    assert once["harms"] == []
    assert once["crash"] is None
    assert once["struck"]
    json.dumps(once)


def test_harms_are_counted_beside_the_fault_before_them() -> None:
    answer = simulated_faults.summary([ran(), ran(seed=2, harms=[[FAULT, "lost", "trial 3 is gone"]])])
    assert answer["faults"][FAULT] == {"rounds": 2, "lost": 1, "doubled": 0, "zombie": 0, "mislabelled": 0}
    assert answer["rounds"] == 2  # a lost worker ends no drive
    assert [finding["seed"] for finding in answer["findings"]] == [2]
    table, _ = simulated_faults.tables(answer)
    assert (FAULT, "2", "1", "0", "0", "0") in table.rows
    assert [aim.is_met for aim in simulated_faults.aims(answer)] == [False, False, True]


def test_a_sweep_that_ends_by_an_error_is_a_finding() -> None:
    answer = simulated_faults.summary([ran(crash="Traceback")])
    assert answer["crashes"] == 1
    assert [aim.is_met for aim in simulated_faults.aims(answer)] == [False, True, False]
