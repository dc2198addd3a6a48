"""Where a target finds the model of a record: a hub id with the commit that the trial had, or a folder.

In: the ledger of a record. Out: a name and a revision. Takes what it says from the ledger.
"""

from __future__ import annotations

import re
from pathlib import Path

from finesweep.export.ledger import Ledger
from finesweep.export.record import ExportRecord
from finesweep.spec.inputs import InputProblem, package_path

_COMMIT = re.compile(r"@([0-9a-f]{40})(?:-|\Z)")


def model_name(ledger: Ledger, record: ExportRecord) -> tuple[str, str | None]:
    """Return what to load and which revision of it. Refuses what none but finesweep can load."""
    assert record.model is not None, "asked of a trainer of the user's own"
    name, revision = str(ledger.take("model.name")), ledger.take("model.revision")
    if name.startswith("package:"):
        try:
            return str(package_path(name)), None
        except InputProblem as problem:
            ledger.refuse("model.name", f"{problem}")
    if name.lower().endswith(".gguf"):
        ledger.refuse(
            "model.name", f"{name} is a GGUF file, which finesweep unpacks. Convert it to a folder of transformers."
        )
    if Path(name).is_absolute():
        return name, None
    found = _COMMIT.search(str(record.model.get("fingerprint")))
    return name, found[1] if found else revision


def names_of_modules(text: str) -> list[str]:
    """Split what lora_target_modules names."""
    return [part.strip() for part in text.split(",")]


def causal_only(ledger: Ledger, record: ExportRecord) -> bool:
    """Refuse the tasks that a trainer of language models has no head or loss for."""
    if ledger.take("task") == "causal-lm":
        return True
    ledger.refuse("task", f"{record.task} is not trained by {ledger.target}, which knows causal-lm. Use --to script.")
    return False


def whole_alpha(ledger: Ledger) -> int:
    """Say lora_alpha to a target that takes whole numbers."""
    value = ledger.take("settings.lora_alpha")
    if value != int(value):
        ledger.refuse(
            "settings.lora_alpha", f"{value:g} is not a whole number, which {ledger.target} takes. Use --to script."
        )
    return int(value)


def unfrozen_modules(ledger: Ledger, record: ExportRecord) -> list[str]:
    """Return the modules that moved in a trial of feature-extraction: blocks, as model.layers.3, and others."""
    modules = record.facts.get("unfrozen_modules")
    if isinstance(modules, list):
        return [str(module) for module in modules]
    ledger.refuse(
        "settings.method",
        "which weights moved the trial does not tell: an older finesweep trained it. Train it again, by the record's "
        "command, and export that.",
    )
    return []
