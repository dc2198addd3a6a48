"""A trial as the configuration of Axolotl: `axolotl train FILE`.

It fine-tunes language models: whole, in part, by adapters.
"""

from __future__ import annotations

from typing import Any

from finesweep.export.batch import Spread
from finesweep.export.exported import Exported
from finesweep.export.headline import comment
from finesweep.export.ledger import Ledger
from finesweep.export.record import ExportRecord
from finesweep.export.record_text import yaml_text
from finesweep.export.stacks.model_words import causal_only, model_name, names_of_modules, unfrozen_modules, whole_alpha
from finesweep.export.stacks.rows_words import file_kind, warn_of_limits
from finesweep.export.stacks.training_words import LEARNING, warmup_steps, warn_of_the_rest

_WORDS = {  # passed-on settings -> axolotl's names
    "activation_checkpointing": "gradient_checkpointing",
    "activation_checkpointing_kwargs": "gradient_checkpointing_kwargs",
    **{
        name: name
        for name in (
            *("bf16", "fp16", "tf32", "gradient_checkpointing", "gradient_checkpointing_kwargs", "lr_scheduler_kwargs"),
            *("optim_args", "optim_target_modules", "neftune_noise_alpha", "torch_compile", "torch_compile_backend"),
            *("torch_compile_mode", "torch_empty_cache_steps", "dataloader_num_workers", "dataloader_pin_memory"),
            *("dataloader_prefetch_factor", "dataloader_drop_last"),
        )
    },
}
_LEARNING = {"optim": "optimizer", "lr_scheduler_type": "lr_scheduler"}
_CANNOT = {"torch_compile_mode": ("default", "reduce-overhead", "max-autotune")}  # the only values that it takes


def to_axolotl(record: ExportRecord, ledger: Ledger, spread: Spread) -> Exported:
    content: dict[str, Any] = {}
    if causal_only(ledger, record):
        content = {**_model(ledger, record), **_method(ledger, record), **_rows(ledger)}
    content |= {**_training(ledger, record, spread), "output_dir": f"./{record.sweep}-{record.trial}"}
    warn_of_the_rest(ledger, record)
    return Exported(comment(record) + yaml_text(content), warnings=ledger.close())


def _training(ledger: Ledger, record: ExportRecord, spread: Spread) -> dict[str, Any]:
    warmup = warmup_steps(ledger, record)
    if warmup == 1:
        ledger.warn("settings.warmup_steps", "axolotl makes two steps of one.")
    for name in ("batch_size", "device_batch_size"):
        ledger.take(f"settings.{name}")
    words = {
        "micro_batch_size": spread.device_batch_size,
        "gradient_accumulation_steps": spread.accumulation,
        "num_epochs": ledger.take("settings.epochs"),
        "learning_rate": ledger.take("settings.learning_rate"),
        "weight_decay": ledger.take("settings.weight_decay"),
        "warmup_steps": warmup,
        "seed": ledger.take("settings.seed"),
        **{_LEARNING.get(name, name): ledger.take(f"settings.{name}") for name in LEARNING},
    }
    strategy = ledger.look("settings.train_sampling_strategy")
    if strategy == "group_by_length":
        words["group_by_length"] = True
        ledger.warn("settings.train_sampling_strategy", "axolotl draws the order of rows by length otherwise.")
    for name in ledger.passed_on():
        value = ledger.look(f"settings.{name}")
        if name in _WORDS and value is not None and (name not in _CANNOT or value in _CANNOT[name]):
            words[_WORDS[name]] = ledger.take(f"settings.{name}")
    return words


def _model(ledger: Ledger, record: ExportRecord) -> dict[str, Any]:
    name, revision = model_name(ledger, record)
    words: dict[str, Any] = {"base_model": name}
    if revision is not None:
        words["revision_of_model"] = revision
    if ledger.take("model.trust_remote_code"):
        words["trust_remote_code"] = True
    if (attention := ledger.take("model.attention")) is not None:
        words["attn_implementation"] = attention
    ledger.warn_unless_default("model.allow_pickle", "transformers loads pickled weights unasked.")
    match ledger.take("model.dtype"):
        case "float32" if ledger.look("settings.bf16") or ledger.look("settings.fp16"):
            ledger.warn("model.dtype", "axolotl holds the weights themselves in 16 bits where it computes in them.")
        case "float32":
            words |= {"bf16": False, "fp16": False, "float32": True}
        case "bfloat16":
            words |= {"bf16": False, "fp16": False, "bfloat16": True}
        case "float16":
            words |= {"bf16": False, "fp16": False, "float16": True}
    return words


def _method(ledger: Ledger, record: ExportRecord) -> dict[str, Any]:
    match ledger.take("settings.method"):
        case "feature-extraction":
            ledger.take("settings.unfrozen_layers")
            return {"unfrozen_parameters": [f"^{module}." for module in unfrozen_modules(ledger, record)]}
        case "lora":
            bits = ledger.take("model.quantize")
            targets = ledger.take("settings.lora_target_modules")
            every = {"lora_target_linear": True}
            return {
                "adapter": "qlora" if bits == "4bit" else "lora",
                **({} if bits is None else {f"load_in_{bits}": True}),
                "lora_r": ledger.take("settings.lora_rank"),
                "lora_alpha": whole_alpha(ledger),
                "lora_dropout": ledger.take("settings.lora_dropout"),
                **(every if targets == "all-linear" else {"lora_target_modules": names_of_modules(targets)}),
            }
    return {}


def _rows(ledger: Ledger) -> dict[str, Any]:
    kind = ledger.take("data.format")
    how: dict[str, Any]
    match kind:
        case "prompt-completion":
            fields = {"field_instruction": ledger.take("data.prompt"), "field_output": ledger.take("data.completion")}
            as_it_is = {"format": "{instruction}", "no_input_format": "{instruction}"}
            how = {"type": {**fields, **as_it_is}}
        case "messages":
            how = {
                "type": "chat_template",
                "field_messages": ledger.take("data.messages"),
                "roles_to_train": ["assistant"],
                "train_on_eos": "turn",
            }
        case _:
            how = {"type": "completion", "field": ledger.take("data.text")}
            ledger.warn("data.format", "axolotl cuts each text into blocks; the trial cut all texts joined.")
    validation = ledger.take("data.validation")
    words: dict[str, Any] = {
        "datasets": [{**_source(ledger, "train"), **how}],
        "sequence_len": ledger.take("data.max_length"),
        "excess_length_strategy": "truncate",
        "sample_packing": False,
        "train_on_inputs": False,
    }
    if isinstance(validation, float):
        ledger.warn("data.validation", f"axolotl draws other rows than the trial's for the share of {validation:g}.")
        words["val_set_size"] = validation
    else:
        words["test_datasets"] = [{**_source(ledger, "validation"), **how}]
    warn_of_limits(ledger)
    return words


def _source(ledger: Ledger, split: str) -> dict[str, Any]:
    dataset, named = ledger.take("data.dataset"), ledger.take(f"data.{split}")
    if dataset is None:
        return {"path": named, "ds_type": file_kind(named), "split": "train"}
    more = {"name": ledger.take("data.config"), "revision": ledger.take("data.revision")}
    return {"path": dataset, "split": named, **{key: value for key, value in more.items() if value is not None}}
