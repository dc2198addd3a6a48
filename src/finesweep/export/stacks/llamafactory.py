"""A trial as the configuration of LLaMA-Factory, `llamafactory-cli train FILE`, with the list of its data sets.

It fine-tunes language models: whole, in part, by adapters.
"""

from __future__ import annotations

from typing import Any

from finesweep.export.batch import Spread
from finesweep.export.exported import Exported
from finesweep.export.headline import comment
from finesweep.export.ledger import Ledger
from finesweep.export.record import ExportRecord
from finesweep.export.record_text import json_text, yaml_text
from finesweep.export.stacks.model_words import causal_only, model_name, names_of_modules, unfrozen_modules, whole_alpha
from finesweep.export.stacks.rows_words import is_plain_split, warn_of_limits
from finesweep.export.stacks.training_words import training_arguments, warn_of_the_rest

DATA_SETS = "dataset_info.json"  # where LLaMA-Factory looks for what a data set's name means

_ATTENTION = {"eager": "disabled", "sdpa": "sdpa", "flash_attention_2": "fa2", "flash_attention_3": "fa3"}
_CHECKPOINTING = ("gradient_checkpointing", "activation_checkpointing")
_FORMER = {"activation_checkpointing_kwargs": "gradient_checkpointing_kwargs"}  # it runs with older transformers
_UNKNOWN = ("dataloader_multiprocessing_context", "dataloader_in_order")  # to these


def to_llamafactory(record: ExportRecord, ledger: Ledger, spread: Spread) -> Exported:
    content: dict[str, Any] = {}
    data_sets: dict[str, Any] = {}
    if causal_only(ledger, record):
        words, data_sets = _rows(ledger, record)
        content = {**_model(ledger, record), **_method(ledger, record), **words}
    checkpointing = [ledger.take(f"settings.{name}") for name in _CHECKPOINTING if name in ledger.passed_on()]
    content |= {
        "do_train": True,
        "output_dir": f"{record.sweep}-{record.trial}",
        "disable_gradient_checkpointing": not any(checkpointing),  # its own default is to do it
        **training_arguments(ledger, record, spread, renamed=_FORMER, but=(*_CHECKPOINTING, *_UNKNOWN)),
        "report_to": "none",
    }
    warn_of_the_rest(ledger, record)
    return Exported(
        comment(record) + yaml_text(content), beside={DATA_SETS: json_text(data_sets)}, warnings=ledger.close()
    )


def _model(ledger: Ledger, record: ExportRecord) -> dict[str, Any]:
    name, revision = model_name(ledger, record)
    words: dict[str, Any] = {"model_name_or_path": name}
    if revision is not None:
        words["model_revision"] = revision
    if ledger.take("model.trust_remote_code"):
        words["trust_remote_code"] = True
    if (attention := ledger.take("model.attention")) in _ATTENTION:
        words["flash_attn"] = _ATTENTION[attention]
    elif attention is not None:
        ledger.warn("model.attention", f"{attention} is none that LLaMA-Factory knows; it chooses.")
    ledger.warn_unless_default("model.allow_pickle", "transformers loads pickled weights unasked.")
    dtype = ledger.take("model.dtype")
    if dtype == "float32" and (ledger.look("settings.bf16") or ledger.look("settings.fp16")):
        ledger.warn("model.dtype", "LLaMA-Factory loads the weights themselves in 16 bits where it computes in them.")
    elif dtype == "bfloat16":
        words["pure_bf16"] = True
    elif dtype == "float16":
        ledger.warn("model.dtype", "LLaMA-Factory trains weights of float32 or bfloat16: it takes float32.")
    return words


def _method(ledger: Ledger, record: ExportRecord) -> dict[str, Any]:
    match ledger.take("settings.method"):
        case "feature-extraction":
            return _freeze(ledger, record)
        case "lora":
            bits = ledger.take("model.quantize")
            targets = ledger.take("settings.lora_target_modules")
            return {
                "finetuning_type": "lora",
                **({} if bits is None else {"quantization_method": "bnb", "quantization_bit": int(bits[0])}),
                "lora_rank": ledger.take("settings.lora_rank"),
                "lora_alpha": whole_alpha(ledger),
                "lora_dropout": ledger.take("settings.lora_dropout"),
                "lora_target": "all" if targets == "all-linear" else ",".join(names_of_modules(targets)),
            }
    return {"finetuning_type": "full"}


def _freeze(ledger: Ledger, record: ExportRecord) -> dict[str, Any]:
    """Say which blocks move, and of what stands outside them what a name tells from everything in them."""
    n_blocks = ledger.take("settings.unfrozen_layers")
    if n_blocks == 0:
        ledger.refuse(
            "settings.unfrozen_layers",
            "LLaMA-Factory always trains a block at least. Use --to axolotl or script.",
        )
    outside = [name for name in unfrozen_modules(ledger, record) if not name.rpartition(".")[2].isdigit()]
    extra = [name.rpartition(".")[2] for name in outside]
    told = [name for name in extra if "norm" not in name and not name.startswith("ln")]
    if untold := sorted(set(extra) - set(told)):
        ledger.warn(
            "settings.unfrozen_layers",
            f"{', '.join(untold)} behind the blocks moved in the trial and is frozen here: LLaMA-Factory would take its"
            " name for every norm in all blocks as well.",
        )
    words = {"finetuning_type": "freeze", "freeze_trainable_layers": n_blocks}
    return {**words, "freeze_extra_modules": ",".join(told)} if told else words


def _rows(ledger: Ledger, record: ExportRecord) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the words of the configuration, and what its data sets are."""
    how = _format(ledger)
    validation = ledger.take("data.validation")
    names = {"train": f"{record.sweep}-train", "validation": f"{record.sweep}-validation"}
    data_sets = {names["train"]: {**_source(ledger, "train"), **how}}
    is_text = ledger.look("data.format") == "text"
    words: dict[str, Any] = {
        "stage": "pt" if is_text else "sft",
        "dataset_dir": ".",
        "dataset": names["train"],
        "cutoff_len": ledger.take("data.max_length"),
    }
    if is_text:
        words["packing"] = True
    else:
        words |= {"train_on_prompt": False, "packing": False}
    if ledger.look("data.format") == "prompt-completion":
        words["template"] = "empty"  # prompt and completion as they stand
        ledger.warn("data.completion", "LLaMA-Factory puts no end-of-text token behind it; append it to the rows.")
    if isinstance(validation, float):
        ledger.warn("data.validation", f"LLaMA-Factory draws other rows than the trial's for the {validation:g}.")
        words["val_size"] = validation
    else:
        data_sets[names["validation"]] = {**_source(ledger, "validation"), **how}
        words["eval_dataset"] = names["validation"]
    words["eval_strategy"] = "epoch"
    warn_of_limits(ledger)
    return words, data_sets


def _format(ledger: Ledger) -> dict[str, Any]:
    match ledger.take("data.format"):
        case "prompt-completion":
            columns = {"prompt": ledger.take("data.prompt"), "response": ledger.take("data.completion")}
            return {"formatting": "alpaca", "columns": columns}
        case "messages":
            tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
            return {
                "formatting": "sharegpt",
                "columns": {"messages": ledger.take("data.messages")},
                "tags": {**tags, "system_tag": "system"},
            }
    ledger.warn("data.format", "LLaMA-Factory joins texts without the token that each block of the trial begins with.")
    return {"columns": {"prompt": ledger.take("data.text")}}


def _source(ledger: Ledger, split: str) -> dict[str, Any]:
    dataset, named = ledger.take("data.dataset"), ledger.take(f"data.{split}")
    if dataset is None:
        return {"file_name": named}
    ledger.warn_unless_default("data.revision", "LLaMA-Factory loads the newest of a data set.")
    if not is_plain_split(named):
        ledger.refuse(f"data.{split}", f"{named} is a slice; LLaMA-Factory takes whole splits. Save it as a file.")
    config = ledger.take("data.config")
    return {"hf_hub_url": dataset, "split": named, **({} if config is None else {"subset": config})}
