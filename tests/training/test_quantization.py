"""Weights of 4 or 8 bits under adapters. bitsandbytes computes them on a CPU, too, if slowly."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from finesweep.errors import ModelError
from finesweep.events import Decision
from finesweep.spec.sweep import ModelSpec, TransformersSweep
from finesweep.training.best_weights import load_trained
from finesweep.training.model_files import resolve_model

HIDDEN, N_BLOCKS = 64, 2  # bitsandbytes packs in blocks of 64

needs_bitsandbytes = pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="needs bitsandbytes")


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    """A body whose pooler no file holds either."""
    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(1)
    config = transformers.BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        num_hidden_layers=N_BLOCKS,
        num_attention_heads=2,
        intermediate_size=HIDDEN,
        max_position_embeddings=32,
        initializer_range=0.3,
    )
    transformers.BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    folder = tmp_path_factory.mktemp("llama")
    torch.manual_seed(1)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=HIDDEN, num_hidden_layers=N_BLOCKS, num_attention_heads=2,
        intermediate_size=HIDDEN, max_position_embeddings=32, eos_token_id=2, bos_token_id=None,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def packed(make_spec: Any, bert: Path, llama: Path) -> Any:
    def make(quantize: str, *, task: str, dtype: str = "float32", **options: Any) -> TransformersSweep:
        objective = {"metric": "loss", "direction": "minimize"}
        name = llama if task == "causal-lm" else bert
        spec = make_spec(model=name, task=task, objective=objective, method="lora", lora_rank=4, **options)
        model = {"name": str(name), "quantize": quantize, "dtype": dtype}
        return spec.model_copy(update={"model": ModelSpec.model_validate(model)})

    return make


@needs_bitsandbytes
@pytest.mark.filterwarnings("ignore:MatMul8bitLt")
@pytest.mark.parametrize("task", ["classification", "causal-lm"])
@pytest.mark.parametrize("quantize", ["4bit", "8bit"])
def test_adapters_learn_beside_packed_weights(
    packed: Any, bench: Any, recorder: Any, cache_dir: Path, quantize: str, task: str
) -> None:
    set_up = bench(spec=packed(quantize, task=task, lora_dropout=0.1))
    result, told = set_up.run(number=1, learning_rate=1e-2, epochs=4)
    losses = [report.metrics["loss"] for report in told.reports]
    assert losses[-1] < losses[0] - 0.02
    assert told.facts["dtype"] == quantize
    _, again = set_up.run(number=2, learning_rate=1e-2, epochs=4)
    assert again.reports == told.reports  # the weights under the adapters are as they were
    model = load_trained(set_up.artifact_dir / result.artifacts["best"], cache_dir=cache_dir)
    names = {name.removeprefix("base_model.model.") for name, m in model.named_modules() if "bit" in type(m).__name__}
    assert any("layers.0" in name or "layer.0" in name for name in names)
    assert not any(part in name for name in names for part in ("classifier", "pooler", "lm_head"))


@needs_bitsandbytes
@pytest.mark.filterwarnings("ignore:MatMul8bitLt")
@pytest.mark.parametrize("quantize", ["4bit", "8bit"])
def test_packed_weights_are_counted_as_what_they_stand_for(packed: Any, bench: Any, llama: Path, quantize: str) -> None:
    _, told = bench(spec=packed(quantize, task="causal-lm")).run(epochs=1)
    n_base = sum(p.numel() for p in transformers.AutoModelForCausalLM.from_pretrained(llama).parameters())
    n_adapters = N_BLOCKS * 7 * 4 * 2 * HIDDEN
    assert (told.facts["n_trainable"], told.facts["n_parameters"]) == (n_adapters, n_base + n_adapters)


@needs_bitsandbytes
@pytest.mark.filterwarnings("ignore:MatMul8bitLt")
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_resumed_trial_equals_an_unbroken_one(packed: Any, bench: Any, recorder: Any, dtype: str) -> None:
    set_up = bench(spec=packed("4bit", task="causal-lm", dtype=dtype, activation_checkpointing=True))
    _, unbroken = set_up.run(number=1, learning_rate=1e-2)
    pause = recorder(on_poll=lambda n: Decision.PAUSE if n == 4 else Decision.CONTINUE)
    _, before = set_up.run(pause, number=2, attempt=1, learning_rate=1e-2)
    _, after = set_up.run(number=2, attempt=2, learning_rate=1e-2)
    assert [*before.reports, *after.reports] == unbroken.reports


def test_without_bitsandbytes_one_is_told_what_to_install(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)  # as if it were not there
    with pytest.raises(ModelError, match=r'model\.quantize: 4bit takes: pip install "finesweep\[quantization\]"'):
        resolve_model(ModelSpec(name=str(bert), quantize="4bit"), cache_dir=tmp_path)
