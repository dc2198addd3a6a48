"""The part of a training script that loads a model and chooses which of its weights move.

In: the model section and the method of a record. Out: constants and blocks. Takes what it says from the ledger.
"""

from __future__ import annotations

from typing import Any

from finesweep.export.ledger import Ledger
from finesweep.export.record import ExportRecord
from finesweep.export.script import model_blocks
from finesweep.export.script.text import Parts, literal
from finesweep.export.stacks.model_words import model_name, names_of_modules

_PROBLEMS = {
    "classification": "single_label_classification",
    "multi-label-classification": "multi_label_classification",
    "regression": "regression",
}


def model_parts(record: ExportRecord, ledger: Ledger, parts: Parts) -> None:
    """Add what a model is and, in `run_model`, how it is loaded; refuse what plain transformers does not load."""
    ledger.take("task")
    name, revision = model_name(ledger, record)
    parts.constant("MODEL", name)
    parts.constant("REVISION", revision)
    for item in ("model.dtype", "model.attention", "model.trust_remote_code", "model.allow_pickle"):
        ledger.take(item)
    ledger.refuse_unless_default(
        "model.quantize", "weights of few bits are not in the script. Use --to axolotl, trl or llamafactory."
    )
    method, pooling = ledger.take("settings.method"), ledger.take("settings.pooling")
    if pooling != "model":
        vector = model_blocks.MEAN if pooling == "mean" else model_blocks.CLS
        parts.block(model_blocks.POOL.replace("POOLING", str(pooling)).replace("VECTOR", vector), "import torch")
    if method == "feature-extraction":
        ledger.take("settings.unfrozen_layers")
        _check_cut(record, ledger)
        parts.constant("UNFROZEN", tuple(record.facts.get("unfrozen_modules", ())), why="what moves")
        parts.constant("FROZEN", tuple(record.facts.get("frozen_modules", ())), why="whose dropout stays off")
    if method == "lora":
        for key in ("lora_rank", "lora_alpha", "lora_dropout", "lora_target_modules"):
            value = ledger.take(f"settings.{key}")
            if key != "lora_target_modules":
                parts.constant(key.upper(), value)
            elif value != "all-linear":
                parts.constant(key.upper(), names_of_modules(value))
        parts.packages.add("peft")


def run_model(record: ExportRecord, parts: Parts) -> str:
    """Write the lines that load the tokenizer and the model and set its weights to move."""
    model = record.model
    assert model is not None
    causal = record.task == "causal-lm"
    auto = "AutoModelForCausalLM" if causal else "AutoModelForSequenceClassification"
    parts.imports |= {
        "import torch",
        "from transformers import AutoTokenizer",
        f"from transformers import {auto}",
        "from transformers import set_seed",
    }
    remote = ", trust_remote_code=True" if model["trust_remote_code"] else ""
    revision = ", revision=REVISION"
    options = [f"dtype=torch.{model['dtype']}"]
    if model["attention"] is not None:
        options.append(f"attn_implementation={literal(model['attention'])}")
    if not model["allow_pickle"]:
        options.append("use_safetensors=True")
    options.append("output_loading_info=True")
    if not causal:
        options += _head(str(record.task))
    listed = "".join(f"    {option},\n" for option in options)
    lines = f"""
tokenizer = AutoTokenizer.from_pretrained(MODEL{revision}{remote})
PAD = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id or 0

set_seed(SEED)
model, loading = {auto}.from_pretrained(
    MODEL,
    revision=REVISION,
{"    trust_remote_code=True," + chr(10) if remote else ""}{listed})
if model.config.pad_token_id is None:
    model.config.pad_token_id = PAD
"""
    return lines + _moving(record, parts)


def _head(task: str) -> list[str]:
    head = (
        ["num_labels=1"]
        if task == "regression"
        else [
            "num_labels=len(LABELS)",
            "id2label=dict(enumerate(LABELS))",
            "label2id={label: i for i, label in enumerate(LABELS)}",
        ]
    )
    return [*head, f"problem_type={literal(_PROBLEMS[task])}", "ignore_mismatched_sizes=True"]


def _moving(record: ExportRecord, parts: Parts) -> str:
    settings: Any = record.settings
    pooled = settings["pooling"] != "model"
    text = "model.base_model.register_forward_hook(pool, with_kwargs=True)\n" if pooled else ""
    match settings["method"]:
        case "feature-extraction":
            return text + model_blocks.FREEZE_ALL_BUT
        case "lora":
            parts.imports |= {"import peft", "from transformers.pytorch_utils import Conv1D"}
            return text + _lora(record, pooled=pooled) + "frozen = []\n"
    return text + (model_blocks.FREEZE_POOLER if pooled else "") + "frozen = []\n"


def _lora(record: ExportRecord, *, pooled: bool) -> str:
    causal = record.task == "causal-lm"
    all_linear = record.settings["lora_target_modules"] == "all-linear"
    pooler = 'f".{model.base_model_prefix}.pooler."' if pooled else None
    lora = model_blocks.LORA
    if all_linear:  # peft finds them itself
        start, end = lora.index("adaptable = "), lora.index("set_seed(SEED)")
        lora = lora[:start] + lora[end:]
    if pooler is None:
        lora = lora.replace('idle = [name for name, _ in model.named_modules() if POOLER in f".{name}."]\n', "")
        lora = lora.replace("        exclude_modules=idle or None,\n", "").replace("(*whole, *idle)", "whole")
    lora = lora.replace("TARGETS", '"all-linear"' if all_linear else "targets")
    lora = lora.replace("POOLER", str(pooler)).replace("TASK_TYPE", '"CAUSAL_LM"' if causal else '"SEQ_CLS"')
    return (model_blocks.LORA_NO_HEAD if causal else model_blocks.LORA_HEAD) + lora


def _check_cut(record: ExportRecord, ledger: Ledger) -> None:
    if "unfrozen_modules" not in record.facts or "frozen_modules" not in record.facts:
        ledger.refuse(
            "settings.method",
            "which weights moved the trial does not tell: an older finesweep trained it. Train it again, by the "
            "record's command, and export that.",
        )
