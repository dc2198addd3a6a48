"""A trained model as others load it: whole or as an adapter, with its tokenizer.

In: the weights that a training kept, how they are to be written. Out: files in a folder, which `from_pretrained` and
`load_trained` read. It must not know metrics or cards.

Where a head reads pooled states, plain transformers would load the weights and pool in its own way, without a word: so
they lie in a folder of their own, which nothing but `load_trained` looks into.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from finesweep.production.plan import Plan
from finesweep.spec.sweep import columns_of
from finesweep.training.adapters import is_adapted, save_adapters
from finesweep.training.best_weights import load_trained, note_weights
from finesweep.training.model_files import resolve_model
from finesweep.training.models import load_tokenizer

UNPOOLED = "unpooled"


def write_model(folder: Path, best_dir: Path, plan: Plan, *, step: int, value: float | None, cache_dir: Path) -> None:
    """Fill a folder that is there and empty. Raises ModelError."""
    spec, pooling = plan.spec, plan.spec.training.pooling
    model = load_trained(best_dir, cache_dir=cache_dir)
    weights = "" if pooling == "model" else UNPOOLED
    inner = folder / weights
    inner.mkdir(exist_ok=True)
    if plan.adapter:
        save_adapters(model, inner)
        (inner / "README.md").unlink(missing_ok=True)  # peft's own, of a form to be filled in
    else:
        if is_adapted(model):
            model = model.merge_and_unload()
        model.save_pretrained(inner)
    load_tokenizer(resolve_model(spec.model, cache_dir=cache_dir)).save_pretrained(inner)
    facts = {"step": step, "value": value, "weights": weights, "rows": rows_facts(plan)}
    note_weights(folder, model, facts, model_spec=spec.model, task=spec.task, pooling=pooling)


def rows_facts(plan: Plan) -> Mapping[str, Any]:
    """Say how rows are read that the model is to be tried on."""
    data, task = plan.spec.data, plan.spec.task
    generation = plan.record.evaluation.get("generation")
    return {
        "columns": {
            key: column for key, column in columns_of(data, task).items() if key not in ("label", "completion")
        },
        "format": data.format if task == "causal-lm" else None,
        "max_length": data.max_length,
        "max_new_tokens": generation["max_new_tokens"] if generation else None,
    }
