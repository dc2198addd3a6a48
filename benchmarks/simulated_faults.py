"""Strike whole sweeps on a virtual clock with every fault there is, thousands of times, and count what came to harm.

    python benchmarks/simulated_faults.py [--sweeps 1150] [--first-seed 0] [--processes 2]

In: seeds; each draws a sampler, a pruner, a space, slots, lanes, limits and a plan of faults. Out: for each fault how
often it struck, and how many trials were lost, doubled, left as zombies or mislabelled, held against the database after
every event. A seed that came to harm is told: the same seed does the same again.
"""

from __future__ import annotations

import random
import shutil
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import harness
from tables import Aim, Table

from finesweep.simulation.drives import Simulation, make_template
from finesweep.simulation.faults import Fault, random_plan
from finesweep.simulation.invariants import Harm
from finesweep.simulation.workload import ACCURACY, SIZE, Workload, simulated_spec
from finesweep.spec.capabilities import CAPABILITIES

PRUNERS: tuple[Mapping[str, Any], ...] = (
    {"type": "none"},
    {"type": "asha"},
    {"type": "hyperband"},
    {"type": "median", "startup_trials": 2},
    {"type": "percentile", "startup_trials": 2, "percentile": 50},
    {"type": "threshold", "lower": 0.2},
    {"type": "patient", "patience": 1},
)
RETRIED = (["lost"], ["lost", "stalled"], ["lost", "stalled", "failed"])
N_DRIVES = 12  # that are ended by a fault, if the sweep is not over before
ROUNDS = 10_000


def drawn_workload(chance: random.Random, seed: int) -> Workload:
    """Draw one sweep of all that there are."""
    sampler = chance.choice(list(CAPABILITIES))
    leading = {**ACCURACY, "value": chance.choice(["best", "best", "last"])}
    has_two = CAPABILITIES[sampler].several_objectives and chance.random() < 0.2
    spec = simulated_spec(
        sampler,
        chance.choice(PRUNERS),
        seed=seed,
        objectives=[leading, SIZE] if has_two else [leading],
        is_wide=chance.random() < 0.5,
        retries=chance.randrange(3),
        retry_on=chance.choice(RETRIED),
    )
    return Workload(spec, n_slots=chance.choice([1, 2, 4]), n_lanes=chance.choice([1, 1, 3]))


def strike(seed: int, folder: Path) -> dict[str, Any]:
    """Run the sweep of a seed; tell what struck it and what came to harm. JSON values."""
    chance = random.Random(seed)
    workload = drawn_workload(chance, seed)
    plan = random_plan(chance, n_drives=N_DRIVES)
    template = folder / "template.db"
    if not template.exists():
        make_template(template)
    own = Path(tempfile.mkdtemp(dir=folder))
    simulation = Simulation(workload, own, template=template, plan=plan)
    try:
        simulation.run()
        crash = None
    except Exception:  # of the product or of the simulation: either is a finding
        crash = traceback.format_exc()
    finally:
        shutil.rmtree(own)
    study = workload.spec.study
    return {
        "seed": seed,
        "sampler": study.sampler.type,
        "pruner": study.pruner.type,
        "drives": simulation.n_drives,
        "struck": [str(strike.fault) for strike in simulation.struck],
        "harms": [[str(b.after or "none"), str(b.violation.harm), str(b.violation)] for b in simulation.broken],
        "crash": crash,
    }


def arm(folder: Path) -> dict[str, Any]:
    settings = harness.settings_of(folder)
    seeds = range(settings["first_seed"], settings["first_seed"] + settings["sweeps"])
    with (
        tempfile.TemporaryDirectory(dir=settings["scratch"]) as scratch,
        ProcessPoolExecutor(settings["processes"], mp_context=get_context("spawn")) as pool,
    ):
        folders = [Path(scratch) / str(n) for n in range(settings["processes"])]
        for part in folders:
            part.mkdir()
        parts = [pool.submit(_strike_all, list(seeds[n :: len(folders)]), part) for n, part in enumerate(folders)]
        return summary(found for part in parts for found in part.result())


def _strike_all(seeds: list[int], folder: Path) -> list[dict[str, Any]]:
    _look_up_once()
    return [strike(seed, folder) for seed in seeds]


def _look_up_once() -> None:
    """Have Optuna look up once which version its tables have: at each opening it imports all of its migrations."""
    from optuna.storages._rdb.storage import _VersionManager

    look_up, known = _VersionManager.get_head_version, []

    def remembered(manager: _VersionManager) -> str:
        if not known:
            known.append(look_up(manager))
        return known[0]

    _VersionManager.get_head_version = remembered


def summary(ran: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Count what struck, what came to harm after it, and what each sampler went through."""
    struck: Counter[str] = Counter()
    harmed: dict[str, Counter[str]] = {fault: Counter() for fault in (*Fault, "none")}
    of: dict[str, Counter[str]] = {}
    findings: list[Any] = []
    for found in ran:
        struck.update(found["struck"])
        for after, harm, _ in found["harms"]:
            harmed[after][harm] += 1
        n_rounds = sum(Fault(fault).ends_drive for fault in found["struck"])
        for key in (f"sampler {found['sampler']}", f"pruner {found['pruner']}"):
            of.setdefault(key, Counter()).update(
                sweeps=1, drives=found["drives"], rounds=n_rounds, harms=len(found["harms"]) + bool(found["crash"])
            )
        if found["harms"] or found["crash"]:
            findings.append(found)
    return {
        "faults": {
            fault: {"rounds": struck[fault], **{str(harm): harmed[fault][harm] for harm in Harm}} for fault in harmed
        },
        "of": {key: dict(counts) for key, counts in sorted(of.items())},
        "rounds": sum(n for fault, n in struck.items() if Fault(fault).ends_drive),
        "crashes": sum(found["crash"] is not None for found in findings),
        "findings": findings[:20],
    }


def tables(answer: Mapping[str, Any]) -> tuple[Table, Table]:
    columns = ("fault", "rounds", *(str(harm) for harm in Harm))
    rows = [
        (fault, *(f"{counts[column]:,}" for column in columns[1:]))
        for fault, counts in answer["faults"].items()
        if fault != "none" or any(counts.values())
    ]
    parts = ("sweeps", "drives", "rounds", "harms")
    searched = [(key, *(f"{counts.get(part, 0):,}" for part in parts)) for key, counts in answer["of"].items()]
    return (
        Table("Simulated faults: times struck, and trials that came to harm", columns, tuple(rows)),
        Table(
            "The sweeps they struck; a round is a drive ended by a fault, and resumed", ("", *parts), tuple(searched)
        ),
    )


def aims(answer: Mapping[str, Any]) -> tuple[Aim, ...]:
    n_harms = sum(counts[harm] for counts in answer["faults"].values() for harm in Harm)
    return (
        Aim("simulated kill-and-resume rounds", ROUNDS, answer["rounds"]),
        Aim("trials lost, doubled, zombie or mislabelled", 0, n_harms, at_most=True),
        Aim("sweeps that ended by an error", 0, answer["crashes"], at_most=True),
    )


def main() -> None:
    parser = harness.options(__doc__)
    parser.add_argument("--sweeps", type=int, default=1150)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    memory = Path("/dev/shm")  # databases that live for a second need no disk
    settings = {
        "sweeps": options.sweeps,
        "first_seed": options.first_seed,
        "processes": options.processes,
        "scratch": str(memory) if memory.is_dir() else None,
    }
    with tempfile.TemporaryDirectory() as folder:
        ran = harness.run_arm(__file__, "simulated", Path(folder) / "simulated", settings)
    last = options.first_seed + options.sweeps - 1
    harness.finish(
        "simulated_faults",
        tables=tables(ran.answer),
        aims=aims(ran.answer),
        notes=(f"seeds {options.first_seed} to {last}; {options.processes} processes; {ran.cost.wall_s:.0f} s",),
        ran={"simulated": ran},
        results_dir=options.results_dir,
    )


if __name__ == "__main__":
    harness.serve({"simulated": arm})
    main()
