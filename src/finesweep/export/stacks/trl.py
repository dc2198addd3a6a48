"""A trial as the configuration of TRL: `trl sft --config FILE`. It fine-tunes language models, whole or by adapters."""

from __future__ import annotations

from typing import Any

from finesweep.export.batch import Spread
from finesweep.export.exported import Exported
from finesweep.export.headline import comment
from finesweep.export.ledger import Ledger
from finesweep.export.record import ExportRecord
from finesweep.export.record_text import yaml_text
from finesweep.export.stacks.model_words import causal_only, model_name, names_of_modules, whole_alpha
from finesweep.export.stacks.rows_words import file_kind, is_plain_split, warn_of_limits
from finesweep.export.stacks.training_words import training_arguments, warn_of_the_rest

_COLUMNS = {  # of a format: our key -> the column that trl reads
    "prompt-completion": {"prompt": "prompt", "completion": "completion"},
    "messages": {"messages": "messages"},
    "text": {"text": "text"},
}


def to_trl(record: ExportRecord, ledger: Ledger, spread: Spread) -> Exported:
    """Write what TrlParser reads: arguments of the script, the trainer and the model, in one mapping."""
    content: dict[str, Any] = {}
    if causal_only(ledger, record):
        content = {**_model(ledger, record), **_method(ledger), **_rows(ledger, record)}
    arguments = {
        "output_dir": f"{record.sweep}-{record.trial}",
        "bf16": False,  # trl's own default is true where a device can
        "gradient_checkpointing": False,  # trl's own default is true
        **training_arguments(ledger, record, spread),
        "report_to": "none",
    }
    warn_of_the_rest(ledger, record)
    return Exported(comment(record) + yaml_text({**content, **arguments}), warnings=ledger.close())


def _model(ledger: Ledger, record: ExportRecord) -> dict[str, Any]:
    name, revision = model_name(ledger, record)
    words = {"model_name_or_path": name, "dtype": ledger.take("model.dtype")}
    if revision is not None:
        words["model_revision"] = revision
    if (attention := ledger.take("model.attention")) is not None:
        words["attn_implementation"] = attention
    if ledger.take("model.trust_remote_code"):
        words["trust_remote_code"] = True
    if (bits := ledger.take("model.quantize")) is not None:
        words[f"load_in_{bits}"] = True
    ledger.warn_unless_default("model.allow_pickle", "transformers loads pickled weights unasked.")
    return words


def _method(ledger: Ledger) -> dict[str, Any]:
    match ledger.take("settings.method"):
        case "full":
            return {}
        case "lora":
            targets = ledger.take("settings.lora_target_modules")
            return {
                "use_peft": True,
                "lora_r": ledger.take("settings.lora_rank"),
                "lora_alpha": whole_alpha(ledger),
                "lora_dropout": ledger.take("settings.lora_dropout"),
                "lora_target_modules": targets if targets == "all-linear" else names_of_modules(targets),
            }
    ledger.refuse(
        "settings.method",
        "feature-extraction freezes weights, for which trl has no word. Use --to script, axolotl or llamafactory.",
    )
    ledger.take("settings.unfrozen_layers")
    return {}


def _rows(ledger: Ledger, record: ExportRecord) -> dict[str, Any]:
    kind = ledger.take("data.format")
    columns = {key: ledger.take(f"data.{key}") for key in _COLUMNS[kind]}
    for key, wanted in _COLUMNS[kind].items():
        if columns[key] != wanted:
            ledger.refuse(f"data.{key}", f'trl reads the column "{wanted}", and this is "{columns[key]}". Rename it.')
    words: dict[str, Any] = {**_source(ledger, list(columns.values())), "max_length": ledger.take("data.max_length")}
    if kind == "prompt-completion":
        words["completion_only_loss"] = True
        ledger.warn(
            "data.prompt",
            "trl joins prompt and completion and tokenises both at once: let completions begin with a space, or"
            " tokens where they meet are others.",
        )
    elif kind == "messages":
        words["assistant_only_loss"] = True
        ledger.warn("data.format", "trl tells the assistant's words by {% generation %} in the chat template alone.")
    else:
        words |= {"packing": True, "packing_strategy": "wrapped"}
        ledger.warn("data.format", "trl packs texts into blocks whose first tokens are learnt by nobody.")
    warn_of_limits(ledger)
    return words


def _source(ledger: Ledger, columns: list[str]) -> dict[str, Any]:
    """Name the rows. trl takes validation rows of a data set with splits, or a share of the training rows."""
    dataset, train, validation = (ledger.take(f"data.{key}") for key in ("dataset", "train", "validation"))
    ledger.warn_unless_default("data.revision", "trl loads the newest of a data set.")
    name = ledger.take("data.config")
    is_share = isinstance(validation, float)
    if dataset is not None and not is_share and is_plain_split(train) and is_plain_split(validation):
        words = {"dataset_name": dataset, "dataset_train_split": train, "dataset_test_split": validation}
        return {**words, **({} if name is None else {"dataset_config": name}), "eval_strategy": "epoch"}
    if dataset is None:
        rows = {"path": file_kind(train), "data_files": train, "split": "train", "columns": columns}
    else:
        rows = {"path": dataset, **({} if name is None else {"name": name}), "split": train, "columns": columns}
    if is_share:
        ledger.warn("data.validation", f"trl draws other rows than the trial's for the share of {validation:g}.")
        return {"datasets": [rows], "test_split_size": validation, "eval_strategy": "epoch"}
    ledger.warn("data.validation", "trl has no word for validation rows in a file of their own: none are judged.")
    return {"datasets": [rows]}
