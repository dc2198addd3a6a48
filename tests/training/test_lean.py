"""Ways to train with less memory or faster: half precision, activations recomputed, compiled graphs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.modules.module import register_module_forward_pre_hook
from transformers.models.bert.modeling_bert import BertSelfAttention

from finesweep.training.best_weights import load_trained

METHODS = {
    "full": {"method": "full"},
    "blocks": {"method": "feature-extraction", "unfrozen_layers": 1},
    "lora": {"method": "lora", "lora_dropout": 0.1},
}


@pytest.fixture
def passes() -> Any:
    """Count how often each of the three blocks computes its attention in training."""
    n_passes = [0, 0, 0]

    def watch(module: torch.nn.Module, _: Any) -> None:
        if isinstance(module, BertSelfAttention) and torch.is_grad_enabled():
            n_passes[module.layer_idx] += 1

    handle = register_module_forward_pre_hook(watch)
    yield n_passes
    handle.remove()


@pytest.mark.parametrize(
    ("method", "factors"), [("full", [2, 2, 2]), ("blocks", [1, 1, 2]), ("lora", [2, 2, 2])], ids=list(METHODS)
)
@pytest.mark.parametrize("name", ["activation_checkpointing", "gradient_checkpointing"])
def test_activations_computed_again_change_nothing(
    bench: Any, passes: list[int], method: str, factors: list[int], name: str
) -> None:
    _, plain = bench(**METHODS[method]).run(number=1, learning_rate=1e-2, epochs=1)
    n_plain = list(passes)
    _, lean = bench(**METHODS[method], **{name: True}).run(number=2, learning_rate=1e-2, epochs=1)
    assert [after - before for after, before in zip(passes, n_plain, strict=True)] == [
        factor * n for factor, n in zip(factors, n_plain, strict=True)
    ]
    assert lean.reports == plain.reports


@pytest.mark.parametrize("method", METHODS)
def test_weights_of_half_precision_are_trained_and_kept_so(
    bench: Any, make_spec: Any, cache_dir: Any, method: str
) -> None:
    spec = make_spec(**METHODS[method], objective={"metric": "loss", "direction": "minimize"})
    half = spec.model.model_copy(update={"dtype": "bfloat16"})
    set_up = bench(spec=spec.model_copy(update={"model": half}))
    result, told = set_up.run(learning_rate=1e-2, epochs=4)
    losses = [report.metrics["loss"] for report in told.reports]
    assert min(losses) < losses[0] - 0.02
    assert told.facts["dtype"] == "bfloat16"
    folder = set_up.artifact_dir / result.artifacts["best"]
    model = load_trained(folder, cache_dir=cache_dir)
    expected = {torch.bfloat16, torch.float32} if method == "lora" else {torch.bfloat16}  # adapters, as peft does
    assert {p.dtype for p in model.parameters()} == expected


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_compiled_graph_trains_alike_and_is_kept_under_plain_names(bench: Any, cache_dir: Any, method: str) -> None:
    graphs = torch._dynamo.utils.counters["stats"]
    options = {**METHODS[method], "objective": {"metric": "loss", "direction": "minimize"}}
    _, plain = bench(**options).run(number=1, learning_rate=1e-2, epochs=1)
    set_up = bench(**options, torch_compile=True, torch_compile_backend="eager")
    began_with = graphs["unique_graphs"]
    result, compiled = set_up.run(number=2, learning_rate=1e-2, epochs=1)
    n_graphs = graphs["unique_graphs"] - began_with
    assert n_graphs > 0
    assert compiled.reports == plain.reports
    folder = set_up.artifact_dir / result.artifacts["best"]
    (weights,) = folder.glob("*.safetensors")
    assert not any("_orig_mod" in name for name in load_file(weights))
    load_trained(folder, cache_dir=cache_dir)
    set_up.run(number=3, learning_rate=2e-2, epochs=1)
    assert graphs["unique_graphs"] - began_with == 2 * n_graphs  # nothing is left of an earlier trial's


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated")  # in torch's own compiler
def test_compiled_code_trains_alike(bench: Any, tmp_path: Path, tiny_bert: Path) -> None:
    """By torch's own compiler, whose dropout would fall otherwise."""
    model = shutil.copytree(tiny_bert, tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    none = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (model / "config.json").write_text(json.dumps(config | none))
    _, plain = bench(model=model).run(number=1, learning_rate=1e-2, epochs=1)
    _, compiled = bench(model=model, torch_compile=True).run(number=2, learning_rate=1e-2, epochs=1)
    assert [report.metrics for report in compiled.reports] == [
        pytest.approx(report.metrics, rel=1e-3) for report in plain.reports
    ]
