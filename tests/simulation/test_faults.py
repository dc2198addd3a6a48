"""Whole sweeps on a virtual clock, struck by every fault there is: the invariants hold after every event."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.simulation.conftest import MakeSimulation

from finesweep.simulation.drives import Simulation
from finesweep.simulation.faults import Fault, FaultPlan, Strike, random_plan
from finesweep.simulation.workload import ACCURACY, SIZE, Workload, simulated_spec

ONE, TWO = (ACCURACY,), (ACCURACY, SIZE)
NONE, ASHA = {"type": "none"}, {"type": "asha"}
STUDIES = [
    *((sampler, pruner, ONE, 0, 1) for sampler in ("random", "tpe") for pruner in (NONE, ASHA)),
    ("tpe", ASHA, ONE, 1, 1),
    ("tpe", ASHA, TWO, 0, 1),
    ("tpe", ASHA, ONE, 0, 3),
    ("nsga2", ASHA, TWO, 0, 3),
]


def workload(
    sampler: str,
    pruner: Mapping[str, Any],
    objectives: Sequence[Mapping[str, str]] = ONE,
    seed: int = 0,
    n_lanes: int = 1,
    **options: Any,
) -> Workload:
    spec = simulated_spec(sampler, pruner, seed=seed, objectives=objectives, retries=1, **options)
    return Workload(spec, n_slots=2, n_lanes=n_lanes)


@pytest.mark.parametrize(("sampler", "pruner", "objectives", "seed", "n_lanes"), STUDIES)
def test_a_sweep_survives_the_death_of_its_driver_after_any_event(
    simulate: MakeSimulation,
    tmp_path: Path,
    sampler: str,
    pruner: Mapping[str, Any],
    objectives: Sequence[Mapping[str, str]],
    seed: int,
    n_lanes: int,
) -> None:
    """The database as it was after each event, and the checkpoints, are what a death there leaves."""
    unbroken = simulate(workload(sampler, pruner, objectives, seed, n_lanes, n_trials=6))
    left: list[Simulation] = []

    def keep_copy() -> None:
        folder = tmp_path / f"left-{len(left)}"
        folder.mkdir()
        left.append(unbroken.left_by_death(folder, cuts_checkpoints=len(left) % 2 == 1))

    unbroken.run(on_event=keep_copy)
    assert unbroken.broken == []
    assert len(left) > 3 * 6
    for resumed in left:
        resumed.run()
        assert resumed.broken == []


# --- faults one by one, and many of them ---------------------------------------------------------------------------


@pytest.mark.parametrize("fault", Fault, ids=lambda fault: fault.name)
def test_a_sweep_survives_a_fault_wherever_it_strikes(simulate: MakeSimulation, fault: Fault) -> None:
    """A worker that reports late must have had a driver that died."""
    death = (Strike(Fault.KILLED_AFTER, 6),) if fault is Fault.LATE_WORKER else ()
    n_struck = 0
    for at in (1, 4, 9):
        drives = (death, (Strike(fault, at),)) if death else ((Strike(fault, at),),)
        simulation = simulate(workload("tpe", ASHA, n_trials=5), FaultPlan(drives))
        simulation.run()
        assert simulation.broken == []
        assert (simulation.n_drives > 1 + bool(death)) == (fault.ends_drive and fault in simulation.faults)
        n_struck += fault in simulation.faults
    assert n_struck >= 2


@pytest.mark.parametrize("seed", range(4))
def test_a_sweep_survives_one_fault_after_another(simulate: MakeSimulation, seed: int) -> None:
    chance = random.Random(seed)
    sampler, pruner = chance.choice(["random", "tpe"]), chance.choice([NONE, ASHA])
    plan = random_plan(chance, n_drives=10)
    simulation = simulate(workload(sampler, pruner, seed=seed, n_lanes=1 + seed % 2 * 2), plan)
    simulation.run()
    assert simulation.broken == []
    assert len(simulation.struck) > 8


@pytest.mark.parametrize(("sampler", "n_lanes"), [("random", 1), ("tpe", 3)])
def test_the_same_seed_gives_the_same_trace(simulate: MakeSimulation, sampler: str, n_lanes: int) -> None:
    texts = []
    for seed in (3, 3, 4):
        plan = random_plan(random.Random(seed), n_drives=6)
        simulation = simulate(workload(sampler, ASHA, seed=seed, n_lanes=n_lanes), plan)
        simulation.run()
        texts.append(simulation.text)
    assert texts[0] == texts[1]
    assert texts[0] != texts[2]


# --- what a resumed sweep has in common with one that was never broken ----------------------------------------------


@pytest.mark.parametrize("sampler", ["grid", "qmc", "random", "tpe"])
@pytest.mark.parametrize("pruner", [NONE, ASHA], ids=["none", "asha"])
def test_with_one_slot_kills_change_no_trial_that_was_drawn(
    simulate: MakeSimulation, sampler: str, pruner: Mapping[str, Any]
) -> None:
    """Samplers that learn are seeded anew when they are resumed; those with an order of their own go on in it."""
    spec = simulated_spec(sampler, pruner, seed=0, retries=1)
    unbroken = simulate(Workload(spec, n_slots=1))
    unbroken.run()
    for at in (5, 15):
        kills = FaultPlan(((Strike(Fault.KILLED_AFTER, at),), (Strike(Fault.KILLED_BEFORE, 7),)))
        resumed = simulate(Workload(spec, n_slots=1), kills)
        n_drawn = run_and_count_first_draws(resumed)
        assert resumed.broken == []
        n_same = len(unbroken.now.trials) if sampler in ("grid", "qmc") else n_drawn
        assert outcomes(resumed)[:n_same] == outcomes(unbroken)[:n_same]
        assert n_same > 0


def run_and_count_first_draws(simulation: Simulation) -> int:
    """Run a sweep to its end; tell how many trials its first driver had drawn."""
    drawn = [0]

    def count() -> None:
        if simulation.n_drives == 1:
            drawn[0] = len(simulation.now.trials)

    simulation.run(on_event=count)
    return drawn[0]


def outcomes(simulation: Simulation) -> list[tuple[Any, ...]]:
    """Give what a trial came to, and all that it has reported on the way."""
    now = simulation.now
    return [
        (
            *(trial.configuration, trial.state, trial.value, trial.value_step, trial.reused_from),
            *((report.step, repr(report.metrics)) for report in now.reports.get(trial.number, ())),
        )
        for trial in now.trials
    ]
