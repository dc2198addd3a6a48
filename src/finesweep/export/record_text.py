"""A record as the text of a file, JSON or YAML. Numbers that JSON cannot hold are written as text: "nan", "inf"."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import yaml

from finesweep.errors import ExportError
from finesweep.export.record import ExportRecord
from finesweep.export.record_file import FORMAT
from finesweep.spec.yaml_tree import LARGEST_FILE_BYTES


def export_text(record: ExportRecord) -> str:
    """Write the record as JSON."""
    return json_text({"finesweep_export": FORMAT, **asdict(record)})


def export_yaml(record: ExportRecord) -> str:
    """Write the record as YAML. Raises ExportError for one that is too long to be read again as such."""
    text = yaml_text({"finesweep_export": FORMAT, **asdict(record)})
    if len(text.encode()) > LARGEST_FILE_BYTES:
        raise ExportError(
            f"the record of {record.sweep}:{record.trial} is longer than the {LARGEST_FILE_BYTES // 1000} kB that "
            "finesweep reads of a YAML file. Export it --to json."
        )
    return text


def json_text(content: Mapping[str, Any]) -> str:
    return json.dumps(_plain(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def yaml_text(content: Mapping[str, Any]) -> str:
    """Write values in the order given. Numbers are such to readers of YAML 1.1 and 1.2 alike."""
    text: str = yaml.dump(_plain(content), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
    return text


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True  # `&id001` tells a reader nothing: what stands at two places is written at both


def _plain(value: Any) -> Any:
    match value:
        case float():  # also one of numpy's, which YAML has no word for
            return float(value) if math.isfinite(value) else str(value)
        case Mapping():
            return {key: _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case _:
            return value
