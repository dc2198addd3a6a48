"""What a sweep may cost, said from one measured step."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from finesweep.errors import ResourcesError
from finesweep.forecast import forecast
from finesweep.scheduling.slots import Slots
from finesweep.spec.sweep import SweepSpec, read_sweep


@dataclass(frozen=True)
class Step:
    n_train_rows: int = 1000
    n_validation_rows: int = 200
    train_s_per_example: float = 0.02
    eval_s_per_example: float = 0.01
    generation_s: float = 0.0
    peak_memory_gib: float = 1.5
    may_be_stored: bool = False
    n_trainable: int = 125_000_000


def sweep(**sections: object) -> SweepSpec:
    return read_sweep(
        {
            "name": "s",
            "model": "m",
            "task": "classification",
            "data": {"train": "t.jsonl", "validation": "v.jsonl"},
            "training": {"epochs": 3, "eval_every": 1000},
            "study": {
                "objective": {"metric": "loss", "direction": "minimize"},
                "parameters": {"learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2}},
            },
            "budget": {"trials": 10},
            **sections,
        }
    )


def test_time_and_memory_of_trial_and_sweep() -> None:
    # 3 epochs of 1,000 rows at 20 ms, and 4 evaluations of 200 rows at 10 ms
    assert forecast(sweep(), Step(), Slots((), 0.0, 1, 2)) == [
        "memory: 1.50 GiB",
        "disk: about 0.47 GiB for kept weights, 1.4 GiB for each of a trial's two checkpoints",
        "longest trial: 68 s",
        "whole sweep: about 6 min on 2 slots, without pruning",
    ]


def test_a_quota_that_holds_no_model_is_refused() -> None:
    with pytest.raises(
        ResourcesError, match=r"artifacts\.quota_gib: 0\.4 GiB do not hold the weights of one trial \(0\.466"
    ):
        forecast(sweep(artifacts={"quota_gib": 0.4}), Step(), None)
    assert forecast(sweep(artifacts={"quota_gib": 0.4, "keep": "none"}), Step(), None)
    assert forecast(sweep(artifacts={"quota_gib": 0.5}), Step(), None)


def test_device_hours_where_there_are_devices() -> None:
    assert forecast(sweep(), Step(), Slots((0,), 0.5, 1, 2))[-1] == "GPU-hours: about 0.09"
    assert forecast(sweep(), Step(), None)[-1] == "whole sweep: about 0.19 slot-hours without pruning"


def test_frozen_layers_that_are_computed_once_are_named() -> None:
    lines = forecast(sweep(), replace(Step(), may_be_stored=True), None)
    assert lines[3] == "frozen layers: computed once, in about 12 s; trials then take less than is said here"
