"""A worker that has run fifty trials holds no more than one that has run five, whatever their methods."""

from __future__ import annotations

import gc
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import transformers
from tests.training.conftest import make_llama

from finesweep.events import Decision

KINDS: tuple[dict[str, Any], ...] = (
    {"method": "full"},
    {"method": "lora", "lora_rank": 4},
    {"method": "feature-extraction", "unfrozen_layers": 0},
    {"method": "lora", "lora_rank": 8},
    {"method": "feature-extraction", "unfrozen_layers": 2},
)


@pytest.fixture(scope="module")
def larger_bert(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Path:
    """Of 13 MB, so that a copy that is not given back is seen."""
    folder = tmp_path_factory.mktemp("larger")
    config = transformers.BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=1024,
        max_position_embeddings=32,
    )
    transformers.BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def alive() -> Counter[str]:
    gc.collect()
    kept = torch.Tensor | torch.nn.Module | torch.optim.Optimizer | transformers.Trainer
    return Counter(type(thing).__name__ for thing in gc.get_objects() if issubclass(type(thing), kept))


def run_trials(bench: Any, recorder: Any, model: Path, n_trials: int, **settings: Any) -> tuple[list[float], Any, Any]:
    """Run trials of all kinds, some of them stopped. Return the resident MiB after each, and what lives in the end."""
    set_up = bench(model=model, data={"max_train_rows": 16, "max_validation_rows": 4}, **settings)
    process = psutil.Process()
    resident_mib, lived_after_5 = [], Counter[str]()
    for number in range(n_trials):
        stop_at = 1 if number % 7 == 3 else -1
        told = recorder(on_poll=lambda n, at=stop_at: Decision.STOP if n == at else Decision.CONTINUE)
        set_up.run(told, number=number, batch_size=(4, 8, 16)[number % 3], epochs=1, **KINDS[number % len(KINDS)])
        resident_mib.append(process.memory_info().rss / 2**20)
        if number == 4:
            lived_after_5 = alive()
    return resident_mib, lived_after_5, alive()


@pytest.mark.parametrize("task", ["classification", "causal-lm"])
def test_a_dozen_trials_leave_nothing_behind(
    bench: Any, recorder: Any, tiny_bert: Path, tmp_path: Path, tokenizer: Any, task: str
) -> None:
    model = tiny_bert if task == "classification" else make_llama(tmp_path / "llama", tokenizer, is_tied=False)
    objective = {"metric": "loss", "direction": "minimize"}
    _, after_5, in_the_end = run_trials(bench, recorder, model, 12, task=task, objective=objective)
    assert in_the_end == after_5


def test_memory_does_not_grow_over_fifty_trials(bench: Any, recorder: Any, larger_bert: Path) -> None:
    resident_mib, after_5, in_the_end = run_trials(bench, recorder, larger_bert, 50)
    assert in_the_end == after_5
    assert resident_mib[-1] < 1.1 * resident_mib[4]


def test_processes_that_load_data_end_with_the_trial(bench: Any, recorder: Any) -> None:
    set_up = bench(dataloader_num_workers=1)
    processes: list[int] = []

    def count(_: Any) -> Decision:
        processes.append(len(psutil.Process().children()))
        return Decision.CONTINUE

    before = len(psutil.Process().children())
    for number in range(2):
        set_up.run(recorder(decide=count), number=number, epochs=1)
    assert max(processes) > before
    assert len(psutil.Process().children()) == before


def test_trials_of_other_methods_change_nothing_for_the_next(bench: Any) -> None:
    set_up = bench()
    _, first = set_up.run(number=0, method="full")
    _, adapted = set_up.run(number=1, method="lora")
    _, head = set_up.run(number=2, method="feature-extraction")
    _, again = set_up.run(number=3, method="full")
    assert again.reports == first.reports
    assert len({told.reports[-1].metrics["loss"] for told in (first, adapted, head)}) == 3
