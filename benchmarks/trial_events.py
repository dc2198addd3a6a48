"""Trials that nobody trained, as the events that a broker tells of them. In: how many, a seed. Out: batches."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

import ours

N_REPORTS = 10
PARAMETERS = {**ours.SPACE, "epochs": {"type": "int", "low": 1, "high": 5}}
FACTS = {"device": "cuda:0", "n_trainable": 1_234_567, "n_parameters": 22_713_216, "device_batch_size": 16}

Batches = list[list[Any]]  # of events that are stored together; of one trial, in their order


def sweep_spec(n_trials: int) -> Any:
    from finesweep.spec.sweep import read_sweep

    return read_sweep(
        {
            "name": ours.NAME,
            "model": "none",
            "task": "classification",
            "data": {"train": "/train.jsonl", "validation": "/validation.jsonl"},
            "study": {"objective": ours.OBJECTIVE, "parameters": PARAMETERS},
            "budget": {"trials": n_trials},
        }
    )


def distributions() -> dict[str, Any]:
    """Give Optuna's distributions of the same space."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    return {
        "learning_rate": FloatDistribution(1e-6, 1e-1, log=True),
        "batch_size": CategoricalDistribution((8, 16, 32)),
        "weight_decay": FloatDistribution(0.0, 0.1),
        "warmup_steps": IntDistribution(0, 100),
        "epochs": IntDistribution(1, 5),
    }


def metrics(level: float, step: int) -> dict[str, float]:
    return {"accuracy": level + step / 100, "loss": 1 / step, "macro_f1": level}


def lives(n_trials: int, seed: int) -> Iterator[Batches]:
    """Make trials that run to their end, one after another."""
    from optuna.distributions import distribution_to_json

    from finesweep import events as ev

    written = {name: distribution_to_json(distribution) for name, distribution in distributions().items()}
    chance = random.Random(seed)
    for trial in range(n_trials):
        configuration = {
            "learning_rate": 10 ** chance.uniform(-6, -1),
            "batch_size": chance.choice([8, 16, 32]),
            "weight_decay": chance.uniform(0, 0.1),
            "warmup_steps": chance.randrange(101),
            "epochs": chance.randint(1, 5),
        }
        level = chance.random()
        reports = [
            ev.Report(100 * step, metrics(level, step), 100 * step, final=step == N_REPORTS)
            for step in range(1, N_REPORTS + 1)
        ]
        best = reports[-1]
        yield [
            [ev.TrialSuggested(trial, configuration, configuration, written, ev.Source.SAMPLER, {}, {})],
            [ev.AttemptStarted(trial, 1)],
            [ev.AttemptDescribed(trial, 1, FACTS)],
            *([ev.Reported(trial, 1, report, ev.Decision.CONTINUE, {})] for report in reports),
            [
                ev.AttemptEnded(trial, 1, ev.AttemptResult(ev.Ending.DONE)),
                ev.TrialFinished(trial, ev.TrialState.COMPLETE, None, best.metrics["accuracy"], best.step),
            ],
        ]


def together(trials: Sequence[Batches]) -> Batches:
    """Put what happens to several trials in step into the same batches, as a stack of them does."""
    return [[event for batch in batches for event in batch] for batches in zip(*trials, strict=True)]
