"""Hours of slots and of GPUs."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import pandas as pd
import pytest

from finesweep.results.cost import cost_of

HOUR_S = 3600


def attempts(*rows: tuple[float, float | None, dict[str, Any]]) -> pd.DataFrame:
    """Make attempts that began and ended at these hours."""
    begun, ended, facts = zip(*rows, strict=True)
    return pd.DataFrame({"started_at": moments(begun), "ended_at": moments(ended), "facts": list(facts)})


def moments(hours: Iterable[float | None]) -> pd.Series[pd.Timestamp]:
    seconds = [math.nan if hour is None else hour * HOUR_S for hour in hours]
    return pd.to_datetime(pd.Series(seconds, dtype="float64"), unit="s", utc=True)


ONE, OTHER = {"node_id": "a", "pid": 1}, {"node_id": "a", "pid": 2}


def test_slots_that_work_side_by_side_add_up() -> None:
    cost = cost_of(attempts((0, 2, ONE), (0, 1, OTHER), (3, 4, ONE)), gpus_per_trial=1)
    assert (cost.slot_hours, cost.gpu_hours) == (4, 0)


def test_trials_of_one_computation_are_charged_once() -> None:
    cost = cost_of(attempts((0, 2, ONE), (0, 3, ONE), (1, 2.5, ONE)), gpus_per_trial=1)
    assert cost.slot_hours == 3


def test_a_share_of_a_gpu_is_charged_as_that_share() -> None:
    gpu = {**ONE, "gpu_ids": ["0"]}
    cost = cost_of(attempts((0, 2, gpu), (0, 1, {**OTHER, "device": "cuda"}), (0, 5, {"pid": 3})), gpus_per_trial=0.5)
    assert cost.gpu_hours == pytest.approx(1.5)
    assert cost.slot_hours == 8


def test_a_gpu_that_no_scheduler_gave_is_known_by_its_name() -> None:
    named = {**OTHER, "device": "NVIDIA H100 80GB HBM3"}
    cost = cost_of(attempts((0, 2, named), (0, 3, {**ONE, "device": "cpu"})), gpus_per_trial=1)
    assert (cost.slot_hours, cost.gpu_hours) == (5, 2)


def test_an_attempt_that_runs_costs_nothing_yet_and_one_that_a_clock_ended_early_nothing() -> None:
    assert cost_of(attempts((0, None, ONE)), gpus_per_trial=1).slot_hours == 0
    assert cost_of(attempts((2, 1, ONE)), gpus_per_trial=1).slot_hours == 0
