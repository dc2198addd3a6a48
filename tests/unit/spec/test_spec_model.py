"""What the model section may say beside the method and the precision of training."""

from __future__ import annotations

import pytest
from tests.unit.spec.conftest import Files

SEARCHED = "study.parameters={learning_rate: {type: float, low: 1e-5, high: 1e-3}}"
ONLY_LORA = (SEARCHED, "training.method=lora", "start_with=[]")


@pytest.fixture(autouse=True)
def _no_layers(files: Files) -> None:
    files.edit("study", "  unfrozen_layers: {type: int, low: 0, high: 2, when: {method: feature-extraction}}\n", "")


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (
            ["model.quantize=4bit"],
            "model.quantize: weights of 4bit cannot be trained by method feature-extraction, full",
        ),
        (["model.quantize=4bit", *ONLY_LORA], None),
        (["model.dtype=bfloat16"], None),
        (["model.dtype=float16"], "model.dtype: training.bf16 computes in another half precision"),
        (
            ["model.dtype=bfloat16", "training.bf16=false", "training.fp16=true"],
            "model.dtype: training.fp16 scales the",
        ),
        (["model.dtype=float16", "training.bf16=false", "training.fp16=true"], "model.dtype: training.fp16 scales the"),
        (["training.bf16=false", "training.fp16=true"], None),
        (["model.attention=flash_attention_2"], None),
        (["model.attention=flash_attention_2", "training.bf16=false"], "flash_attention_2 computes in half precision"),
        (["model.attention=flash_attention_2", "training.bf16=false", "model.dtype=bfloat16"], None),
        (["model.attention=flash"], 'model.attention: attention "flash" is unknown'),
        (["model.revision=v1"], None),
        (["model=./m.gguf", "model.revision=v1"], "model.revision: only models of the hub have revisions"),
        (["training.activation_checkpointing_kwargs={use_reentrant: false}"], None),
        (["training.activation_checkpointing_kwargs={use_reentrant: true}"], "behind a frozen part"),
        (["training.gradient_checkpointing_kwargs={use_reentrant: true}", *ONLY_LORA], "behind a frozen part"),
    ],
)
def test_what_cannot_be_loaded_or_trained_that_way(
    files: Files, overrides: list[str], expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    (files.root / "m.gguf").touch()
    monkeypatch.chdir(files.root)
    faults = files.faults(*overrides)
    assert (faults == []) if expected is None else any(expected in fault for fault in faults)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_training_in_half_precision_is_worth_a_word(files: Files, dtype: str) -> None:
    half = [f"model.dtype={dtype}", "training.bf16=false"]
    assert any(f"weights of {dtype} are trained as they are" in note for note in files.notes(*half))
    assert files.notes(*half, *ONLY_LORA) == []


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_pooling_is_for_tasks_that_answer_once_a_row(files: Files, pooling: str) -> None:
    generative = ("task=causal-lm", "study.objective.metric=loss", "study.objective.direction=minimize")
    assert not any("pooling" in fault for fault in files.faults(f"training.pooling={pooling}"))
    assert not any("pooling" in fault for fault in files.faults(*generative, "training.pooling=model"))
    (fault,) = [fault for fault in files.faults(*generative, f"training.pooling={pooling}") if "pooling" in fault]
    assert f"training.pooling: task causal-lm reads the state of every token, not one vector ({pooling})" in fault
    searched = f"study.parameters.pooling={{type: categorical, choices: [model, {pooling}]}}"
    (fault,) = [fault for fault in files.faults(*generative, searched) if "pooling" in fault]
    assert "parameters.pooling: task causal-lm" in fault
