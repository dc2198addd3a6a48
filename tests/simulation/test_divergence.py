"""A sampler learns where training diverges, from nothing but how those trials ended."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from finesweep.events import Event, Grid, Report, TrialFinished, TrialSpec, TrialState, TrialSuggested
from finesweep.scheduling.simulated import Says, SimulatedBackend, Stage
from finesweep.search.broker import TrialBroker
from finesweep.spec.study import StudySpec

HIGHEST_THAT_TRAINS = 1e-3  # of 1e-6 to 1: half of the space diverges
N_TRIALS, N_STARTUP = 40, 10
SEEDS = range(5)


def life(trial: TrialSpec) -> Sequence[Stage]:
    """Diverge above a learning rate; below it, score at random, so that nothing else can be learnt."""
    rate = trial.configuration["learning_rate"]
    assert isinstance(rate, float)
    score = random.Random(str(rate)).uniform(0.4, 0.6)
    if rate > HIGHEST_THAT_TRAINS:
        return [Says(1.0, Report(16, {"accuracy": math.nan, "loss": math.nan, "train_loss": 1e4}, 16))]
    return [Says(1.0, Report(step, {"accuracy": score, "loss": 1.0}, step, final=step == 900)) for step in (300, 900)]


def sweep(sampler: str, seed: int) -> list[bool]:
    """Drive a sweep. Tell of each trial whether it diverged."""
    study = StudySpec.model_validate(
        {
            "objective": {"metric": "accuracy", "direction": "maximize"},
            "sampler": {"type": sampler, "seed": seed, "startup_trials": N_STARTUP},
            "parameters": {"learning_rate": {"type": "float", "low": 1e-6, "high": 1.0, "log": True}},
        }
    )
    events: list[Event] = []
    grid = Grid("examples", every=300, longest=900)
    broker = TrialBroker(study, name="s", grid=grid, n_trials=N_TRIALS, retries=0, listener=events.extend)
    SimulatedBackend(life, n_slots=1).run(broker, lambda: None)
    rates = {
        event.number: event.configuration["learning_rate"] for event in events if isinstance(event, TrialSuggested)
    }
    ended = {event.number: event for event in events if isinstance(event, TrialFinished)}
    for number, event in ended.items():
        diverged = rates[number] > HIGHEST_THAT_TRAINS
        assert (event.state, event.reason) == (
            (TrialState.PRUNED, "diverged at step 16") if diverged else (TrialState.COMPLETE, None)
        )
    return [rates[number] > HIGHEST_THAT_TRAINS for number in range(N_TRIALS)]


def test_later_draws_avoid_where_trials_diverged() -> None:
    late = {name: [d for seed in SEEDS for d in sweep(name, seed)[N_TRIALS // 2 :]] for name in ("tpe", "random")}
    shares = {name: sum(diverged) / len(diverged) for name, diverged in late.items()}
    assert shares["random"] > 0.35, "half of the space diverges"
    assert shares["tpe"] < shares["random"] / 3, shares
