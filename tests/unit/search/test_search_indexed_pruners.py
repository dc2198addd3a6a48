"""Pruners that keep what they compare with: the decisions, and the notes with trials, are those of Optuna's own."""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Callable

import numpy as np
import optuna
import pytest
from optuna import pruners
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner
from optuna.samplers import RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import Trial, TrialState

from finesweep.search.indexed_pruners import HalvingPruner, HyperbandPruner, PercentilePruner, percentile_of

PAIRS: dict[str, tuple[Callable[[], BasePruner], Callable[[], BasePruner]]] = {
    "asha": (
        lambda: pruners.SuccessiveHalvingPruner(min_resource=100, reduction_factor=3),
        lambda: HalvingPruner(first_rung=100, reduction_factor=3),
    ),
    "asha by 2 from 200": (
        lambda: pruners.SuccessiveHalvingPruner(min_resource=200, reduction_factor=2),
        lambda: HalvingPruner(first_rung=200, reduction_factor=2),
    ),
    "hyperband": (
        lambda: pruners.HyperbandPruner(min_resource=100, max_resource=900, reduction_factor=3),
        lambda: HyperbandPruner(first_rung=100, longest=900, reduction_factor=3),
    ),
    "hyperband by 2": (
        lambda: pruners.HyperbandPruner(min_resource=100, max_resource=1000, reduction_factor=2),
        lambda: HyperbandPruner(first_rung=100, longest=1000, reduction_factor=2),
    ),
    "median": (
        lambda: pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=200),
        lambda: PercentilePruner(50, n_startup_trials=5, n_warmup_steps=200),
    ),
    "percentile": (
        lambda: pruners.PercentilePruner(23.0, n_startup_trials=0),
        lambda: PercentilePruner(23.0, n_startup_trials=0, n_warmup_steps=0),
    ),
}


@pytest.mark.filterwarnings("ignore:All-NaN slice encountered", "ignore:invalid value encountered")  # Optuna's
@pytest.mark.parametrize("direction", ["maximize", "minimize"])
@pytest.mark.parametrize("kind", PAIRS)
@pytest.mark.parametrize("seed", range(2))
def test_any_history_is_decided_as_by_optunas_own(kind: str, direction: str, seed: int) -> None:
    """Six slots, steps left out, ties, infinities and NaN, every way to end; and now and then a new pruner."""
    make_theirs, make_ours = PAIRS[kind]
    draw = random.Random(seed)
    sampler = RandomSampler(seed=0)
    studies = [
        optuna.create_study(study_name="s", direction=direction, pruner=pruner, sampler=sampler)
        for pruner in (make_theirs(), make_ours())
    ]
    running: dict[int, list[Trial]] = {}
    n_stopped = 0
    for _ in range(500):
        if draw.random() < 0.02:
            studies[1].pruner = make_ours()  # the sweep was resumed
        if len(running) < 6:
            pair = [study.ask() for study in studies]
            running[pair[0].number] = pair
        number = draw.choice(sorted(running))
        pair, steps = running[number], [100, 200, 300, 400, 600, 900, 1000]
        last = studies[0].get_trials(deepcopy=False)[number].last_step or 0
        left = [step for step in steps if step > last][: draw.choice([1, 1, 2])]
        if not left or draw.random() < 0.05:
            end(studies, pair, draw.choice([TrialState.COMPLETE, TrialState.COMPLETE, TrialState.FAIL]), draw)
            del running[number]
            continue
        value = draw.choice([round(draw.random(), 1), draw.random(), draw.choice([math.inf, -math.inf, math.nan])])
        for trial in pair:
            trial.report(value, left[-1])
        theirs, ours = (trial.should_prune() for trial in pair)
        assert ours == bool(theirs)
        if theirs and draw.random() < 0.9:  # the last report of a trial never prunes it
            end(studies, pair, TrialState.PRUNED, draw)
            del running[number]
            n_stopped += 1
    assert n_stopped > 5
    assert [t.system_attrs for t in studies[1].trials] == [t.system_attrs for t in studies[0].trials]


def end(studies: list[Study], pair: list[Trial], state: TrialState, draw: random.Random) -> None:
    value = draw.random()
    for study, trial in zip(studies, pair, strict=True):
        study.tell(trial, value if state is TrialState.COMPLETE else None, state=state)


def test_a_sampler_sees_with_hyperband_what_it_sees_with_optunas() -> None:
    made = []
    for make in PAIRS["hyperband"]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            sampler = TPESampler(multivariate=True, group=True, seed=0)
        study = optuna.create_study(study_name="s", direction="maximize", pruner=make(), sampler=sampler)
        for _ in range(40):
            trial = study.ask()
            rate = trial.suggest_float("rate", 0, 1)
            for step in (100, 300, 900):
                trial.report(rate + step / 1000, step)
                if trial.should_prune():
                    study.tell(trial, state=TrialState.PRUNED)
                    break
            else:
                study.tell(trial, rate)
        made.append([(trial.state, trial.params, trial.intermediate_values) for trial in study.trials])
    assert made[0] == made[1]
    assert {state for state, *_ in made[0]} == {TrialState.COMPLETE, TrialState.PRUNED}


@pytest.mark.parametrize("longest", [0, 99])
def test_where_no_rung_can_be_reached_nothing_is_stopped(longest: int) -> None:
    pruner = HyperbandPruner(first_rung=100, longest=longest, reduction_factor=3)
    study = optuna.create_study(pruner=pruner, sampler=RandomSampler(seed=0))
    for value in (0.1, 0.9):
        trial = study.ask()
        trial.report(value, 50)
        assert not trial.should_prune()


def test_percentiles_are_numpys() -> None:
    draw = random.Random(0)
    for _ in range(2000):
        values = sorted(draw.choice([draw.random(), round(draw.random(), 1)]) for _ in range(draw.randint(1, 40)))
        percentile = draw.choice([50, 25.0, 75.0, draw.uniform(0, 100)])
        assert percentile_of(values, percentile) == np.percentile(np.array(values), percentile)
