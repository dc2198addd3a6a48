"""The arguments of a trial for transformers' own Trainer: a JSON file that HfArgumentParser reads.

They say how it is trained. Which model, which of its weights and which rows, the code around a Trainer says.
"""

from __future__ import annotations

from finesweep.export.batch import Spread
from finesweep.export.exported import Exported
from finesweep.export.ledger import Ledger
from finesweep.export.record import ExportRecord
from finesweep.export.record_text import json_text
from finesweep.export.stacks.training_words import training_arguments, warn_of_end, warn_of_scores
from finesweep.spec.settings import RENAMED

_CODE = "TrainingArguments do not hold it; the code around the Trainer has to."


def to_trainer(record: ExportRecord, ledger: Ledger, spread: Spread) -> Exported:
    """Write TrainingArguments by their present names."""
    report_to = record.settings.get("report_to") or "none"
    arguments = {
        "output_dir": f"{record.sweep}-{record.trial}",
        **training_arguments(ledger, record, spread, renamed=RENAMED),
        "report_to": report_to,
    }
    if isinstance(rows := record.facts.get("eval_batch_size"), int):
        arguments["per_device_eval_batch_size"] = rows
    _warn_of_code(ledger, record, spread)
    warn_of_end(ledger, record)
    warn_of_scores(ledger)
    return Exported(json_text(arguments), warnings=ledger.close())


def _warn_of_code(ledger: Ledger, record: ExportRecord, spread: Spread) -> None:
    """Name what the user's own code has to do for the arguments to mean what they meant in the trial."""
    ledger.warn("task", f"{record.task} has its model class and loss. {_CODE}")
    for section in ("model", "data"):
        ledger.warn_of_section(section, f"what it says, from {_main(record, section)} on, is in the record. {_CODE}")
    if record.settings["method"] != "full":
        ledger.warn("settings.method", f"{record.settings['method']} moves some of the weights only. {_CODE}")
        for name in ("unfrozen_layers", "lora_rank", "lora_alpha", "lora_dropout", "lora_target_modules"):
            ledger.warn_unless_default(f"settings.{name}", f"of {record.settings['method']}. {_CODE}")
    ledger.warn_unless_default("settings.pooling", f"{record.settings['pooling']} is the head's input. {_CODE}")
    if spread.accumulation > 1 and record.task != "causal-lm":
        ledger.warn(
            "settings.batch_size",
            f"it takes {spread.accumulation} steps of accumulation, and some classifiers of transformers (BERT's) then "
            "have gradients as many times too large. Use --to script, which counts the whole step.",
        )


def _main(record: ExportRecord, section: str) -> str:
    held = getattr(record, section)
    return str(held["name"] if section == "model" else held["train"])
