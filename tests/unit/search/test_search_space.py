from __future__ import annotations

from typing import Any

import optuna
import pytest
from tests.unit.search.conftest import MakeDesk

from finesweep.events import Source, TrialSuggested
from finesweep.search.broker import NoTrial
from finesweep.search.space import list_configurations, stored_parameters, suggest_configuration
from finesweep.spec.parameters import Parameters
from finesweep.spec.study import StudySpec

METHODS = {
    "alpha": {"value": "2 * rank", "when": {"method": "lora"}},  # before what it is computed from
    "rank": {"type": "categorical", "choices": [8, 16], "when": {"method": "lora"}},
    "learning_rate": {
        "by": "method",
        "full": {"type": "float", "low": 1e-6, "high": 1e-5},
        "lora": {"type": "float", "low": 1e-4, "high": 1e-3, "log": True},
        "head": {"value": 0.5},
    },
    "method": {"type": "categorical", "choices": ["full", "lora", "head", "none"]},
}


def parameters_of(content: dict[str, Any]) -> Parameters:
    objective = {"metric": "accuracy", "direction": "maximize"}
    return StudySpec.model_validate({"objective": objective, "parameters": content}).parameters


def draw(parameters: Parameters, given: dict[str, Any], **fixed: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a configuration and what Optuna holds of it, with what is given."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.enqueue_trial(stored_parameters(given, parameters, fixed=fixed))
    trial = study.ask()
    return suggest_configuration(trial, parameters, fixed=fixed), trial.params


@pytest.mark.parametrize(
    ("method", "names", "stored"),
    [
        ("full", ["learning_rate", "method"], {"full.learning_rate", "method"}),
        ("lora", ["alpha", "rank", "learning_rate", "method"], {"lora.learning_rate", "method", "rank"}),
        ("head", ["learning_rate", "method"], {"method"}),
        ("none", ["method"], {"method"}),
    ],
)
def test_each_branch_has_its_own_parameters_in_the_order_of_the_file(
    method: str, names: list[str], stored: set[str]
) -> None:
    configuration, params = draw(parameters_of(METHODS), {"method": method})
    assert list(configuration) == names
    assert set(params) == stored
    if method == "lora":
        assert configuration["alpha"] == 2 * configuration["rank"]
        assert 1e-4 <= configuration["learning_rate"] == params["lora.learning_rate"] <= 1e-3
    if method == "full":
        assert 1e-6 <= configuration["learning_rate"] == params["full.learning_rate"] <= 1e-5
    if method == "head":
        assert configuration["learning_rate"] == 0.5


def test_a_fixed_setting_decides_conditions_branches_and_values() -> None:
    content = {name: item for name, item in METHODS.items() if name != "method"}
    configuration, params = draw(parameters_of(content), {"rank": 16}, method="lora")
    assert configuration["alpha"] == 32
    assert set(params) == {"rank", "lora.learning_rate"}
    assert "method" not in configuration
    assert draw(parameters_of(content), {}, method="none") == ({}, {})


def test_what_is_given_is_stored_under_its_branch_without_what_is_derived_or_absent() -> None:
    parameters = parameters_of(METHODS)
    given = {"method": "full", "learning_rate": 2e-6, "rank": 8, "alpha": 16}
    assert stored_parameters(given, parameters, fixed={}) == {"method": "full", "full.learning_rate": 2e-6}
    assert draw(parameters, given)[0] == {"method": "full", "learning_rate": 2e-6}


def test_values_are_spelled_as_the_study_spells_them() -> None:
    parameters = parameters_of(
        {
            "batch_size": {"type": "categorical", "choices": [8, 16]},
            "flag": {"type": "categorical", "choices": [True, False, None]},
            "rate": {"type": "float", "low": 0.1, "high": 0.9, "step": 0.1},
            "decay": {"type": "float", "low": 0, "high": 1},
            "epochs": {"type": "int", "low": 1, "high": 9, "step": 2},
        }
    )
    given = {"batch_size": 8.0, "flag": None, "rate": 0.1 + 2 * 0.1, "decay": 1, "epochs": 3.0}
    configuration, _ = draw(parameters, given)
    assert repr(configuration) == "{'batch_size': 8, 'flag': None, 'rate': 0.3, 'decay': 1.0, 'epochs': 3}"


def test_a_finite_space_is_listed_without_what_does_not_exist() -> None:
    content = METHODS | {
        "learning_rate": {
            "by": "method",
            "full": {"type": "float", "low": 0.1, "high": 0.3, "step": 0.1},
            "lora": {"value": 0.5},
        }
    }
    listed = list_configurations(parameters_of(content), fixed={})
    assert listed is not None
    assert list(listed) == [
        {"learning_rate": 0.1, "method": "full"},
        {"learning_rate": 0.2, "method": "full"},
        {"learning_rate": 0.3, "method": "full"},
        {"alpha": 16, "rank": 8, "learning_rate": 0.5, "method": "lora"},
        {"alpha": 32, "rank": 16, "learning_rate": 0.5, "method": "lora"},
        {"method": "head"},
        {"method": "none"},
    ]


@pytest.mark.parametrize(
    "content",
    [
        {"x": {"type": "float", "low": 0, "high": 1}},
        {"x": {"type": "int", "low": 0, "high": 1000}, "y": {"type": "int", "low": 0, "high": 1000}},
    ],
)
def test_an_endless_or_huge_space_is_not_listed(content: dict[str, Any]) -> None:
    assert list_configurations(parameters_of(content), fixed={}) is None


def test_two_ranges_of_one_name_are_never_mixed_in_the_study(make_desk: MakeDesk) -> None:
    desk = make_desk(METHODS, sampler={"type": "tpe", "startup_trials": 5}, n_trials=25)
    while desk.broker.suggest() is not NoTrial.EXHAUSTED:
        number = len(desk.heard(TrialSuggested)) - 1
        if number in desk.broker._in_flight:
            desk.report(number, 900, 0.01 * number, final=True)
            desk.finish(number)
    for event in desk.heard(TrialSuggested):
        assert set(event.parameters) == set(event.distributions)
        method = event.configuration["method"]
        if method in ("full", "lora"):
            assert event.parameters[f"{method}.learning_rate"] == event.configuration["learning_rate"]
    assert {event.configuration["method"] for event in desk.heard(TrialSuggested)} == {"full", "lora", "head", "none"}


def test_a_branch_of_a_partial_start_is_sampled_in_its_own_range(make_desk: MakeDesk) -> None:
    desk = make_desk(METHODS, starting=[(Source.START_WITH, {"method": "lora", "rank": 16})])
    configuration = desk.next().configuration
    assert (configuration["rank"], configuration["alpha"]) == (16, 32)
    assert 1e-4 <= configuration["learning_rate"] <= 1e-3
