"""Which trials are alike, told from the files alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from finesweep.spec.stacking import stacking_key
from finesweep.spec.sweep import read_sweep

RATE = {"type": "float", "low": 1e-4, "high": 1e-2}
HEAD = {"method": "feature-extraction"}
TRIAL = {"learning_rate": 1e-3, "batch_size": 8}

Key = Callable[[Mapping[str, Any]], Any]


def key_of(
    *,
    training: Mapping[str, Any] = HEAD,
    parameters: Mapping[str, Any] | None = None,
    objective: Any = None,
    task: str = "classification",
    **sections: Any,
) -> Key:
    spec = read_sweep(
        {
            "name": "heads",
            "task": task,
            "data": {"train": "t.jsonl", "validation": "v.jsonl"},
            "study": {
                "objective": objective or {"metric": "loss", "direction": "minimize"},
                "parameters": {"learning_rate": RATE, **(parameters or {})},
            },
            "training": training,
            "budget": {"trials": 4},
            "model": "m",
            **sections,
        }
    )
    return stacking_key(spec)


def test_heads_that_differ_in_what_each_lane_has_of_its_own_are_alike() -> None:
    key = key_of()
    others = [
        {**TRIAL, "learning_rate": 1e-2, "batch_size": 16, "epochs": 5, "warmup_steps": 7, "weight_decay": 0.1},
        {
            **TRIAL,
            "adam_beta2": 0.9,
            "max_grad_norm": 0.0,
            "label_smoothing_factor": 0.1,
            "lr_scheduler_type": "cosine",
        },
        {**TRIAL, "optim": "adamw_torch"},
    ]
    assert key(TRIAL) is not None
    assert {key(other) for other in others} == {key(TRIAL)}


@pytest.mark.parametrize(
    "difference", [{"pooling": "mean"}, {"bf16": True}, {"train_sampling_strategy": "group_by_length"}]
)
def test_heads_that_see_or_compute_other_numbers_are_not_alike(difference: Mapping[str, Any]) -> None:
    key = key_of()
    assert key({**TRIAL, **difference}) not in (None, key(TRIAL))


@pytest.mark.parametrize(
    "configuration",
    [{"method": "full"}, {"method": "lora"}, {"unfrozen_layers": 1}, {"optim": "adafactor"}, {"fp16": True}],
)
def test_trials_of_more_than_a_head_or_other_optimizers_go_alone(configuration: Mapping[str, Any]) -> None:
    assert key_of()({**TRIAL, **configuration}) is None


@pytest.mark.parametrize(
    "options",
    [
        {"resources": {"feature_cache_gib": 0}},
        {"task": "causal-lm"},
        {"model": {"name": "m", "dtype": "bfloat16"}},
        {
            "objective": [
                {"metric": "loss", "direction": "minimize"},
                {"metric": "train_seconds", "direction": "minimize"},
            ]
        },
        {"training": {**HEAD, "report_to": ["tensorboard"]}},
        {"trainer": "my_module:train", "training": {}},
    ],
    ids=["no store", "tokens", "half precision", "time", "trackers", "own trainer"],
)
def test_sweeps_whose_trials_cannot_share(options: Mapping[str, Any]) -> None:
    assert key_of(**options)(TRIAL) is None


def test_only_the_heads_among_trials_of_several_methods_are_alike() -> None:
    parameters = {"method": {"type": "categorical", "choices": ["full", "feature-extraction"]}}
    key = key_of(training={}, parameters=parameters)
    assert key({**TRIAL, "method": "full"}) is None
    assert key({**TRIAL, "method": "feature-extraction"}) is not None


def test_a_computed_value_that_is_not_allowed_is_left_to_fail_by_itself() -> None:
    assert key_of()({**TRIAL, "warmup_steps": -1}) is None
