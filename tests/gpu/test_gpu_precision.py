"""Half precision and TensorFloat-32 on a GPU: finite, near float32, and a trial's own affair."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from tests.gpu.conftest import note
from tests.training.conftest import Bench

from finesweep.events import GRAD_NORM, Ending

TRIAL = {"learning_rate": 1e-4, "batch_size": 16, "epochs": 2}
WAYS: Mapping[str, tuple[Mapping[str, Any], str]] = {
    "bf16": ({"bf16": True}, "bfloat16 autocast"),
    "fp16": ({"fp16": True}, "float16 autocast"),
    "tf32": ({"tf32": True}, "float32"),
    "held in bfloat16": ({"model": {"dtype": "bfloat16"}}, "bfloat16"),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["encoder", "decoder"])
def test_near_what_float32_comes_to(bench: Callable[..., Bench], kind: str, way: str) -> None:
    settings, dtype = WAYS[way]
    short = {"data": {"max_train_rows": 256}} if kind == "decoder" else {}
    result, exact = bench(kind=kind, folder="exact", **short).run(number=1, **TRIAL)
    assert result.ending is Ending.DONE
    assert exact.facts["dtype"] == "float32"
    result, told = bench(kind=kind, **short, **settings).run(number=1, **TRIAL)
    assert result.ending is Ending.DONE
    assert told.facts["dtype"] == dtype
    assert told.steps == exact.steps
    gaps = []
    for one, other in zip(told.reports, exact.reports, strict=True):
        assert all(math.isfinite(one.metrics[name]) for name in ("loss", "train_loss"))
        gaps.append(abs(one.metrics["loss"] - other.metrics["loss"]) / max(1, other.metrics["loss"]))
    note(
        "precision",
        way=way,
        kind=kind,
        gaps=gaps,
        losses=[report.metrics["loss"] for report in told.reports],
        peak_gib=[exact.facts["peak_memory_gib"], told.facts["peak_memory_gib"]],
        examples_per_s=[exact.facts["examples_per_second"], told.facts["examples_per_second"]],
        norms=[report.telemetry[GRAD_NORM] for report in told.reports],
    )
    assert max(gaps) < (0.2 if way == "held in bfloat16" else 0.05)
    assert max(gaps) > 0, "it has computed in another precision"


def test_a_trial_in_tf32_leaves_the_next_in_float32(bench: Callable[..., Bench]) -> None:
    """One worker, four trials: each computes as it says, whatever those before it said."""
    worker = bench()
    _, expected = worker.run(number=1, learning_rate=1e-4, epochs=0.25)
    results = [
        worker.run(number=2 + i, learning_rate=1e-4, epochs=0.25, tf32=way)[1]
        for i, way in enumerate((True, False, True))
    ]
    _, after = worker.run(number=9, learning_rate=1e-4, epochs=0.25)
    first = [told.reports[0].metrics["train_loss"] for told in (expected, *results, after)]
    note("tf32 in turn", losses=first)
    exact, rounded, as_exact, as_rounded, at_last = first
    assert rounded != exact
    assert as_rounded == pytest.approx(rounded, rel=1e-6)
    for other in (as_exact, at_last):
        assert abs(other - exact) < abs(rounded - exact) / 10
    assert torch.backends.cuda.matmul.allow_tf32 is False


@pytest.mark.parametrize("layers", [0, 1])
def test_features_are_stored_in_tf32_too(bench: Callable[..., Bench], layers: int) -> None:
    head = {"method": "feature-extraction", "unfrozen_layers": layers, "tf32": True}
    result, told = bench(**head).run(epochs=1)
    assert (result.ending, told.facts["features"]) == (Ending.DONE, "cached")
