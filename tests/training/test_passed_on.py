"""Arguments of transformers that a user may fix or search reach the Trainer and have their effect."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.optim.optimizer import register_optimizer_step_pre_hook
from transformers.models.bert.modeling_bert import BertIntermediate

TRIAL = {"learning_rate": 1e-3, "batch_size": 8, "epochs": 1}
N_STEPS = 7


@pytest.fixture
def optimizers() -> Iterator[list[torch.optim.Optimizer]]:
    """Collect the optimizer of each step."""
    seen: list[torch.optim.Optimizer] = []
    handle = register_optimizer_step_pre_hook(lambda optimizer, *_: seen.append(optimizer))
    yield seen
    handle.remove()


@pytest.fixture
def layers_run() -> Iterator[list[bool]]:
    """Note each pass through the inside of a transformer layer, and whether it was in training."""
    seen: list[bool] = []

    def watch(module: torch.nn.Module, _: Any) -> None:
        if isinstance(module, BertIntermediate):
            seen.append(module.training)

    handle = register_module_forward_pre_hook(watch)
    yield seen
    handle.remove()


@pytest.mark.parametrize("where", ["fixed", "searched"])
def test_a_setting_acts_alike_fixed_and_searched(bench: Any, optimizers: Any, where: str) -> None:
    values = {"adam_beta1": 0.5, "adam_beta2": 0.7, "adam_epsilon": 1e-3}
    if where == "fixed":
        bench(**values).run(**TRIAL)
    else:
        bench().run(**TRIAL, **values)
    [group, *_] = optimizers[-1].param_groups
    assert (group["betas"], group["eps"]) == ((0.5, 0.7), 1e-3)


@pytest.mark.parametrize(
    ("optim", "name"),
    [
        ("adamw_torch", "AdamW"),
        ("sgd", "SGD"),
        ("adafactor", "Adafactor"),
        ("adagrad", "Adagrad"),
        ("rmsprop", "RMSprop"),
    ],
)
def test_optimizers(bench: Any, optimizers: Any, optim: str, name: str) -> None:
    bench(optim=optim).run(**TRIAL)
    assert type(optimizers[-1]).__name__ == name


@pytest.mark.parametrize(
    ("scheduler", "kwargs", "share"),  # of the learning rate, after k of 7 steps
    [
        ("cosine", {}, lambda k: (1 + math.cos(math.pi * k / N_STEPS)) / 2),
        ("polynomial", {"power": 2.0, "lr_end": 0.0}, lambda k: (1 - k / N_STEPS) ** 2),
        ("cosine_with_min_lr", {"min_lr_rate": 0.5}, lambda k: 0.5 + (1 + math.cos(math.pi * k / N_STEPS)) / 4),
        ("constant_with_warmup", {}, lambda k: 1.0),
    ],
)
def test_schedules_and_their_own_arguments(
    bench: Any, optimizer_steps: Any, scheduler: str, kwargs: dict[str, Any], share: Any
) -> None:
    bench(lr_scheduler_type=scheduler, lr_scheduler_kwargs=kwargs).run(**TRIAL)
    assert optimizer_steps.learning_rates == pytest.approx([1e-3 * share(k) for k in range(N_STEPS)])


def test_a_share_of_the_steps_may_be_warmup(bench: Any, optimizer_steps: Any) -> None:
    _, told = bench(lr_scheduler_type="constant_with_warmup").run(**TRIAL, warmup_ratio=0.5)
    assert (told.facts["warmup_steps_asked"], told.facts["warmup_steps"]) == (4, 4)
    assert optimizer_steps.learning_rates == pytest.approx([0, 0.25e-3, 0.5e-3, 0.75e-3, 1e-3, 1e-3, 1e-3])


def test_gradients_are_clipped(bench: Any) -> None:
    """By so much that nothing moves, where the step follows the gradient's length."""
    trial = {**TRIAL, "optim": "sgd", "learning_rate": 10.0}
    _, clipped = bench().run(number=1, **trial, max_grad_norm=1e-9)
    _, free = bench().run(number=2, **trial, max_grad_norm=1.0)
    _, still = bench().run(number=3, **{**trial, "learning_rate": 1e-12})
    assert clipped.reports[-1].metrics["loss"] == pytest.approx(still.reports[-1].metrics["loss"], rel=1e-4)
    assert abs(free.reports[-1].metrics["loss"] - still.reports[-1].metrics["loss"]) > 0.01


def test_noise_on_embeddings_is_for_training_alone(bench: Any) -> None:
    still = {**TRIAL, "learning_rate": 1e-12}
    _, plain = bench().run(number=1, **still)
    _, noisy = bench().run(number=2, **still, neftune_noise_alpha=100.0)
    assert noisy.reports[-1].metrics["loss"] == pytest.approx(plain.reports[-1].metrics["loss"])
    assert noisy.reports[-1].metrics["train_loss"] != pytest.approx(plain.reports[-1].metrics["train_loss"], rel=0.01)


def test_rows_of_like_length_come_together(bench: Any, batches_seen: Any, tmp_path: Path) -> None:
    """Only among many rows: transformers keeps at least four groups, for the sake of chance."""
    rows = [{"text": " ".join(["w1"] * (1 + i % 12)), "label": "ab"[i % 2]} for i in range(320)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def padding(strategy: str) -> int:
        batches_seen.clear()
        files = {"train": str(path), "validation": str(path)}
        bench(data=files, train_sampling_strategy=strategy).run(**TRIAL)
        return sum(row.count(0) for batch in batches_seen for row in batch)

    assert padding("group_by_length") < padding("random") / 3


@pytest.mark.parametrize("method", [{}, {"method": "feature-extraction", "unfrozen_layers": 1}])
def test_activations_are_computed_again_and_change_nothing(bench: Any, layers_run: Any, method: dict[str, Any]) -> None:
    bench(**method).run(number=0, **TRIAL)  # stores what the frozen layers compute
    layers_run.clear()
    _, kept = bench(**method).run(number=1, **TRIAL)
    n_kept = len(layers_run)
    layers_run.clear()
    _, again = bench(**method).run(number=2, **TRIAL, activation_checkpointing=True)
    n_trained = 1 if method else 3
    assert len(layers_run) == n_kept + n_trained * N_STEPS
    assert again.reports[-1].metrics == pytest.approx(kept.reports[-1].metrics, rel=1e-4)


def test_compiled_models_train_alike(bench: Any) -> None:
    _, plain = bench().run(number=1, **TRIAL)
    _, compiled = bench(torch_compile=True, torch_compile_backend="eager").run(number=2, **TRIAL)
    assert compiled.reports[-1].metrics == pytest.approx(plain.reports[-1].metrics, rel=1e-3)


def test_rows_may_be_loaded_by_processes(bench: Any) -> None:
    _, here = bench().run(number=1, **TRIAL)
    _, there = bench(dataloader_num_workers=1).run(number=2, **TRIAL)
    assert there.reports == here.reports
