"""What holds for every task and every method.

Trials learn, what is frozen stays bit for bit, what moves is counted right, what is kept scores as was reported, and a
trial that was interrupted is one that was not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file
from tests.training.conftest import CLASSES, make_llama
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, mse_loss
from torch.nn.modules.module import register_module_forward_pre_hook

from finesweep.events import Decision, Ending, Grid
from finesweep.training.best_weights import load_trained

TASKS = ("classification", "multi-label-classification", "regression", "causal-lm")
RANK = 4
METHODS: Mapping[str, Mapping[str, Any]] = {
    "full": {"method": "full"},
    "head": {"method": "feature-extraction", "unfrozen_layers": 0},
    "blocks": {"method": "feature-extraction", "unfrozen_layers": 1},
    "lora": {"method": "lora", "lora_rank": RANK, "lora_alpha": 16, "lora_dropout": 0.1},
}
TRIAL = {"batch_size": 8, "epochs": 6, "warmup_steps": 5, "weight_decay": 0.1}
RATES = {"full": 5e-3, "head": 1e-2, "blocks": 1e-2, "lora": 1e-2}

# What moves of the models' own tensors, as a reader of their names would say.
HEAD = {"labelled": r"classifier\.", "causal-lm": r"lm_head\."}
MOVING = {
    "full": {"labelled": r"", "causal-lm": r""},
    "head": HEAD,
    "blocks": {
        "labelled": r"classifier\.|bert\.pooler\.|bert\.encoder\.layer\.2\.",
        "causal-lm": r"lm_head\.|model\.norm\.|model\.layers\.2\.",
    },
    "lora": {"labelled": r"classifier\.", "causal-lm": r"nothing of them"},
}

pytestmark = [pytest.mark.parametrize("method", METHODS), pytest.mark.parametrize("task", TASKS)]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    """Weights that are not tiny, or what adapters change would hardly be seen behind a frozen output layer."""
    return make_llama(tmp_path_factory.mktemp("llama"), tokenizer, is_tied=False, initializer_range=0.3)


@pytest.fixture
def set_up(bench: Any, task: str, method: str, tiny_bert: Path, llama: Path) -> Any:
    return bench(
        model=llama if task == "causal-lm" else tiny_bert,
        task=task,
        objective={"metric": "loss", "direction": "minimize"},
        grid=Grid("examples", every=40, longest=1000),
        resources={"feature_cache_gib": 0},  # whole models are looked at; test_features.py holds the others to them
        **METHODS[method],
    )


@pytest.fixture
def base(task: str, tiny_bert: Path, llama: Path) -> dict[str, torch.Tensor]:
    """The tensors of the model's file, by the names that they have in a model of the task."""
    if task == "causal-lm":
        return load_file(llama / "model.safetensors")
    return {f"bert.{name}": tensor for name, tensor in load_file(tiny_bert / "model.safetensors").items()}


@pytest.fixture
def in_training() -> Iterator[list[Any]]:
    """Give the model that a trial trains, as transformers made it; adapters are put inside it."""
    seen: list[Any] = []

    def watch(module: torch.nn.Module, _: Any) -> None:
        has_head = isinstance(module, transformers.PreTrainedModel) and module.base_model is not module
        if has_head and not any(module is known for known in seen):
            seen.append(module)

    handle = register_module_forward_pre_hook(watch)
    yield seen
    handle.remove()


def test_learns_what_moves_alone_and_keeps_the_best(
    set_up: Any, base: Any, in_training: list[Any], cache_dir: Path, task: str, method: str
) -> None:
    result, told = set_up.run(learning_rate=RATES[method], **TRIAL)
    assert result.ending is Ending.DONE
    losses = [report.metrics["loss"] for report in told.reports]
    assert min(losses) < losses[0] - 0.05
    assert told.reports[-1].metrics["train_loss"] < told.reports[0].metrics["train_loss"]

    (model,) = in_training
    after = own_tensors(model)
    moving = re.compile(MOVING[method]["causal-lm" if task == "causal-lm" else "labelled"])
    for name, tensor in base.items():
        assert torch.equal(after[name], tensor) is (moving.match(name) is None), name

    assert (told.facts["n_trainable"], told.facts["n_parameters"]) == counts(base, task, method)

    kept = load_trained(set_up.artifact_dir / result.artifacts["best"], cache_dir=cache_dir)
    assert loss_by_hand(kept.eval(), set_up.trainer._shared.validation, task) == pytest.approx(min(losses), rel=1e-5)


def test_resumed_equals_unbroken(
    set_up: Any, recorder: Any, optimizer_steps: Any, batches_seen: Any, task: str, method: str
) -> None:
    trial = {**TRIAL, "learning_rate": RATES[method], "epochs": 2.5}
    whole, unbroken = set_up.run(number=1, **trial)
    rates, batches = list(optimizer_steps.learning_rates), list(batches_seen)
    assert len(rates) == 18
    assert len(batches) == 18
    optimizer_steps.learning_rates.clear()
    batches_seen.clear()

    pause = recorder(decide=lambda report: Decision.PAUSE if report.step == 80 else Decision.CONTINUE)
    paused, before = set_up.run(pause, number=2, attempt=1, **trial)
    resumed, after = set_up.run(number=2, attempt=2, **trial)
    assert (paused.ending, resumed.ending) == (Ending.PAUSED, Ending.DONE)
    assert [*before.reports, *after.reports] == unbroken.reports
    assert optimizer_steps.learning_rates == rates
    assert batches_seen == batches
    one, other = (set_up.artifact_dir / end.artifacts["best"] for end in (whole, resumed))
    (weights,) = one.glob("*.safetensors")
    unbroken_weights, resumed_weights = load_file(weights), load_file(other / weights.name)
    assert unbroken_weights.keys() == resumed_weights.keys()
    assert all(torch.equal(unbroken_weights[name], resumed_weights[name]) for name in unbroken_weights)


def own_tensors(model: Any) -> dict[str, torch.Tensor]:
    """Return a model's tensors by the names that they had before adapters were put inside it."""
    named = {}
    for name, parameter in model.named_parameters():
        if "lora_" not in name and "original_module" not in name:
            named[name.replace("base_layer.", "").replace("modules_to_save.default.", "")] = parameter.detach().cpu()
    return named


def counts(base: Mapping[str, torch.Tensor], task: str, method: str) -> tuple[int, int]:
    """Count trained and all weights from the shapes in the model's file."""
    hidden = 16
    n_classes = 1 if task == "regression" else len(CLASSES)
    n_new = 0 if task == "causal-lm" else n_classes * (hidden + 1)
    kind = "causal-lm" if task == "causal-lm" else "labelled"
    n_base = sum(tensor.numel() for tensor in base.values())
    n_moving = sum(t.numel() for name, t in base.items() if re.match(MOVING[method][kind], name))
    if method != "lora":
        return n_moving + n_new, n_base + n_new
    linear = [t for name, t in base.items() if t.ndim == 2 and "embed" not in name and "lm_head" not in name]
    n_adapters = sum(RANK * sum(t.shape) for t in linear)
    return n_adapters + n_new, n_base + n_new + n_adapters


def loss_by_hand(model: Any, rows: Any, task: str) -> float:
    """Score row by row, without padding."""
    total, n = 0.0, 0
    for row in rows:
        labels = torch.tensor(row["labels"])
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([row["input_ids"]])).logits[0]
        match task:
            case "classification":
                total, n = total + float(cross_entropy(logits, labels)), n + 1
            case "multi-label-classification":
                total += float(binary_cross_entropy_with_logits(logits, labels, reduction="sum"))
                n += len(labels)
            case "regression":
                total, n = total + float(mse_loss(logits[0], labels)), n + 1
            case _:
                total += float(cross_entropy(logits[:-1], labels[1:], reduction="sum"))
                n += int((labels[1:] != -100).sum())
    return total / n
