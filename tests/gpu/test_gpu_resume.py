"""A trial interrupted on a GPU and resumed there is one that was never interrupted, dropout and all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from tests.gpu.conftest import note
from tests.gpu.test_gpu_heads import gap
from tests.training.conftest import Bench, Recorder

from finesweep.events import Decision, Ending

TRIAL = {"learning_rate": 1e-4, "batch_size": 16, "epochs": 2, "warmup_steps": 5}
# with attention computed step by step every kernel adds in the same order each time, and all has to be equal
WAYS: Mapping[str, tuple[Mapping[str, Any], float]] = {
    "full, exactly": ({"model": {"attention": "eager"}}, 1e-6),
    "full": ({}, 5e-3),
    "in fp16, with its scaler": ({"model": {"attention": "eager"}, "fp16": True}, 1e-6),
    "accumulating": ({"model": {"attention": "eager"}, "device_batch_size": 4}, 1e-6),
    "adapters": ({"model": {"attention": "eager"}, "method": "lora", "lora_dropout": 0.1}, 1e-6),
    "last blocks, stored below": (
        {"model": {"attention": "eager"}, "method": "feature-extraction", "unfrozen_layers": 2},
        1e-6,
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_resumed_equals_unbroken(bench: Callable[..., Bench], way: str) -> None:
    options, within = WAYS[way]
    worker = bench(dropout=0.2, **options)
    _, unbroken = worker.run(number=0, **TRIAL)
    _, again = worker.run(number=1, **TRIAL)
    pause = Recorder(decide=lambda report: Decision.PAUSE if report.step == 768 else Decision.CONTINUE)
    paused, before = worker.run(pause, number=2, attempt=1, **TRIAL)
    resumed, after = worker.run(number=2, attempt=2, **TRIAL)
    assert (paused.ending, resumed.ending) == (Ending.PAUSED, Ending.DONE)
    assert after.facts["resumed_from"]
    _, elsewhere = bench(dropout=0.0, **options, folder="elsewhere").run(number=0, **TRIAL)
    told = [*before.reports, *after.reports]
    repeats, broken, dropped = (gap(reports, unbroken.reports) for reports in (again.reports, told, elsewhere.reports))
    note("resumed", way=way, repeats=repeats, resumed=broken, without_dropout=dropped)
    assert broken <= within
    assert dropped > 20 * within or dropped > 1e-3, "other draws would have shown"
