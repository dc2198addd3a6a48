"""A head that reads the mean of its tokens' states, or the first one, whatever model it belongs to and what moves."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tests.training.conftest import make_llama

from finesweep.errors import ModelError
from finesweep.events import Grid
from finesweep.spec.sweep import TrainingSpec
from finesweep.training.best_weights import load_trained
from finesweep.training.methods import apply_method
from finesweep.training.pooling import add_pooling, mean_of_tokens

IDS = torch.tensor([[5, 6, 7, 8], [9, 10, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])


def sizes(n: int) -> dict[str, Any]:
    return {"vocab_size": n, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "pad_token_id": 0}


@pytest.fixture(params=["bert", "roberta", "llama"])
def model(request: pytest.FixtureRequest, tokenizer: Any) -> Any:
    torch.manual_seed(4)
    options = {**sizes(len(tokenizer)), "intermediate_size": 24, "initializer_range": 0.3, "num_labels": 3}
    config = {
        "bert": transformers.BertConfig,
        "roberta": transformers.RobertaConfig,
        "llama": transformers.LlamaConfig,
    }[request.param](**options)
    return transformers.AutoModelForSequenceClassification.from_config(config).eval()


def pooled_by_hand(model: Any, pooling: str) -> torch.Tensor:
    """Compute row by row, without padding."""
    rows = []
    for ids, mask in zip(IDS, MASK, strict=True):
        states = model.base_model(ids[mask.bool()].unsqueeze(0)).last_hidden_state[0]
        rows.append(states[0] if pooling == "cls" else states.mean(0))
    return torch.stack(rows)


def head_by_hand(model: Any, pooled: torch.Tensor) -> torch.Tensor:
    if hasattr(model, "score"):
        return model.score(pooled)
    if model.base_model_prefix == "roberta":
        return model.classifier.out_proj(torch.tanh(model.classifier.dense(pooled)))
    return model.classifier(pooled)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_the_head_reads_what_was_pooled(model: Any, pooling: str) -> None:
    with torch.no_grad():
        expected = head_by_hand(model, pooled_by_hand(model, pooling))
        names = [name for name, _ in model.named_parameters()]
        add_pooling(model, pooling)
        for one in (model, copy.deepcopy(model)):
            torch.testing.assert_close(one(input_ids=IDS, attention_mask=MASK).logits, expected)
            assert [name for name, _ in one.named_parameters()] == names


def test_a_copy_pools_for_itself(model: Any) -> None:
    add_pooling(model, "mean")
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.base_model.parameters():
            parameter.zero_()
        before = model(input_ids=IDS, attention_mask=MASK).logits
        assert not torch.allclose(other(input_ids=IDS, attention_mask=MASK).logits, before)
        assert torch.equal(model(input_ids=IDS, attention_mask=MASK).logits, before)


def test_halves_are_summed_exactly() -> None:
    """In bfloat16 itself the sum of 300 ones is 256."""
    states = torch.ones((1, 300, 2), dtype=torch.bfloat16)
    assert mean_of_tokens(states, torch.ones((1, 300))).tolist() == [[1.0, 1.0]]
    assert mean_of_tokens(states, None).dtype is torch.bfloat16


def test_a_model_without_a_body_is_refused(tokenizer: Any) -> None:
    body = transformers.BertModel(transformers.BertConfig(**sizes(len(tokenizer)), intermediate_size=24))
    with pytest.raises(ModelError, match=r"pooling: mean stands between .* Set pooling to model"):
        add_pooling(body, "mean")


@pytest.mark.parametrize("method", ["full", "lora", "feature-extraction"])
def test_a_pooler_that_nobody_reads_does_not_move(tiny_bert: Path, method: str) -> None:
    model = transformers.AutoModelForSequenceClassification.from_pretrained(tiny_bert)
    fresh = frozenset({"classifier.weight", "classifier.bias"})
    settings = TrainingSpec(method=method, pooling="mean", unfrozen_layers=1)
    trainable = apply_method(model, settings, task="classification", fresh_parameters=fresh)
    assert not any("pooler" in name for name in trainable.names)
    assert any("encoder.layer.2" in name for name in trainable.names)
    trainable.model(input_ids=IDS, attention_mask=MASK).logits.sum().backward()
    idle = {name for name, p in trainable.model.named_parameters() if name in trainable.names and p.grad is None}
    assert idle == set()


METHODS: Mapping[str, Mapping[str, Any]] = {
    "full": {"method": "full", "learning_rate": 5e-3},
    "lora": {"method": "lora", "lora_rank": 4, "learning_rate": 1e-2},
    "head": {"method": "feature-extraction", "learning_rate": 1e-2},
    "blocks": {"method": "feature-extraction", "unfrozen_layers": 1, "learning_rate": 1e-2},
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_a_trial_learns_and_what_it_keeps_scores_the_same(
    bench: Any, tiny_bert: Path, tokenizer: Any, tmp_path: Path, cache_dir: Path, method: str, kind: str
) -> None:
    model_dir = tiny_bert if kind == "bert" else make_llama(tmp_path / "m", tokenizer, is_tied=False)
    grid = Grid("examples", every=100, longest=1000)
    set_up = bench(model=model_dir, pooling="mean", grid=grid, **METHODS[method])
    result, told = set_up.run(batch_size=8, epochs=6, learning_rate=METHODS[method]["learning_rate"])
    losses = [report.metrics["loss"] for report in told.reports]
    assert min(losses) < losses[0]
    folder = set_up.artifact_dir / result.artifacts["best"]
    assert json.loads((folder / "best.json").read_text())["pooling"] == "mean"
    assert (folder / "model.safetensors").exists() is (method == "full")
    kept = load_trained(folder, cache_dir=cache_dir).eval()
    total, rows = 0.0, set_up.trainer._shared.validation
    for row in rows:
        with torch.no_grad():
            logits = kept(input_ids=torch.tensor([row["input_ids"]])).logits
        total += float(torch.nn.functional.cross_entropy(logits, torch.tensor([row["labels"]])))
    assert total / len(rows) == pytest.approx(min(losses), rel=1e-5)


def test_pooling_may_be_searched(bench: Any, recorder: Any) -> None:
    searched = {"pooling": {"type": "categorical", "choices": ["model", "mean", "cls"]}}
    set_up = bench(parameters=searched, method="feature-extraction", learning_rate=1e-2, batch_size=8)
    last = {}
    for number, pooling in enumerate(("model", "mean", "cls")):
        _, told = set_up.run(recorder(), number=number, pooling=pooling)
        last[pooling] = told.reports[-1].metrics["loss"]
    assert len(set(last.values())) == 3
