"""Read the file of a record again, JSON or YAML by its ending: checked as a whole, all faults told together.

In: a path. Out: the record as `export_record` made it, with whatever was changed in the file since.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from finesweep.errors import SpecError
from finesweep.export.record import ExportRecord
from finesweep.export.record_file import FORMAT, Record, TransformersRecord, record_kind, settings_kind
from finesweep.spec.explain import explain
from finesweep.spec.faults import Fault, Finding, KeyPath, dotted, show
from finesweep.spec.settings import batch_problem, name_problem, value_problem
from finesweep.spec.sweep import TrainingSpec
from finesweep.spec.yaml_tree import Tree, read_file

_ENDINGS = (".json", ".yaml", ".yml")


def read_record(path: Path) -> ExportRecord:
    """Read and check a record. Raises SpecError, which names file, key, value and way out."""
    tree = _read(path)
    faults = tree.faults
    if not faults:
        findings = _format_findings(tree.value) or list(_findings(tree.value))
        faults = tuple(Fault(str(path), tree.lines.get(f.path), dotted(f.path), f.message) for f in findings)
    if faults:
        raise SpecError(faults)
    return _record(record_kind(tree.value).model_validate(tree.value))


def _read(path: Path) -> Tree:
    shown = str(path)
    if path.suffix.lower() not in _ENDINGS:
        return _refused(shown, f"the ending {show(path.suffix)} is unknown. Known: {', '.join(_ENDINGS)}.")
    if path.suffix.lower() != ".json":
        return read_file(path, shown_as=shown)
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"), parse_constant=_no_constant)
    except FileNotFoundError:
        return _refused(shown, "there is no such file. Check the path.")
    except OSError as error:
        return _refused(shown, f"the file cannot be read: {error.strerror or error}.")
    except UnicodeDecodeError:
        return _refused(shown, "the file is not UTF-8 text. Save it as UTF-8.")
    except json.JSONDecodeError as error:
        return _refused(shown, f"this is not JSON: {error.msg}. Export it again.", line=error.lineno)
    except (ValueError, RecursionError) as error:
        return _refused(shown, f"this is not JSON: {error}. Export it again.")
    if not isinstance(value, dict):
        return _refused(shown, "the top level must be an object. Export the record again.")
    return Tree(value)


def _no_constant(name: str) -> None:
    raise ValueError(f'{name} is no number of JSON; a record writes it as text, "{name.lower().replace("inity", "")}"')


def _refused(file: str, message: str, *, line: int | None = None) -> Tree:
    return Tree(faults=(Fault(file, line, "", message),))


def _format_findings(values: Mapping[str, Any]) -> list[Finding]:
    """Look at the format first: whatever else is wrong with a file of another one follows from that."""
    path: KeyPath = ("finesweep_export",)
    if "finesweep_export" not in values:
        return [Finding((), "this is no record: it has no key finesweep_export. Write one with `finesweep export`.")]
    written = values["finesweep_export"]
    if isinstance(written, bool) or not isinstance(written, int):
        return [Finding(path, f"{show(written)} is no format of a record; this finesweep reads {FORMAT}.")]
    if written == FORMAT:
        return []
    made = "an older finesweep" if written < FORMAT else "a newer finesweep: use that one, or"
    return [Finding(path, f"the record has format {written}, of {made}; this one reads {FORMAT}. Export it again.")]


def _findings(values: Mapping[str, Any]) -> Iterator[Finding]:
    kind = record_kind(values)
    try:
        record = kind.model_validate(values)
    except ValidationError as error:
        yield from explain(error, values, kind)
        record = None
    settings = values.get("settings")
    if isinstance(settings, Mapping):
        for name, value in settings.items():
            problem = name_problem(name, settings_kind(values)) or _passed_on_problem(name, value, kind)
            if problem is not None:
                yield Finding(("settings", name), problem)
    if record is None:
        return
    if isinstance(record.settings, TrainingSpec) and (split := batch_problem(record.settings)):
        yield Finding(("settings", "device_batch_size"), split)
    if record.seed != record.settings.seed:
        yield Finding(
            ("seed",), f"seed is {record.seed} but settings.seed is {record.settings.seed}. Write the same in both."
        )


def _passed_on_problem(name: str, value: Any, kind: type[Record]) -> str | None:
    return value_problem(name, value) if kind is TransformersRecord else None


def _record(file: Record) -> ExportRecord:
    values = file.model_dump(mode="json", exclude={"finesweep_export"})
    values["metrics"] = {name: float(value) for name, value in file.metrics.items()}
    values["value"] = float(file.value)
    return ExportRecord(**values)
