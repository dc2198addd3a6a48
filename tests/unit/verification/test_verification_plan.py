"""Which configurations, seeds and baseline a verification is planned with, and the sweep that trains them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest

from finesweep.errors import ResultsError, SweepNameError
from finesweep.events import Event, Grid, TrialState
from finesweep.results.frames import Results, open_results
from finesweep.results.writer import open_writer
from finesweep.search.space import suggest_configuration
from finesweep.spec.settings import trial_settings
from finesweep.spec.space import default_configuration, fixed_settings
from finesweep.spec.sweep import SweepSpec, TransformersSweep, read_sweep
from finesweep.verification.plan import VERIFICATION, VerificationPlan, make_plan, plan_of, verification_spec

METHODS = {
    "method": {"type": "categorical", "choices": ["full", "lora"]},
    "learning_rate": {
        "by": "method",
        "full": {"type": "float", "low": 1e-5, "high": 1e-4, "log": True},
        "lora": {"type": "float", "low": 1e-3, "high": 1e-2, "log": True},  # the default, 2e-4, lies outside
    },
    "batch_size": {"type": "categorical", "choices": [16, 32]},  # and so does 8
    "epochs": {"type": "int", "low": 1, "high": 4},
    "lora_rank": {"type": "categorical", "choices": [8, 64], "when": {"method": "lora"}},
    "lora_alpha": {"value": "2 * lora_rank", "when": {"method": "lora"}},
}
FULL = {"method": "full", "learning_rate": 3e-5, "batch_size": 16, "epochs": 2}
LORA = {"method": "lora", "learning_rate": 2e-3, "batch_size": 32, "epochs": 3, "lora_rank": 64, "lora_alpha": 128}
LORA_DEFAULTS = {
    "method": "lora",
    "learning_rate": 2e-4,
    "batch_size": 8,
    "epochs": 3,
    "lora_rank": 8,
    "lora_alpha": 16,
}
FULL_DEFAULTS = {"method": "full", "learning_rate": 5e-5, "batch_size": 8, "epochs": 3}

Stored = Callable[..., Results]


@pytest.fixture
def store(tmp_path: Path, make_spec: Callable[..., SweepSpec], trial_events: Callable[..., list[Event]]) -> Stored:
    """Store a sweep with trials: configuration and value, or (configuration, None) for one that was pruned."""

    def make(*trials: tuple[Mapping[str, Any], float | None], spec: SweepSpec | None = None) -> Results:
        spec = spec or make_spec(
            study={"objective": {"metric": "accuracy", "direction": "maximize"}, "parameters": METHODS},
            training={"seed": 3},
        )
        with open_writer(tmp_path / "r.db") as writer:
            writer.create_sweep(spec, grid=Grid("examples", 100, 400), provenance={})
            for number, (configuration, value) in enumerate(trials):
                state = TrialState.PRUNED if value is None else TrialState.COMPLETE
                events = trial_events(number, [value or 0.99], configuration=configuration, state=state)
                writer.listener(spec.name)(events)
        return open_results(tmp_path / "r.db")

    return make


def plan(results: Results, said: list[str] | None = None, **options: Any) -> VerificationPlan:
    options = {"top": 3, "n_seeds": 2, "n_race_seeds": 3} | options
    return make_plan(results, "tickets", say=([] if said is None else said).append, **options)


def test_the_best_distinct_configurations_race_whatever_was_pruned(store: Stored) -> None:
    worse, other = FULL | {"epochs": 1}, FULL | {"epochs": 4}
    results = store((FULL, 0.8), (worse, 0.5), (LORA, 0.9), (other, None), (FULL | {"batch_size": 32}, 0.7))
    found = plan(results)
    assert [(arm.trial, arm.label, arm.search_value) for arm in found.arms] == [
        (2, "trial 2", 0.9),
        (0, "trial 0", 0.8),
        (4, "trial 4", 0.7),
    ]
    assert (found.race_seeds, found.seeds) == ((4, 5, 6), (7, 8))  # the sweep's own is 3
    assert found.most_trainings == 3 * 3 + 2 + 2
    assert plan_of({VERIFICATION: found.model_dump(mode="json")}) == found


def test_each_winner_is_compared_with_the_defaults_of_its_method_also_outside_the_ranges(store: Stored) -> None:
    found = plan(store((LORA, 0.9), (FULL, 0.8)))
    assert [arm and dict(arm.configuration) for arm in found.baselines] == [LORA_DEFAULTS, FULL_DEFAULTS]
    assert [arm and arm.trial for arm in found.baselines] == [None, None]


def test_a_default_that_the_search_tried_is_known_again(store: Stored) -> None:
    tried = FULL | {"learning_rate": 5e-5, "batch_size": 8, "epochs": 3}
    found = plan(store((LORA, 0.9), (tried, 0.8)), top=2)
    assert [(arm.label, arm.trial, arm.search_value) for arm in found.baselines if arm] == [
        ("defaults", None, None),
        ("defaults", 1, 0.8),
    ]


def test_a_baseline_can_be_a_trial_or_nothing(store: Stored) -> None:
    results = store((LORA, 0.9), (FULL, 0.8))
    assert [arm and arm.trial for arm in plan(results, baseline="1").baselines] == [1, 1]
    assert plan(results, baseline="none").baselines == (None, None)
    for wrong, said in (("7", "does not exist"), ("best", "write defaults, none or the number"), ("9" * 30, "write")):
        with pytest.raises(ResultsError, match=said):
            plan(results, baseline=wrong)


def test_what_cannot_be_verified_is_told(store: Stored) -> None:
    results = store((FULL, None))
    with pytest.raises(ResultsError, match="no COMPLETE trial to verify yet"):
        plan(results)
    with pytest.raises(SweepNameError):
        make_plan(results, "other", top=1, n_seeds=1, n_race_seeds=1, say=print)


def test_fewer_configurations_than_asked_for_are_told(store: Stored) -> None:
    said: list[str] = []
    found = plan(store((FULL, 0.8)), said)
    assert said == ["tickets has 1 COMPLETE configurations, not 3: these are verified."]
    assert (found.race_seeds, found.most_trainings) == ((), 4)


def test_a_trainer_of_ones_own_has_no_defaults(store: Stored) -> None:
    spec = read_sweep(
        {
            "name": "tickets",
            "trainer": "mine:train",
            "study": {
                "objective": {"metric": "accuracy", "direction": "maximize"},
                "parameters": {"x": {"type": "float", "low": 0, "high": 1}},
            },
            "budget": {"trials": 2},
        }
    )
    results = store(({"x": 0.5}, 0.5), ({"x": 0.25}, 0.25), spec=spec)
    assert plan(results).baselines == (None, None)
    with pytest.raises(ResultsError, match=r"no defaults that finesweep knew of.*--baseline N"):
        plan(results, baseline="defaults")


def test_defaults_that_cannot_be_trained_are_told_and_left_out(
    store: Stored, make_spec: Callable[..., SweepSpec]
) -> None:
    study = {"objective": {"metric": "accuracy", "direction": "maximize"}, "parameters": METHODS}
    said: list[str] = []
    spec = make_spec(study=study, training={"device_batch_size": 5})  # which does not divide 8
    assert plan(store((FULL, 0.8), spec=spec), said, top=1).baselines == (None,)
    [text] = said
    assert text.startswith("No comparison with the library's defaults: ") and "must divide batch_size (8)" in text


def test_what_a_verification_is_of_cannot_be_verified_and_its_seeds_are_not_used_again(
    store: Stored, tmp_path: Path
) -> None:
    results = store((FULL, 0.8))
    first = plan(results, top=1)
    spec = verification_spec(results.spec("tickets"), first, "tickets-verify")
    with open_writer(tmp_path / "r.db") as writer:
        writer.create_sweep(
            spec, grid=Grid("examples", 100, 400), provenance={VERIFICATION: first.model_dump(mode="json")}
        )
    assert (first.seeds, plan(results, top=1).seeds) == ((4, 5), (6, 7))
    assert results.sweeps()["verifies"].tolist()[1] == "tickets"
    with pytest.raises(ResultsError, match="is a verification itself"):
        make_plan(results, "tickets-verify", top=1, n_seeds=1, n_race_seeds=1, say=print)


def test_the_sweep_of_a_plan_draws_its_configurations_exactly(store: Stored) -> None:
    """Also those that lie outside the ranges of the search, and nothing is rounded."""
    lora = LORA | {"learning_rate": 0.0023456789012345}
    results = store((lora, 0.9), (FULL, 0.8))
    spec, found = results.spec("tickets"), plan(results)
    verifying = read_sweep(verification_spec(spec, found, "tickets-verify").model_dump(mode="json"))
    parameters = verifying.study.parameters
    fixed = fixed_settings(verifying.training, parameters)
    assert (verifying.study.pruner.type, verifying.budget.trials, verifying.resources.stack) == ("none", 10, 1)
    assert (verifying.start_with, verifying.try_defaults, verifying.artifacts.keep) == ((), False, "best")
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = [suggest_configuration(study.ask(), parameters, fixed=fixed) for _ in range(40)]
    rates = {configuration["learning_rate"] for configuration in drawn}
    assert rates == {lora["learning_rate"], 3e-5, 2e-4, 5e-5}
    for arm in (*found.arms, *found.baselines):
        assert arm is not None
        settings = trial_settings(verifying.training, {**arm.configuration, "seed": 12})
        assert settings.seed == 12


def test_a_broken_plan_is_told(store: Stored) -> None:
    with pytest.raises(ResultsError, match=r"no plan: created_at: Field required.*verify again"):
        plan_of({VERIFICATION: {"of": "tickets"}})
    assert plan_of({}) is None


def test_defaults_are_spelled_as_the_study_spells_them(make_spec: Callable[..., SweepSpec]) -> None:
    def defaults(parameters: Mapping[str, Any], choices: Sequence[str] = ("full",)) -> Mapping[str, Any]:
        study = {"objective": {"metric": "accuracy", "direction": "maximize"}, "parameters": parameters}
        spec = make_spec(study=study)
        assert isinstance(spec, TransformersSweep)
        return default_configuration(spec, choices[0])

    whole = defaults({"epochs": {"type": "int", "low": 1, "high": 2}})
    assert repr(whole) == "{'epochs': 3}"
    choice = defaults({"weight_decay": {"type": "categorical", "choices": [0, 0.1]}})
    assert repr(choice) == "{'weight_decay': 0}"
    assert defaults({"warmup_ratio": {"type": "float", "low": 0.0, "high": 0.1}}) == {"warmup_ratio": None}
