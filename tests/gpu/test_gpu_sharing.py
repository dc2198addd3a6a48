"""Several trials share one GPU: at the same time, each within its part, and nothing of them stays."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable

import pandas as pd
import psutil
import pytest
import torch
from tests.gpu.conftest import facts_by_trial, note, used_gib
from tests.integration.conftest import Workplace

from finesweep.events import DEVICE_USE, GRAD_NORM, MEMORY_GIB
from finesweep.results.cost import sweep_cost

N_TRIALS, PER_GPU = 8, 4
WEIGHTS_GIB = 4 * 10.8e6 * 4 / 2**30  # of the encoder in float32: weights, gradients, two moments


@pytest.fixture
def shared(workplace: Callable[..., Workplace]) -> Workplace:
    return workplace(
        budget={"trials": N_TRIALS},
        resources={"gpus_per_trial": 1 / PER_GPU},
        training={"epochs": 3, "batch_size": 8},
    )


def test_trials_run_side_by_side_on_one_gpu_and_leave_nothing_there(shared: Workplace) -> None:
    before_gib = used_gib()
    shared.run("run", "sweep.yaml")
    results = shared.results
    trials = results.trials("gpu")
    assert list(trials["state"]) == ["COMPLETE"] * N_TRIALS

    facts = facts_by_trial(shared, "gpu")
    assert {told["device"] for told in facts.values()} == {torch.cuda.get_device_name(0)}
    assert {tuple(told["gpu_ids"]) for told in facts.values()} == {("0",)}
    pids = {told["pid"] for told in facts.values()}
    assert len(pids) == PER_GPU

    reports = results.telemetry("gpu")
    memory = reports[reports["name"] == MEMORY_GIB]
    most = _most_at_once(memory)
    note("trials on one GPU at once", most=most, workers=len(pids))
    assert most == PER_GPU
    _check_telemetry(reports, facts=[told["peak_memory_gib"] for told in facts.values()])

    cost = sweep_cost(results, "gpu")
    assert cost.slot_hours > 0
    assert cost.gpu_hours == pytest.approx(cost.slot_hours / PER_GPU)

    assert not [pid for pid in pids if psutil.pid_exists(pid)]
    assert _settled_gib(at_most=before_gib + 0.3) <= before_gib + 0.3


def _most_at_once(reports: pd.DataFrame) -> int:
    """Count the trials that lay between their first and last report at the same time, at most."""
    spans = reports.groupby("number")["reported_at"].agg(["min", "max"])
    return max(int(((spans["min"] <= moment) & (moment < spans["max"])).sum()) for moment in spans["min"])


def _check_telemetry(reports: pd.DataFrame, *, facts: list[float]) -> None:
    total_gib = torch.cuda.get_device_properties(0).total_memory / 2**30
    memory = reports.loc[reports["name"] == MEMORY_GIB, "value"]
    use = reports.loc[reports["name"] == DEVICE_USE, "value"]
    norms = reports.loc[reports["name"] == GRAD_NORM, "value"]
    note("telemetry", memory_gib=[memory.min(), memory.max()], use=[use.min(), use.max()], peak_gib=max(facts))
    assert memory.between(WEIGHTS_GIB, total_gib / PER_GPU).all()
    assert all(WEIGHTS_GIB < peak <= memory.max() for peak in facts)
    if importlib.util.find_spec("pynvml") is not None:
        assert len(use) == len(memory), "each report tells how busy the GPU is"
        assert use.between(0, 1).all()
        assert use.max() > 0.2, "four trials keep a GPU at work"
    assert (norms > 0).all()


def _settled_gib(*, at_most: float) -> float:
    """Tell what is held of the GPU once the driver has taken back what ended processes held."""
    end_s = time.monotonic() + 20
    while (held := used_gib()) > at_most and time.monotonic() < end_s:
        time.sleep(0.2)
    return held
