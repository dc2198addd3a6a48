"""CMA-ES draws as Optuna's does, and what it keeps is text that runs nothing."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cmaes
import numpy as np
import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.samplers import CmaEsSampler
from optuna.trial import FrozenTrial

from finesweep.search.cmaes import JsonCmaEsSampler, read, written

N_TRIALS = 40  # several generations of six


def draws(sampler: CmaEsSampler, study: optuna.Study, n_trials: int = N_TRIALS) -> list[tuple[float, ...]]:
    study.sampler = sampler
    drawn = []
    for _ in range(n_trials):
        trial = study.ask({name: FloatDistribution(-5, 5) for name in "xyz"})
        study.tell(trial, sum((value - 1) ** 2 for value in trial.params.values()))
        drawn.append(tuple(trial.params.values()))
    return drawn


def new_study() -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study()


def changed(study: optuna.Study, change: Callable[[FrozenTrial], dict[str, str]]) -> optuna.Study:
    """Copy a study with other attributes beside its trials, as somebody who can write to the database could."""
    copy = new_study()
    for trial in study.trials:
        trial.system_attrs = {**trial.system_attrs, **change(trial)}
        copy.add_trial(trial)
    return copy


class MakesFile:
    """Pickles to something that makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def test_draws_are_those_of_optuna() -> None:
    assert draws(JsonCmaEsSampler(seed=4), new_study()) == draws(CmaEsSampler(seed=4), new_study())


def test_what_is_kept_is_json_under_a_name_that_optunas_own_sampler_does_not_read() -> None:
    study = new_study()
    draws(JsonCmaEsSampler(seed=4), study)
    kept = {key: value for trial in study.trials for key, value in trial.system_attrs.items()}
    assert any(key.startswith("finesweep:cmaes:") for key in kept)
    assert not [key for key in kept if key.startswith("cma:optimizer")]
    draws(CmaEsSampler(seed=4), study, 3)  # begins anew instead of failing


def test_every_bit_of_a_state_comes_back() -> None:
    optimizer = cmaes.CMA(mean=np.array([0.1, 0.2, 0.3]), sigma=0.7, seed=1)
    for _ in range(5):
        solutions = [(x, float(np.sum(x**3))) for x in (optimizer.ask() for _ in range(optimizer.population_size))]
        optimizer.tell(solutions)
    optimizer, again = pickle.loads(pickle.dumps(optimizer)), read(written(optimizer))
    optimizer.reseed_rng(3)
    again.reseed_rng(3)
    for _ in range(5):
        asked = [optimizer.ask() for _ in range(optimizer.population_size)]
        assert np.array_equal(asked, [again.ask() for _ in range(again.population_size)])
        for one in (optimizer, again):
            one.tell([(x, float(np.sum(x**3))) for x in asked])


def test_a_pickle_in_the_database_is_not_run(tmp_path: Path) -> None:
    study, marker = new_study(), tmp_path / "ran"
    draws(JsonCmaEsSampler(seed=4), study, 20)
    planted = pickle.dumps(MakesFile(marker)).hex()
    pickle.loads(bytes.fromhex(planted))
    marker.unlink()  # it would have run
    draws(
        JsonCmaEsSampler(seed=5),
        changed(study, lambda trial: {"cma:optimizer:0": planted, "finesweep:cmaes:0": planted}),
        10,
    )
    assert not marker.exists()


@pytest.mark.parametrize(
    "damage",
    ["", "{", "[]", "{}", "null", '{"_mean": 3}', '{"_mean": {"array": [[1]]}}', '{"_mean": {"array": ["x"]}}'],
)
def test_a_damaged_state_is_passed_over(damage: str, caplog: pytest.LogCaptureFixture) -> None:
    study = new_study()
    draws(JsonCmaEsSampler(seed=4), study, 20)
    last = [trial for trial in study.trials if "finesweep:cmaes:0" in trial.system_attrs][-1]

    def damaged(trial: FrozenTrial) -> dict[str, str]:
        parts = [key for key in trial.system_attrs if key.startswith("finesweep:cmaes:")]
        return {key: damage if key.endswith(":0") else "" for key in parts} if trial.number == last.number else {}

    draws(JsonCmaEsSampler(seed=5), changed(study, damaged), 1)
    assert f"trial {last.number} cannot be read" in caplog.text
