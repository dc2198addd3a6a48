"""A trial as one script on plain transformers, with what it requires: no finesweep is needed to run it.

It holds what this trial needs and nothing else, repeats the order of rows, and ends where the trial's value came from,
so that on the same machine it comes to the same number.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from finesweep.export.batch import Spread
from finesweep.export.exported import Exported
from finesweep.export.ledger import Ledger
from finesweep.export.record import ExportRecord
from finesweep.export.script.model import model_parts
from finesweep.export.script.rows import row_parts
from finesweep.export.script.text import Parts, header, requirements
from finesweep.export.script.training import training_parts
from finesweep.export.sections import task_of
from finesweep.export.stacks.training_words import LEARNING, warmup_steps
from finesweep.spec.settings import RENAMED
from finesweep.spec.sweep import METRICS

REQUIREMENTS = "requirements.txt"


def to_script(record: ExportRecord, ledger: Ledger, spread: Spread) -> Exported:
    """Write the script. Refuses models that plain transformers does not load, and trials that do not tell enough."""
    parts = Parts()
    row_parts(record, ledger, parts)
    model_parts(record, ledger, parts)
    training_parts(record, ledger, parts, arguments=_arguments(record, ledger), spread=spread)
    _judge(record, ledger)
    warnings = ledger.close()
    return Exported(
        header(record, spread) + parts.text(),
        beside={REQUIREMENTS: requirements(record, parts.packages)},
        warnings=warnings,
    )


def _arguments(record: ExportRecord, ledger: Ledger) -> Mapping[str, Any]:
    """Return what goes to TrainingArguments beside what the script computes itself."""
    for name in ("batch_size", "device_batch_size", "epochs"):
        ledger.take(f"settings.{name}")
    said = {
        "learning_rate": ledger.take("settings.learning_rate"),
        "weight_decay": ledger.take("settings.weight_decay"),
        "warmup_steps": warmup_steps(ledger, record),
        **{name: ledger.take(f"settings.{name}") for name in LEARNING},
        **{RENAMED.get(name, name): ledger.take(f"settings.{name}") for name in ledger.passed_on()},
    }
    for name in ("early_stopping_patience", "early_stopping_min_delta"):  # when it ended, the step it ends at tells
        ledger.take(f"settings.{name}")
    if (context := said.get("dataloader_multiprocessing_context")) not in (None, "fork"):
        ledger.warn("settings.dataloader_multiprocessing_context", f"workers of the script are forked, not {context}.")
        said["dataloader_multiprocessing_context"] = "fork"
    said.pop("dataloader_drop_last", None)  # it would drop validation rows as well: the script has a sampler for it
    return said


def _judge(record: ExportRecord, ledger: Ledger) -> None:
    """Warn of what the script does not compute."""
    ledger.warn_unless_default("evaluation.metrics", "the script computes the metrics of the task, and not your own.")
    ledger.warn_unless_default("evaluation.generation", "the script does not judge what the model writes.")
    if record.metric not in METRICS[task_of(record)]:
        ledger.warn("objective", f"{record.metric} is not computed: the script cannot compare it with the trial's.")
