"""Which weights move, which stay bit for bit, and that what is frozen runs without dropout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file

from finesweep.errors import ModelError
from finesweep.spec.sweep import TrainingSpec
from finesweep.training.best_weights import load_trained
from finesweep.training.methods import apply_method, find_blocks


def classifier(folder: Path) -> Any:
    return transformers.AutoModelForSequenceClassification.from_pretrained(folder, num_labels=3)


def frozen_features(unfrozen_layers: int) -> TrainingSpec:
    return TrainingSpec(method="feature-extraction", unfrozen_layers=unfrozen_layers)


def roots(names: Any) -> set[str]:
    """Shorten parameter names to the modules of a BERT that matter here."""
    return {".".join(name.split(".")[1:4]) if ".layer." in name else name.rsplit(".", 1)[0] for name in names}


def test_full_trains_everything(tiny_bert: Path) -> None:
    trainable = apply_method(
        classifier(tiny_bert), TrainingSpec(method="full"), task="classification", fresh_parameters=frozenset()
    )
    assert trainable.n_trainable == trainable.n_total
    assert trainable.frozen_modules == ()


def test_without_unfrozen_layers_the_head_alone_moves(tiny_bert: Path) -> None:
    model = classifier(tiny_bert)
    trainable = apply_method(model, frozen_features(0), task="classification", fresh_parameters=frozenset())
    assert trainable.names == {"classifier.weight", "classifier.bias"}
    assert trainable.n_trainable == 3 * 16 + 3
    assert trainable.frozen_modules == (model.bert,)


def test_what_was_drawn_anew_moves_with_the_head(tiny_bert: Path) -> None:
    fresh = frozenset({"bert.pooler.dense.weight", "bert.pooler.dense.bias"})
    trainable = apply_method(classifier(tiny_bert), frozen_features(0), task="classification", fresh_parameters=fresh)
    assert trainable.names == fresh | {"classifier.weight", "classifier.bias"}


def test_unfrozen_layers_are_the_last_ones_and_what_follows(tiny_bert: Path) -> None:
    model = classifier(tiny_bert)
    trainable = apply_method(model, frozen_features(1), task="classification", fresh_parameters=frozenset())
    assert roots(trainable.names) == {"encoder.layer.2", "bert.pooler.dense", "classifier"}
    assert trainable.frozen_modules == (model.bert.embeddings, *model.bert.encoder.layer[:2])
    assert {name for name, p in model.named_parameters() if p.requires_grad} == trainable.names


def test_all_blocks_unfrozen_leave_the_embeddings_frozen(tiny_bert: Path) -> None:
    model = classifier(tiny_bert)
    trainable = apply_method(model, frozen_features(3), task="classification", fresh_parameters=frozenset())
    assert trainable.frozen_modules == (model.bert.embeddings,)


def test_more_unfrozen_layers_than_blocks_are_refused(tiny_bert: Path) -> None:
    with pytest.raises(ModelError, match=r"unfrozen_layers: 4 exceeds the 3 blocks"):
        apply_method(classifier(tiny_bert), frozen_features(4), task="classification", fresh_parameters=frozenset())


def test_a_final_norm_defined_before_the_blocks_is_found(tokenizer: Any) -> None:
    config = transformers.OPTConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, ffn_dim=16,
        word_embed_proj_dim=16, max_position_embeddings=32,
    )  # fmt: skip
    model = transformers.OPTForCausalLM(config)
    trainable = apply_method(model, frozen_features(1), task="classification", fresh_parameters=frozenset())
    assert "model.decoder.final_layer_norm.weight" in trainable.names
    assert not any("embed" in name or "layers.0" in name for name in trainable.names)


def test_dropout_before_the_blocks_is_frozen_with_them(tokenizer: Any) -> None:
    config = transformers.GPT2Config(
        vocab_size=len(tokenizer), n_embd=16, n_layer=2, n_head=2, n_positions=32, bos_token_id=2, eos_token_id=2
    )
    model = transformers.GPT2LMHeadModel(config)
    trainable = apply_method(model, frozen_features(1), task="classification", fresh_parameters=frozenset())
    assert any(module is model.transformer.drop for module in trainable.frozen_modules)
    assert {name.split(".")[1] for name in trainable.names} == {"h", "ln_f"}


def test_output_layers_of_generative_models(tiny_llama: Path) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_llama)
    is_tied = model.config.tie_word_embeddings
    trainable = apply_method(model, frozen_features(1), task="classification", fresh_parameters=frozenset())
    assert ("lm_head.weight" in trainable.names) is not is_tied
    assert "model.norm.weight" in trainable.names
    assert not any("embed_tokens" in name for name in trainable.names)
    if is_tied:
        with pytest.raises(ModelError, match=r"Set unfrozen_layers to 1 or more"):
            apply_method(model, frozen_features(0), task="classification", fresh_parameters=frozenset())
    else:
        assert apply_method(model, frozen_features(0), task="classification", fresh_parameters=frozenset()).names == {
            "lm_head.weight"
        }


def test_a_model_without_blocks_is_refused() -> None:
    with pytest.raises(ModelError, match="blocks of a Linear cannot be found"):
        find_blocks(torch.nn.Linear(1, 1))


@pytest.mark.parametrize("unfrozen_layers", [0, 2])
def test_frozen_weights_are_equal_bit_for_bit_after_training(
    bench: Any, tiny_bert: Path, cache_dir: Path, unfrozen_layers: int
) -> None:
    set_up = bench(method="feature-extraction", objective={"metric": "loss", "direction": "minimize", "value": "last"})
    result, told = set_up.run(learning_rate=1e-2, weight_decay=0.1, unfrozen_layers=unfrozen_layers)
    trained = load_trained(set_up.artifact_dir / result.artifacts["best"], cache_dir=cache_dir)
    before = load_file(tiny_bert / "model.safetensors")
    kept = load_file(set_up.artifact_dir / result.artifacts["best"] / "trained.safetensors")
    for name, parameter in trained.bert.named_parameters():
        assert torch.equal(parameter, before[name]) is (f"bert.{name}" not in kept), name
    assert sum(tensor.numel() for tensor in kept.values()) == told.facts["n_trainable"]


def test_the_frozen_part_runs_without_dropout_and_the_rest_with(bench: Any) -> None:
    modes: dict[str, set[bool]] = {"frozen": set(), "trained": set()}

    def watch(module: Any, args: Any) -> None:
        if isinstance(module, transformers.models.bert.modeling_bert.BertLayer) and torch.is_grad_enabled():
            is_trained = next(module.parameters()).requires_grad
            modes["trained" if is_trained else "frozen"].add(module.training)

    handle = torch.nn.modules.module.register_module_forward_pre_hook(watch)
    try:
        resources = {"feature_cache_gib": 0}
        bench(method="feature-extraction", unfrozen_layers=1, resources=resources).run(epochs=1)
    finally:
        handle.remove()
    assert modes == {"frozen": {False}, "trained": {True}}
