"""What a record holds, item by item, until each is said to a target, warned about or refused: none is dropped silently.

An item is named as in the file of a record: settings.learning_rate, data.max_length, evaluation.generation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from finesweep.errors import ExportError
from finesweep.export.record import ExportRecord
from finesweep.export.sections import data_of, task_of
from finesweep.spec.faults import show
from finesweep.spec.parameters import Model
from finesweep.spec.settings import default_of, has_effect, passed_on_settings
from finesweep.spec.sweep import DataSpec, Evaluation, ModelSpec, columns_of

# Of the sweep and not of what a trial learns: whoever trains on does not need them.
NEEDLESS: Mapping[str, str] = {
    "settings.eval_every": "when a trial reports",
    "settings.checkpoint_minutes": "how often a trial is saved",
    "settings.divergence_factor": "when a trial is given up",
    "settings.report_to": "where trials are shown",
    "data.test": "rows that no trial sees",
}
_COLUMNS = ("text", "text_pair", "label", "prompt", "completion", "messages")
_SECTIONS: Mapping[str, type[Model]] = {"model": ModelSpec, "data": DataSpec, "evaluation": Evaluation}


class Ledger:
    """The items of one record, and what has become of them for one target."""

    def __init__(self, record: ExportRecord, *, target: str) -> None:
        self.target = target
        self._record = record
        self._values = {f"settings.{name}": value for name, value in record.settings.items()}
        for section in _SECTIONS:
            held = getattr(record, section) or {}
            self._values |= {f"{section}.{name}": value for name, value in held.items() if name != "fingerprint"}
        self._values["task"] = record.task
        self._unread = _unread_columns(record)
        self.fates: dict[str, str] = {}  # item -> said, warned or refused
        self._warnings: list[str] = []
        self._refusals: list[str] = []

    def take(self, item: str) -> Any:
        """Return an item's value, to be said; of a setting that the record leaves out, its default."""
        self.fates.setdefault(item, "said")
        return self.look(item)

    def look(self, item: str) -> Any:
        """Return an item's value without saying it."""
        return self._values[item] if item in self._values else default_of(item.removeprefix("settings."))

    def warn(self, item: str, why: str) -> None:
        """Say what the target will do otherwise."""
        self.fates[item] = "warned"
        self._warnings.append(f"{item}: {why}")

    def refuse(self, item: str, why: str) -> None:
        """Say why there can be no such file, and the way out."""
        self.fates[item] = "refused"
        self._refusals.append(f"{item}: {why}")

    def warn_of_section(self, section: str, why: str) -> None:
        """Say what is to become of all items of a section at once."""
        self.fates |= dict.fromkeys((item for item in self._values if item.startswith(f"{section}.")), "warned")
        self._warnings.append(f"{section}: {why}")

    def warn_unless_default(self, item: str, why: str) -> None:
        if self._is_set(item):
            self.warn(item, why)

    def refuse_unless_default(self, item: str, why: str) -> None:
        if self._is_set(item):
            self.refuse(item, why)

    def passed_on(self) -> list[str]:
        """Name the settings that went to transformers' TrainingArguments as they stand."""
        known = passed_on_settings()
        return [name for name in self._record.settings if name in known]

    def close(self) -> tuple[str, ...]:
        """Return the warnings, one for each item that nothing was done about. Raises ExportError for refusals."""
        for item in self._open_items():
            self.warn(item, f"{show(self._values[item])} is not said: {self.target} has no word for it.")
        if self._refusals:
            where = f"{self._record.sweep}:{self._record.trial} cannot be exported to {self.target}"
            raise ExportError("\n".join(f"{where}: {refusal}" for refusal in self._refusals))
        return tuple(self._warnings)

    def _open_items(self) -> Iterable[str]:
        method = self._values.get("settings.method")
        for item in self._values:
            section, _, name = item.partition(".")
            if item in self.fates or item in NEEDLESS:
                continue
            if section == "settings" and method is not None and not has_effect(name, method=method):
                continue
            if item in self._unread:
                continue
            if self._is_set(item):
                yield item

    def _is_set(self, item: str) -> bool:
        """Tell whether an item says anything: one that is at its default leaves things as they are."""
        section, _, name = item.partition(".")
        if section not in _SECTIONS:
            return bool(self._values.get(item) != default_of(name))
        field = _SECTIONS[section].model_fields[name]
        value = self._values.get(item)
        return bool(value if field.is_required() else value != field.get_default() and value not in ({}, []))


def _unread_columns(record: ExportRecord) -> frozenset[str]:
    """Name the columns of which the task reads nothing."""
    if record.data is None or record.task is None:
        return frozenset()
    return frozenset(f"data.{key}" for key in set(_COLUMNS) - set(columns_of(data_of(record), task_of(record))))
