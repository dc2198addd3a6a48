"""Stored features, and heads trained together, on a GPU: what a trial comes to that computes everything by itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from tests.gpu.conftest import note
from tests.training.conftest import Bench
from tests.training.test_stack import StackRecorder, pause_at, run_stack

from finesweep.events import Ending, Report

HEAD: Mapping[str, Any] = {"method": "feature-extraction"}
UNCACHED = {"resources": {"feature_cache_gib": 0}}
TRIALS: Mapping[int, Mapping[str, Any]] = {
    number: {"learning_rate": rate, "batch_size": 16, "epochs": epochs, "weight_decay": decay}
    for number, (rate, epochs, decay) in enumerate([(1e-3, 3, 0.0), (1e-2, 2, 0.1), (3e-3, 3, 0.01), (1e-4, 1.5, 0.0)])
}


def gap(got: list[Report], expected: list[Report]) -> float:
    """Give the largest difference of a loss; the reports are of the same steps."""
    assert [report.step for report in got] == [report.step for report in expected]
    pairs = list(zip(got, expected, strict=True))
    return max(abs(a.metrics[name] - b.metrics[name]) for a, b in pairs for name in ("loss", "train_loss"))


@pytest.mark.parametrize("layers", [0, 1])
@pytest.mark.parametrize(("precision", "within"), [({}, 2e-4), ({"bf16": True}, 3e-2)])
def test_stored_is_as_good_as_computed(
    bench: Callable[..., Bench], layers: int, precision: Mapping[str, Any], within: float
) -> None:
    options = {**HEAD, **precision, "unfrozen_layers": layers}
    trial = {"learning_rate": 1e-3 if layers == 0 else 1e-4, "batch_size": 16, "epochs": 2}
    _, computed = bench(**options, **UNCACHED, folder="computed").run(number=1, **trial)
    result, stored = bench(**options).run(number=2, **trial)
    assert result.ending is Ending.DONE
    assert (stored.facts["features"], computed.facts["features"][:10]) == ("cached", "not cached")
    largest = gap(stored.reports, computed.reports)
    note(
        "stored features",
        layers=layers,
        precision=precision,
        gap=largest,
        examples_per_s=[computed.facts["examples_per_second"], stored.facts["examples_per_second"]],
    )
    assert largest < within


@pytest.mark.parametrize(("precision", "within"), [({}, 1e-4), ({"bf16": True}, 3e-2)])
def test_together_is_one_by_one(bench: Callable[..., Bench], precision: Mapping[str, Any], within: float) -> None:
    together = run_stack(bench(**HEAD, **precision), trials=TRIALS)
    assert {result.ending for result in together.ends.values()} == {Ending.DONE}
    assert {facts["stacked_with"] for facts in together.facts.values()} == {3}
    lanes, computed = bench(**HEAD, **precision, folder="lanes"), bench(**HEAD, **precision, **UNCACHED, folder="whole")
    by_lane, by_trainer = [], []
    for number, configuration in TRIALS.items():
        _, lane = lanes.run(number=number, **configuration)
        _, whole = computed.run(number=number, **configuration)
        assert lane.facts["stacked_with"] == 0
        by_lane.append(gap(together.reports[number], lane.reports))
        by_trainer.append(gap(together.reports[number], whole.reports))
    note("together", precision=precision, from_one_lane=max(by_lane), from_the_trainer=max(by_trainer))
    assert max(by_lane) < within
    assert max(by_trainer) < within * 5


def test_lanes_with_dropout_drop_alike_alone_and_after_a_pause(bench: Callable[..., Bench]) -> None:
    """A GPU's draws of a lane are its own, and a checkpoint keeps where they stand."""
    options = {**HEAD, "dropout": 0.2, "checkpoint_minutes": 0}
    unbroken = run_stack(bench(**options, folder="unbroken"), trials=TRIALS)
    others = bench(**options, folder="others")
    _, alone = others.run(number=9, **TRIALS[0])
    paused_at_once = bench(**options)
    paused = run_stack(paused_at_once, StackRecorder(pause_at(512)), trials=TRIALS)
    assert {result.ending for result in paused.ends.values()} == {Ending.PAUSED}
    resumed = run_stack(paused_at_once, trials=TRIALS, attempt=2)
    gaps = [gap([*paused.reports[number], *resumed.reports[number]], unbroken.reports[number]) for number in TRIALS]
    without = run_stack(bench(**HEAD, folder="without"), trials=TRIALS)
    dropped = gap(without.reports[0], unbroken.reports[0])
    note("lanes with dropout", resumed=max(gaps), alone=gap(alone.reports, unbroken.reports[0]), dropout=dropped)
    assert max(gaps) < 1e-5
    assert gap(alone.reports, unbroken.reports[0]) < 1e-4
    assert dropped > 1e-3, "dropout is there"
