"""The table of TrainingArguments, and a trial's settings."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from finesweep.errors import SpecError
from finesweep.spec.settings import (
    NOT_SEARCHED,
    OWNED,
    default_of,
    name_problem,
    own_settings,
    passed_on_settings,
    settings_for,
    training_arguments,
    transformers_arguments,
    value_problem,
)
from finesweep.spec.sweep import TrainingSpec

GENERATOR = Path(__file__).parents[3] / "tools" / "training_arguments.py"


def test_the_table_is_that_of_the_installed_transformers() -> None:
    spec = importlib.util.spec_from_file_location("training_arguments_generator", GENERATOR)
    assert spec is not None and spec.loader is not None
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    installed = generator.table()
    assert json.loads(generator.as_text(installed)) == training_arguments(), "run python tools/training_arguments.py"


def test_every_field_is_ours_owned_or_passed_on() -> None:
    fields = set(training_arguments())
    assert set(OWNED) <= fields
    assert not set(OWNED) & set(own_settings())
    assert fields == set(OWNED) | set(passed_on_settings()) | (fields & set(own_settings()))
    assert set(NOT_SEARCHED) <= set(own_settings())
    assert {"bf16", "lr_scheduler_type", "max_grad_norm", "optim", "label_smoothing_factor"} <= set(
        passed_on_settings()
    )


def test_defaults_that_we_share_with_transformers_are_equal() -> None:
    shared = {"learning_rate", "weight_decay", "warmup_steps"}
    assert {name: default_of(name) for name in shared} == {
        name: training_arguments()[name]["default"] for name in shared
    }
    assert default_of("epochs") == training_arguments()["num_train_epochs"]["default"]
    assert default_of("batch_size") == training_arguments()["per_device_train_batch_size"]["default"]
    assert default_of("max_grad_norm") == 1.0
    assert default_of("optim_args") is None
    assert default_of("nothing") is None


def test_every_refusal_says_our_word() -> None:
    for name in OWNED:
        problem = name_problem(name)
        assert problem is not None
        assert problem.startswith(f"{name} is finesweep's to set: ")
    assert name_problem("learning_rate") is None
    assert name_problem("bf16") is None
    assert name_problem("leraning_rate") == 'setting "leraning_rate" is unknown; did you mean "learning_rate"?'


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("bf16", True, None),
        ("bf16", 1, "1 is not true or false, which bf16 must be."),
        ("max_grad_norm", 1, None),
        ("dataloader_num_workers", 2.0, None),
        ("dataloader_num_workers", 2.5, "2.5 is not a whole number, which dataloader_num_workers must be."),
        ("tf32", None, None),
        ("lr_scheduler_kwargs", {"num_cycles": 2}, None),
        ("lr_scheduler_kwargs", 3, "3 is not a mapping or null or text, which lr_scheduler_kwargs must be."),
        ("optim_target_modules", ["a"], None),
        ("optim", "sgd", None),
        ("train_sampling_strategy", "group_by_length", None),
        (
            "train_sampling_strategy",
            "batch_rebalance",
            'train_sampling_strategy "batch_rebalance" cannot be used: it deals rows out to several devices and takes'
            " more of them at once than device_batch_size. Choose another.",
        ),
        ("learning_rate", "x", None),  # ours: the model of TrainingSpec judges it
        ("output_dir", 3, None),  # owned: refused by name
        ("nothing", 3, None),
    ],
)
def test_values_of_settings_passed_on(name: str, value: Any, problem: str | None) -> None:
    assert value_problem(name, value) == problem


def test_a_trials_configuration_lies_over_the_fixed_settings() -> None:
    training = TrainingSpec.model_validate({"bf16": True, "epochs": 2, "seed": 3})
    settings = settings_for(training, {"learning_rate": 1e-3, "lr_scheduler_type": "cosine"})
    assert (settings.learning_rate, settings.epochs, settings.seed, settings.batch_size) == (1e-3, 2, 3, 8)
    assert transformers_arguments(settings) == {"bf16": True, "lr_scheduler_type": "cosine"}
    assert transformers_arguments(training) == {"bf16": True}


@pytest.mark.parametrize(
    ("configuration", "message"),
    [
        ({"learning_rate": -1.0}, "configuration: learning_rate: learning_rate is -1.0 but must be above 0."),
        ({"bf16": 3}, "configuration: bf16: 3 is not true or false, which bf16 must be."),
        ({"output_dir": "x"}, "configuration: output_dir: output_dir is finesweep's to set"),
        ({"batch_size": 12}, "configuration: device_batch_size: device_batch_size (8) must divide batch_size (12)"),
    ],
)
def test_a_derived_value_that_is_not_allowed_is_refused(configuration: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        settings_for(TrainingSpec(device_batch_size=8), configuration)
    assert str(caught.value).startswith(message)


def test_a_batch_no_larger_than_the_device_takes_is_whole() -> None:
    assert settings_for(TrainingSpec(device_batch_size=16), {"batch_size": 12}).batch_size == 12
    assert settings_for(TrainingSpec(device_batch_size=4), {"batch_size": 12}).batch_size == 12
