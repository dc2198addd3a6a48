"""A GGUF file becomes a plain model folder once, and one that is not whole leaves nothing behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from finesweep.errors import ModelError
from finesweep.spec.sweep import ModelSpec
from finesweep.training.model_files import resolve_model
from finesweep.training.models import load_model, load_tokenizer

gguf = pytest.importorskip("gguf")

VOCABULARY = [*(chr(33 + i) for i in range(63)), "AB"]
HIDDEN, INNER = 16, 24


@pytest.fixture(scope="module")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A llama of one block with random weights, as llama.cpp would have written it."""
    path: Path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    writer = gguf.GGUFWriter(str(path), "llama")
    for key, value in {
        "context_length": 32,
        "embedding_length": HIDDEN,
        "block_count": 1,
        "feed_forward_length": INNER,
        "head_count": 2,
        "head_count_kv": 2,
        "layer_norm_rms_eps": 1e-5,
        "vocab_size": len(VOCABULARY),
        "rope_dimension_count": HIDDEN // 2,
        "tokenizer_model": "gpt2",
        "token_list": VOCABULARY,
        "token_types": [1] * len(VOCABULARY),
        "token_merges": ["A B"],
        "bos_token_id": 61,
        "eos_token_id": 62,
    }.items():
        getattr(writer, f"add_{key}")(value)
    draw = np.random.default_rng(0)
    block = {
        **dict.fromkeys(("attn_q", "attn_k", "attn_v", "attn_output"), (HIDDEN, HIDDEN)),
        **dict.fromkeys(("attn_norm", "ffn_norm"), (HIDDEN,)),
        **dict.fromkeys(("ffn_gate", "ffn_up"), (INNER, HIDDEN)),
        "ffn_down": (HIDDEN, INNER),
    }
    shapes = {
        "token_embd": (len(VOCABULARY), HIDDEN),
        "output_norm": (HIDDEN,),
        "output": (len(VOCABULARY), HIDDEN),
        **{f"blk.0.{name}": shape for name, shape in block.items()},
    }
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", draw.normal(size=shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_file_is_unpacked_once_and_loaded_as_a_folder(tiny_gguf: Path, tmp_path: Path) -> None:
    spec = ModelSpec(name=str(tiny_gguf))
    source = resolve_model(spec, cache_dir=tmp_path)
    weights = Path(source.location) / "model.safetensors"
    made_at = weights.stat().st_mtime_ns
    assert resolve_model(spec, cache_dir=tmp_path) == source
    assert weights.stat().st_mtime_ns == made_at
    model, fresh = load_model(source, task="causal-lm", labels=(), pad_id=0, seed=0)
    assert not fresh
    assert torch.equal(model.lm_head.weight, load_file(weights)["lm_head.weight"])
    assert load_tokenizer(source)("ABC")["input_ids"] == [VOCABULARY.index("AB"), VOCABULARY.index("C")]


def test_other_precision_is_another_model_of_the_same_folder(tiny_gguf: Path, tmp_path: Path) -> None:
    whole, half = (
        resolve_model(ModelSpec(name=str(tiny_gguf), dtype=dtype), cache_dir=tmp_path)
        for dtype in ("float32", "bfloat16")
    )
    assert whole.location == half.location
    assert whole.fingerprint != half.fingerprint


@pytest.mark.parametrize("share", [0.0, 0.001, 0.05, 0.3, 0.7, 0.99])
def test_a_truncated_file_is_named_and_leaves_nothing(tiny_gguf: Path, tmp_path: Path, share: float) -> None:
    content = tiny_gguf.read_bytes()
    path = tmp_path / "cut.gguf"
    path.write_bytes(content[: int(share * len(content))])
    message = rf'model: "{path}" cannot be unpacked \(.*\)\. Is the file whole\? It has [\d,]+ bytes\. Fetch it again'
    with pytest.raises(ModelError, match=message):
        resolve_model(ModelSpec(name=str(path)), cache_dir=tmp_path / "cache")
    left = [entry for entry in (tmp_path / "cache/models").iterdir() if entry.suffix != ".lock"]
    assert left == []


def test_a_trial_of_a_gguf_file(tiny_gguf: Path, bench: Any) -> None:
    objective = {"metric": "loss", "direction": "minimize"}
    result, told = bench(model=tiny_gguf, task="causal-lm", objective=objective, method="lora").run(learning_rate=1e-2)
    assert told.reports[-1].metrics["loss"] < told.reports[0].metrics["loss"]
    assert result.artifacts
