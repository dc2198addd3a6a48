"""A trial interrupted at any of its reports and resumed is one that was never interrupted.

The same metrics, the same learning rates, the same rows in the same order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from finesweep.events import Decision, Ending, Grid, Report

TRIAL = {"batch_size": 8, "epochs": 2.6, "warmup_steps": 5, "weight_decay": 0.1, "learning_rate": 3e-3}
WAYS_TO_TRAIN: dict[str, dict[str, Any]] = {
    "as usual": {},
    "accumulating": {"device_batch_size": 2},
    "grouped by length": {"train_sampling_strategy": "group_by_length", "lr_scheduler_type": "cosine"},
    "whole batches only": {"dataloader_drop_last": True, "device_batch_size": 4},
    "with patience": {"early_stopping_patience": 2, "early_stopping_min_delta": 0.1},
    "on the axis of progress": {"grid": Grid("progress", every=23, longest=100)},
    "frozen below": {"method": "feature-extraction", "unfrozen_layers": 1},
}


class Killed(BaseException):
    """Stands for the death of a worker: no clean-up of a trial runs on it."""


def pause_at(step: int) -> Callable[[Report], Decision]:
    return lambda report: Decision.PAUSE if report.step == step else Decision.CONTINUE


def kill_at(step: int) -> Callable[[Report], Decision]:
    def decide(report: Report) -> Decision:
        if report.step == step:
            raise Killed
        return Decision.CONTINUE

    return decide


@pytest.mark.parametrize("way", WAYS_TO_TRAIN)
def test_interrupted_at_any_report(
    bench: Any, recorder: Any, optimizer_steps: Any, batches_seen: Any, way: str
) -> None:
    set_up = bench(checkpoint_minutes=60, **WAYS_TO_TRAIN[way])
    whole, unbroken = set_up.run(number=0, **TRIAL)
    rates, batches = list(optimizer_steps.learning_rates), list(batches_seen)
    assert len(unbroken.reports) > 3
    for number, step in enumerate(unbroken.steps[:-1], start=1):
        optimizer_steps.learning_rates.clear()
        batches_seen.clear()
        paused, before = set_up.run(recorder(decide=pause_at(step)), number=number, attempt=1, **TRIAL)
        resumed, after = set_up.run(number=number, attempt=2, **TRIAL)
        assert (paused.ending, resumed.ending, resumed.reason) == (Ending.PAUSED, Ending.DONE, whole.reason)
        assert [*before.reports, *after.reports] == unbroken.reports
        assert optimizer_steps.learning_rates == rates
        assert batches_seen == batches


@pytest.mark.parametrize("way", ["accumulating", "with patience"])
def test_killed_at_any_report(bench: Any, recorder: Any, way: str) -> None:
    """What was told is told again: a worker that died may have died before anybody heard."""
    set_up = bench(checkpoint_minutes=0, **WAYS_TO_TRAIN[way])
    _, unbroken = set_up.run(number=0, **TRIAL)
    for number, step in enumerate(unbroken.steps, start=1):
        before, after = recorder(decide=kill_at(step)), recorder()
        with pytest.raises(Killed):
            set_up.run(before, number=number, attempt=1, **TRIAL)
        set_up.run(after, number=number, attempt=2, **TRIAL)
        assert [*before.reports[:-1], *after.reports] == unbroken.reports


def test_interrupted_at_every_report(bench: Any, recorder: Any) -> None:
    set_up = bench(**WAYS_TO_TRAIN["accumulating"])
    _, unbroken = set_up.run(number=0, **TRIAL)
    reports: list[Report] = []
    for attempt in range(1, len(unbroken.reports) + 1):
        result, told = set_up.run(recorder(decide=lambda report: Decision.PAUSE), number=1, attempt=attempt, **TRIAL)
        reports += told.reports
    assert result.ending is Ending.DONE
    assert reports == unbroken.reports


def test_a_loss_on_its_way_up_is_remembered(bench: Any, recorder: Any) -> None:
    """Divergence is found at the same step, though the first of the high losses came before the interruption."""
    options = {"max_grad_norm": 0.0, "optim": "sgd", "grid": Grid("examples", every=1000, longest=1000)}
    trial = {"learning_rate": 30.0, "batch_size": 8, "epochs": 6}
    set_up = bench(**options)
    stop = recorder(decide=lambda report: Decision.STOP)
    _, unbroken = set_up.run(stop, number=0, **trial)
    pause = recorder(on_poll=lambda n: Decision.PAUSE if n == 6 else Decision.CONTINUE)
    set_up.run(pause, number=1, attempt=1, **trial)
    _, after = set_up.run(recorder(decide=lambda report: Decision.STOP), number=1, attempt=2, **trial)
    [(report, expected)] = zip(after.reports, unbroken.reports, strict=True)
    assert report.step == expected.step
    assert report.metrics["train_loss"] == expected.metrics["train_loss"]
