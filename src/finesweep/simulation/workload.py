"""What simulated trials do: stages drawn from the configuration alone, so that what each must have reported is known.

In: a sampler, a pruner, a seed. Out: a sweep's spec and the script of its trials.
"""

from __future__ import annotations

import math
import random
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from finesweep.events import Configuration, Grid, Report, TrialSpec
from finesweep.scheduling.simulated import Dies, Raises, Says, Stage
from finesweep.spec.capabilities import CAPABILITIES
from finesweep.spec.sweep import SweepSpec, read_sweep
from finesweep.verification.plan import VerificationPlan

GRID = Grid("examples", every=100, longest=900)
STEPS = (100, 300, 900)
STALL_S = 600.0
ACCURACY = {"metric": "accuracy", "direction": "maximize"}
SIZE = {"metric": "size", "direction": "minimize"}


@dataclass(frozen=True, slots=True)
class Workload:
    """One simulated sweep; with a plan, the verification of another."""

    spec: SweepSpec
    n_slots: int = 2
    n_lanes: int = 1
    plan: VerificationPlan | None = None


def simulated_spec(
    sampler: str,
    pruner: Mapping[str, Any],
    *,
    seed: int,
    objectives: Sequence[Mapping[str, Any]] = (ACCURACY,),
    is_wide: bool = False,
    n_trials: int = 8,
    **budget: Any,  # pydantic checks it
) -> SweepSpec:
    """Search a space so small that configurations repeat; or a wide one, with conditions where the sampler has them."""
    parameters: dict[str, Any] = {
        "batch_size": {"type": "categorical", "choices": [8, 16, 32]},
        "epochs": {"type": "int", "low": 1, "high": 3},
    }
    if is_wide and CAPABILITIES[sampler].continuous:
        parameters["learning_rate"] = {"type": "float", "low": 1e-5, "high": 1e-2, "log": True}
        if CAPABILITIES[sampler].conditions:
            parameters["warmup_steps"] = {"type": "int", "low": 0, "high": 50, "when": {"batch_size": 8}}
    content = {
        "name": "simulated",
        "model": "none",
        "task": "classification",
        "data": {"train": "/t.jsonl", "validation": "/v.jsonl"},
        "budget": {"trials": n_trials, "stall_minutes": STALL_S / 60, **budget},
        "study": {
            "objective": list(objectives),
            "sampler": {"type": sampler, "seed": seed, "startup_trials": 3},
            "pruner": dict(pruner),
            "parameters": parameters,
        },
    }
    return read_sweep(content)


def said(configuration: Configuration, step: int) -> Mapping[str, float]:
    """Give the metrics that a trial of this configuration reports at a step, whoever trains it and however often."""
    chance = _chance(configuration)
    kind, level, size = _kind(chance), chance.random(), chance.random()
    if kind == "diverges" and step == STEPS[-1]:
        return {"accuracy": math.nan, "size": size + step}
    peak = level + (step if kind != "overfits" else -step) / 10_000
    return {"accuracy": peak, "size": size + step}


def script(trial: TrialSpec) -> Sequence[Stage]:
    """Give a trial's stages: most end well, some raise, some diverge, some lose their first worker."""
    chance = _chance(trial.configuration)
    kind = _kind(chance)
    pauses = [chance.uniform(0.2, 3.0) for _ in STEPS]
    stages: list[Stage] = []
    for step, pause_s in zip(STEPS, pauses, strict=True):
        after_s = 1.0 if stack_key(trial.configuration) else pause_s  # those in step report together
        report = Report(step, said(trial.configuration, step), step, final=step == STEPS[-1])
        stages.append(Says(after_s, report))
    if kind == "raises":
        stages[1] = Raises(1.0, "out of luck")
    if kind == "dies":
        stages.insert(1, Dies(1.0))
    return stages


def stack_key(configuration: Configuration) -> Hashable | None:
    """Let trials of short schedules be trained together."""
    return None if configuration["epochs"] == 3 else "short"


def _chance(configuration: Configuration) -> random.Random:
    return random.Random(str(sorted(configuration.items())))


def _kind(chance: random.Random) -> str:
    kinds = {"rises": 5, "overfits": 2, "raises": 2, "diverges": 1, "dies": 2}
    return chance.choices(list(kinds), list(kinds.values()))[0]
