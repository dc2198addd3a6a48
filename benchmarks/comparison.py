"""Configurations trained by finesweep and by its peers: the arms, what each cost, whether their results agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import harness
import ours
from harness import Ran
from tables import Spent, Table, extrapolate, number, ratio
from workload import Workload, read_workload

Trials = list[dict[str, Any]]
Answer = dict[str, Any]

FINESWEEP, WARM, UNSTACKED = "finesweep", "finesweep, warm cache", "finesweep, warm cache, no stacks"


def finesweep_arm(folder: Path, **resources: Any) -> Answer:
    workload = read_workload(harness.settings_of(folder))
    ours.run_sweep(ours.write_sweep(folder, ours.training_sweep(workload, resources=resources)), folder)
    trials = ours.outcomes(folder)
    costs = [trial["cpu_s"] for trial in trials]
    training_cpu_s = None if None in costs else sum(costs)
    return {"trials": trials, "training_cpu_s": training_cpu_s}


def peer_arm(peer: str, folder: Path) -> Answer:
    """Run a peer; tell of each trial what it found, and of all what they took.

    `cpu_s_of_trials` is what would have to be paid again for as many trials more: where each has a process of its own,
    all of that process with its imports; where all share this process, from the first trial's beginning.
    """
    import os

    import peers

    workload = read_workload(harness.settings_of(folder))
    peers.PEERS[peer](workload, folder)
    notes = peers.notes_of(folder)
    ends = [note for note in notes if note["event"] == "end"]
    own_began_s = min((note["cpu_began_s"] for note in ends if note["pid"] == os.getpid()), default=0.0)
    last_of_process = {note["pid"]: note["cpu_s"] for note in ends}
    return {
        "trials": [{**end, "cpu_s": end["cpu_s"] - end["cpu_began_s"]} for end in ends],
        "training_cpu_s": sum(end["cpu_s"] - end["cpu_began_s"] for end in ends),
        "cpu_s_of_trials": sum(
            cpu_s - (own_began_s if pid == os.getpid() else 0.0) for pid, cpu_s in last_of_process.items()
        ),
        "wall_s_of_trials": ends[-1]["at"] - min(end["began_at"] for end in ends),
    }


PEERS = ("Ray Tune + Trainer", "hyperparameter_search, Ray", "hyperparameter_search, Optuna")
ARMS: dict[str, harness.Arm] = {
    FINESWEEP: finesweep_arm,
    WARM: finesweep_arm,
    UNSTACKED: lambda folder: finesweep_arm(folder, stack=1),
    **{peer: lambda folder, peer=peer: peer_arm(peer, folder) for peer in PEERS},
}


def run(
    script: str,
    folder: Path,
    workload: Workload,
    *,
    peer_trials: int,
    arms: Sequence[str] = (FINESWEEP,),
    peers: Sequence[str] = PEERS,
) -> dict[str, Ran]:
    """Run finesweep's arms, one after another on the same cache, then the peers on the first few configurations."""
    few = replace(workload, configurations=workload.configurations[:peer_trials])
    cache = ours.cache_in(folder / "cache")
    ran = {}
    for place, arm in enumerate([*arms, *peers]):
        mine = workload if arm in arms else few
        ran[arm] = harness.run_arm(script, arm, folder / f"arm-{place}", mine.values(), environment=cache)
    return ran


def spent(one: Ran, trials: int) -> Spent:
    """Tell what an arm spent, or would have on so many trials."""
    answer = one.answer
    of_run = Spent(len(answer["trials"]), answer["training_cpu_s"], one.cost.cpu_s, one.cost.wall_s)
    return extrapolate(
        of_run,
        trials,
        cpu_s_of_trials=answer.get("cpu_s_of_trials", 0.0),
        wall_s_of_trials=answer.get("wall_s_of_trials", 0.0),
    )


def cost_table(title: str, costs: Mapping[str, Spent]) -> Table:
    base = next(iter(costs.values()))
    rows = []
    for arm, cost in costs.items():
        cells = []
        for field in ("training_cpu_s", "cpu_s", "wall_s"):
            value = getattr(cost, field)
            cells += [number(value, about=cost.is_extrapolated), number(ratio(value, getattr(base, field)))]
        rows.append((arm, *cells))
    columns = ("arm", "CPU-s of training", "ratio", "CPU-s in all", "ratio", "wall s", "ratio")
    return Table(title, columns, tuple(rows))


def agreement_table(ran: Mapping[str, Ran]) -> Table:
    """Set the last metrics of trials beside those of the first arm, configuration by configuration, and memory."""
    base = _by_configuration(next(iter(ran.values())).answer["trials"])
    rows = []
    for arm, one in ran.items():
        found = _by_configuration(one.answer["trials"])
        both = [(found[key], base[key]) for key in found if key in base]
        differences = [max(abs(a[metric] - b[metric]) for a, b in both) for metric in ("accuracy", "loss")]
        best = max(a["accuracy"] for a, _ in both)
        memory = (one.cost.driver_mib, one.cost.worker_mib)
        rows.append((arm, str(len(both)), number(best), *map(number, differences), *map(number, memory)))
    columns = (
        *("arm", "trials", "best accuracy", "accuracy differs by", "loss differs by"),
        *("driver MiB", "worker MiB"),
    )
    title = "Final metrics of the same configurations, greatest difference from the first row; peak resident memory"
    return Table(title, columns, tuple(rows))


def notes(costs: Mapping[str, Spent], peer_trials: int) -> tuple[str, ...]:
    """Say what was not measured."""
    said = []
    if any(cost.is_extrapolated for cost in costs.values()):
        said.append(
            f"~ is extrapolated from the first {peer_trials} configurations: only what trials themselves cost is "
            "multiplied, not start and stop"
        )
    if next(iter(costs.values())).training_cpu_s is None:
        said.append("finesweep did not tell the CPU-seconds of its trials: these cells are empty")
    return tuple(said)


def _by_configuration(trials: Trials) -> dict[float, dict[str, Any]]:
    """Key trials by learning rate: no two configurations have the same."""
    return {round(trial["learning_rate"], 12): trial for trial in trials}
