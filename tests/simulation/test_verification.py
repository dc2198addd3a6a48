"""Verifications on a virtual clock: whatever strikes, the same trainings are made and the same is found."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.simulation.conftest import MakeSimulation

from finesweep.results.frames import open_results
from finesweep.simulation.drives import Simulation
from finesweep.simulation.faults import Fault, FaultPlan, Strike
from finesweep.simulation.workload import Workload, simulated_spec
from finesweep.verification.found import Outcome
from finesweep.verification.outcome import read_outcome
from finesweep.verification.plan import Arm, VerificationPlan, verification_spec

SHORT, MIDDLE, LONG = ({"batch_size": 8 * n, "epochs": n} for n in (1, 2, 3))


def arm(label: str, configuration: dict[str, int]) -> Arm:
    return Arm(label=label, configuration=configuration, search_value=0.5)


def workload(*, n_slots: int, first_seed: int, n_race_seeds: int = 3, n_seeds: int = 2) -> Workload:
    """Three arms race; the first two are compared with one thing if they win, the third with another."""
    parent = simulated_spec("tpe", {"type": "asha"}, seed=0, retries=3)
    seeds = range(first_seed, first_seed + n_race_seeds + n_seeds)
    one, other = arm("defaults", {"batch_size": 32, "epochs": 1}), arm("defaults", {"batch_size": 32, "epochs": 2})
    plan = VerificationPlan(
        of="parent",
        created_at="",
        arms=(arm("trial 0", SHORT), arm("trial 1", MIDDLE), arm("trial 2", LONG)),
        baselines=(one, one, other),
        race_seeds=tuple(seeds[:n_race_seeds]),
        seeds=tuple(seeds[n_race_seeds:]),
    )
    return Workload(verification_spec(parent, plan, parent.name), n_slots=n_slots, plan=plan)


def found(simulation: Simulation) -> tuple[set[tuple[object, ...]], Outcome | None]:
    """Give what was trained, and what that came to."""
    results = open_results(simulation.url)
    trained = {tuple(record.configuration.items()) for record in results.history("simulated").trials}
    return trained, read_outcome(results, "simulated")


@pytest.mark.parametrize(("n_slots", "first_seed", "every"), [(1, 0, 1), (3, 100, 4)])
def test_a_verification_survives_the_death_of_its_driver_after_any_event(
    simulate: MakeSimulation, tmp_path: Path, n_slots: int, first_seed: int, every: int
) -> None:
    unbroken = simulate(workload(n_slots=n_slots, first_seed=first_seed, n_seeds=1))
    left: list[Simulation] = []
    n_events = 0

    def keep_copy() -> None:
        nonlocal n_events
        n_events += 1
        if n_events % every == 0:
            folder = tmp_path / f"left-{len(left)}"
            folder.mkdir()
            left.append(unbroken.left_by_death(folder))

    unbroken.run(on_event=keep_copy)
    assert unbroken.broken == []
    assert n_events > 3 * 8
    trained, outcome = found(unbroken)
    assert outcome is not None and outcome.is_over and outcome.winner is not None
    for resumed in left:
        resumed.run()
        assert resumed.broken == []
        assert found(resumed) == (trained, outcome)


def test_slots_change_when_things_are_trained_but_not_what(simulate: MakeSimulation) -> None:
    for first_seed in (0, 20, 40):
        one, many = (simulate(workload(n_slots=n, first_seed=first_seed, n_race_seeds=4)) for n in (1, 5))
        one.run()
        many.run()
        assert found(one) == found(many)


@pytest.mark.parametrize("fault", [Fault.CTRL_C, Fault.STOP, Fault.WORKER_LOST, Fault.DISK_FULL, Fault.TAKEN_OVER])
def test_a_verification_survives_what_a_sweep_does(simulate: MakeSimulation, fault: Fault) -> None:
    unbroken = simulate(workload(n_slots=2, first_seed=7))
    unbroken.run()
    struck = simulate(workload(n_slots=2, first_seed=7), FaultPlan(((Strike(fault, 9),),)))
    struck.run()
    assert struck.broken == []
    assert fault in struck.faults
    assert found(struck) == found(unbroken)
