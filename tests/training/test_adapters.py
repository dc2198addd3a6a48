"""LoRA: which modules get adapters, what moves, and that what is kept is a folder that peft and transformers load."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file

from finesweep.errors import ModelError
from finesweep.spec.sweep import TrainingSpec
from finesweep.training.adapters import find_targets
from finesweep.training.best_weights import load_trained
from finesweep.training.methods import Trainable, apply_method

LORA = {"method": "lora", "lora_rank": 4, "lora_alpha": 16}
HIDDEN, INNER, N_BLOCKS, N_CLASSES = 16, 24, 3, 3


def classifier(folder: Path) -> Any:
    return transformers.AutoModelForSequenceClassification.from_pretrained(folder, num_labels=N_CLASSES)


def with_adapters(
    model: Any, *, task: str = "classification", fresh: frozenset[str] = frozenset(), **settings: Any
) -> Trainable:
    return apply_method(model, TrainingSpec(**{**LORA, **settings}), task=task, fresh_parameters=fresh)


def test_adapters_and_the_head_move_and_are_counted(tiny_bert: Path) -> None:
    model = classifier(tiny_bert)
    n_base = sum(p.numel() for p in model.parameters())
    trainable = with_adapters(model, lora_target_modules="query, value")
    n_head = N_CLASSES * (HIDDEN + 1)
    n_adapters = N_BLOCKS * 2 * 4 * (HIDDEN + HIDDEN)
    assert trainable.n_trainable == n_adapters + n_head
    assert trainable.n_total == n_base + n_adapters
    assert all("lora_" in name or "classifier.modules_to_save" in name for name in trainable.names)


def test_all_linear_leaves_the_heads_alone(tiny_bert: Path, tiny_llama: Path) -> None:
    per_block = 4 * 4 * 2 * HIDDEN + 2 * 4 * (HIDDEN + INNER)
    pooler = 4 * 2 * HIDDEN
    assert with_adapters(classifier(tiny_bert)).n_trainable == N_BLOCKS * per_block + pooler + N_CLASSES * (HIDDEN + 1)
    llama = transformers.AutoModelForCausalLM.from_pretrained(tiny_llama)
    assert "lm_head" not in find_targets(llama, "all-linear")
    trainable = with_adapters(llama, task="causal-lm")
    assert trainable.n_trainable == N_BLOCKS * (4 * 4 * 2 * HIDDEN + 3 * 4 * (HIDDEN + INNER))


def test_what_was_drawn_anew_is_trained_whole(tiny_bert: Path) -> None:
    fresh = frozenset({"bert.pooler.dense.weight", "bert.pooler.dense.bias"})
    trainable = with_adapters(classifier(tiny_bert), fresh=fresh)
    pooler = {name for name in trainable.names if "pooler" in name}
    assert {name.partition("pooler.dense.")[2] for name in pooler} == {
        "modules_to_save.default.weight",
        "modules_to_save.default.bias",
    }


def test_adapters_of_gpt2_s_own_kind_of_linear_module(tokenizer: Any) -> None:
    config = transformers.GPT2Config(
        vocab_size=len(tokenizer), n_embd=16, n_layer=2, n_head=2, n_positions=32, bos_token_id=2, eos_token_id=2
    )
    model = transformers.GPT2LMHeadModel(config)
    trainable = with_adapters(model, task="causal-lm", lora_target_modules="c_attn")
    assert trainable.n_trainable == 2 * 4 * (16 + 48)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            "q_proj, v_proj",
            r'"q_proj, v_proj": linear module "q_proj" is not in a Bert.*Known: .*dense, key, query, value',
        ),
        ("query, valu", r'linear module "valu" is not in a Bert.*; did you mean "value"\?'),
        ("LayerNorm", r'linear module "LayerNorm" is not in'),
        ("classifier", r'linear module "classifier" is not in'),  # the head is trained whole
        ("query,", r'linear module "" is not in'),
    ],
)
def test_modules_that_are_not_there(tiny_bert: Path, asked: str, message: str) -> None:
    with pytest.raises(ModelError, match=f"lora_target_modules: .*{message}"):
        with_adapters(classifier(tiny_bert), lora_target_modules=asked)


def test_the_seed_draws_the_adapters(tiny_bert: Path) -> None:
    def drawn(seed: int) -> torch.Tensor:
        torch.rand(seed)  # what was drawn before does not matter
        model = with_adapters(classifier(tiny_bert), seed=seed).model
        return next(p for name, p in model.named_parameters() if "lora_A" in name)

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))


@pytest.fixture
def kept(bench: Any) -> tuple[Path, Any]:
    set_up = bench(**LORA, objective={"metric": "loss", "direction": "minimize"})
    result, told = set_up.run(learning_rate=1e-2, epochs=3)
    return set_up.artifact_dir / result.artifacts["best"], told


def test_what_is_kept_is_an_adapter_folder(kept: tuple[Path, Any], tiny_bert: Path) -> None:
    folder, told = kept
    config = json.loads((folder / "adapter_config.json").read_text())
    assert Path(config["base_model_name_or_path"]) == tiny_bert
    assert (config["r"], config["lora_alpha"], config["task_type"]) == (4, 16, "SEQ_CLS")
    weights = load_file(folder / "adapter_model.safetensors")
    assert sum(tensor.numel() for tensor in weights.values()) == told.facts["n_trainable"]
    assert not (folder / "config.json").exists()  # with it transformers would look for a whole model here


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")  # peft asks by that name
def test_peft_and_transformers_load_what_is_kept(kept: tuple[Path, Any], cache_dir: Path) -> None:
    folder, _ = kept
    ours = load_trained(folder, cache_dir=cache_dir).eval()
    by_peft = peft.AutoPeftModelForSequenceClassification.from_pretrained(folder, num_labels=N_CLASSES).eval()
    by_transformers = transformers.AutoModelForSequenceClassification.from_pretrained(folder, num_labels=N_CLASSES)
    tokens = transformers.AutoTokenizer.from_pretrained(folder)("w1 w2 w3", return_tensors="pt")
    tokens.pop("token_type_ids", None)
    with torch.no_grad():
        expected = ours(**tokens).logits
        torch.testing.assert_close(by_peft(**tokens).logits, expected)
        torch.testing.assert_close(by_transformers.eval()(**tokens).logits, expected)
    assert ours.config.id2label == {0: "bone", 1: "heart", 2: "skin"}
