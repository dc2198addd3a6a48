"""Adapters on a GPU: learnt, kept, loaded again; beside weights of 4 and 8 bits where bitsandbytes is installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from tests.gpu.conftest import note
from tests.training.conftest import Bench

from finesweep.events import Ending
from finesweep.training.best_weights import load_trained

TRIAL = {"learning_rate": 2e-3, "batch_size": 16, "epochs": 1, "method": "lora", "lora_rank": 8}
NEEDS_BITSANDBYTES = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed"
)
WAYS: Mapping[str, Mapping[str, Any]] = {
    "float32": {},
    "bf16": {"bf16": True},
    "4bit": {"model": {"quantize": "4bit"}, "bf16": True},
    "8bit": {"model": {"quantize": "8bit"}, "bf16": True},
}


@pytest.mark.parametrize(
    "way",
    ["float32", "bf16", pytest.param("4bit", marks=NEEDS_BITSANDBYTES), pytest.param("8bit", marks=NEEDS_BITSANDBYTES)],
)
def test_adapters_learn_and_are_kept(bench: Callable[..., Bench], way: str, tmp_path: Any) -> None:
    worker = bench(kind="decoder", data={"max_train_rows": 512}, **WAYS[way])
    result, told = worker.run(**TRIAL)
    assert result.ending is Ending.DONE
    losses = [report.metrics["loss"] for report in told.reports]
    names = ("dtype", "n_trainable", "n_parameters", "peak_memory_gib", "examples_per_second")
    note("adapters", way=way, losses=losses, **{name: told.facts[name] for name in names})
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0]
    assert told.facts["n_trainable"] < 0.05 * told.facts["n_parameters"]
    model = load_trained(worker.artifact_dir / result.artifacts["best"], cache_dir=tmp_path / "cache").eval()
    if way == "float32":
        model = model.to("cuda")
    ids = torch.arange(2, 34, device=model.device)[None]
    with torch.no_grad():
        assert torch.isfinite(model(input_ids=ids).logits).all()
