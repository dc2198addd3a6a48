"""How workers are while they train: told with each report, by one model and by each lane of a stack."""

from __future__ import annotations

import math
from typing import Any

import psutil
import pytest
import torch

from finesweep.events import DEVICE_USE, GRAD_NORM, LEARNING_RATE, MEMORY_GIB
from finesweep.training.gauges import Gauges


def test_memory_of_a_cpu_is_what_the_process_holds() -> None:
    gauges = Gauges(torch.device("cpu"))
    before = gauges.read()[MEMORY_GIB]
    held = torch.ones(64 * 2**20)  # 256 MiB
    after = gauges.read()[MEMORY_GIB]
    assert after - before == pytest.approx(0.25, abs=0.05)
    assert held.sum() == 64 * 2**20
    assert after < psutil.virtual_memory().total / 2**30


def test_use_of_a_cpu_is_the_share_of_its_threads_since_the_last_reading() -> None:
    wall_s, cpu_s = iter([10.0, 14.0, 14.0, 15.0]), iter([1.0, 3.0, 3.0, 99.0])
    gauges = Gauges(torch.device("cpu"), clock=lambda: next(wall_s), cpu_clock=lambda: next(cpu_s))
    assert gauges.read()[DEVICE_USE] == pytest.approx(2 / (4 * torch.get_num_threads()))
    assert DEVICE_USE not in gauges.read()  # no time has passed
    assert gauges.read()[DEVICE_USE] == 1.0


def test_each_report_tells_memory_rate_and_gradient(bench: Any) -> None:
    _, told = bench(max_grad_norm=0.5).run(learning_rate=1e-3, batch_size=8, epochs=2)
    rates = [report.telemetry[LEARNING_RATE] for report in told.reports]
    assert rates == sorted(rates, reverse=True)  # linear decay, after each report's step
    assert 0 <= rates[-1] < rates[0] < 1e-3
    for report in told.reports:
        assert report.telemetry[GRAD_NORM] > 0
        assert math.isfinite(report.telemetry[GRAD_NORM])
        assert report.telemetry[MEMORY_GIB] > 0
        assert 0 <= report.telemetry[DEVICE_USE] <= 1
