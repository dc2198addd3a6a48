"""The table of samplers, held against the installed Optuna."""

from __future__ import annotations

import warnings
from typing import get_args

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.samplers import BaseSampler
from optuna.trial import TrialState, create_trial

from finesweep.spec.capabilities import CAPABILITIES
from finesweep.spec.study import SamplerSpec

SPACE = {"x": FloatDistribution(0, 1), "y": FloatDistribution(0, 1), "c": CategoricalDistribution(("a", "b"))}


def make_sampler(name: str) -> BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        match name:
            case "tpe":
                return optuna.samplers.TPESampler(n_startup_trials=4, multivariate=True, group=True, seed=0)
            case "gp":
                return optuna.samplers.GPSampler(n_startup_trials=4, seed=0)
            case "cmaes":
                return optuna.samplers.CmaEsSampler(n_startup_trials=4, consider_pruned_trials=True, seed=0)
            case "nsga2":
                return optuna.samplers.NSGAIISampler(population_size=4, seed=0)
            case "qmc":
                return optuna.samplers.QMCSampler(seed=0)
    return optuna.samplers.RandomSampler(seed=0)


def drawn_together(name: str, states: list[TrialState], *, without_y: bool = False) -> set[str]:
    """Name what a sampler draws by its own method, and not at random, after trials that ended in `states`."""
    study = optuna.create_study(sampler=make_sampler(name))
    for index, state in enumerate(states):
        names = [key for key in SPACE if not (without_y and key == "y" and index % 2)]
        study.add_trial(
            create_trial(
                state=state,
                params={key: "a" if key == "c" else (index + 1) / (len(states) + 1) for key in names},
                distributions={key: SPACE[key] for key in names},
                value=None if state is TrialState.PRUNED else float(index),
                intermediate_values={1: float(index)},
                system_attrs={"NSGAIISampler:generation": 0} if name == "nsga2" else {},
            )
        )
    asked = [study.ask() for _ in range(12)]  # nsga2 leaves a few, by lot, to mutation
    return {parameter for trial in asked for parameter in trial.relative_params}


def test_the_table_names_every_sampler() -> None:
    assert set(CAPABILITIES) == set(get_args(SamplerSpec.model_fields["type"].annotation))


@pytest.mark.parametrize("name", ["tpe", "gp", "cmaes", "nsga2"])
def test_who_learns_from_pruned_trials(name: str) -> None:
    few = [TrialState.COMPLETE]
    assert drawn_together(name, few * 8)
    after_pruned = drawn_together(name, [*few, *[TrialState.PRUNED] * 8])
    assert bool(after_pruned) is CAPABILITIES[name].learns_from_pruned


@pytest.mark.parametrize("name", ["tpe", "gp", "cmaes", "nsga2"])
def test_who_knows_conditions(name: str) -> None:
    drawn = drawn_together(name, [TrialState.COMPLETE] * 12, without_y=True)
    assert "x" in drawn
    assert ("y" in drawn) is CAPABILITIES[name].conditions


@pytest.mark.parametrize("name", ["tpe", "gp", "cmaes", "nsga2", "qmc"])
def test_who_knows_categories(name: str) -> None:
    assert ("c" in drawn_together(name, [TrialState.COMPLETE] * 12)) is CAPABILITIES[name].categories


def test_qmc_draws_its_sequence_over_the_parameters_of_the_first_trial_whatever_the_results() -> None:
    assert drawn_together("qmc", [TrialState.PRUNED] * 2) == set(SPACE)
    assert not CAPABILITIES["qmc"].learns
    assert not CAPABILITIES["qmc"].conditions


def test_one_number_is_enough_for_cmaes() -> None:
    study = optuna.create_study(sampler=make_sampler("cmaes"))
    for index in range(6):
        trial = study.ask()
        trial.suggest_float("x", 0, 1)
        study.tell(trial, float(index))
    assert set(study.ask().relative_params) == {"x"}


@pytest.mark.parametrize("name", ["tpe", "gp", "cmaes", "nsga2", "qmc", "random"])
def test_who_knows_several_objectives(name: str) -> None:
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=make_sampler(name))
    for index in range(6):
        x, y = (index + 1) / 8, 1 - index / 8
        study.add_trial(
            create_trial(
                params={"x": x, "y": y},
                distributions={"x": SPACE["x"], "y": SPACE["y"]},
                values=[x, y],
                system_attrs={"NSGAIISampler:generation": 0} if name == "nsga2" else {},
            )
        )
    if not CAPABILITIES[name].several_objectives:
        with pytest.raises(ValueError, match="multi-objective"):
            study.ask().suggest_float("x", 0, 1)
        return
    drawn: set[str] = set()
    for _ in range(8):
        trial = study.ask()
        trial.suggest_float("x", 0, 1)
        drawn |= set(trial.relative_params)
        study.tell(trial, state=TrialState.PRUNED)
    assert drawn == (set() if name == "random" else {"x", "y"})


def test_grid_knows_several_objectives() -> None:
    grid = optuna.samplers.GridSampler({"x": [0.0, 0.5, 1.0]}, seed=0)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=grid)
    trials = [study.ask() for _ in range(2)]
    drawn = [trial.suggest_float("x", 0, 1) for trial in trials]
    study.tell(trials[0], [0.0, 1.0])
    assert len(set(drawn)) == 2
    assert CAPABILITIES["grid"].several_objectives
