"""Write finesweep/spec/training_arguments.json: names, types, choices and defaults of transformers' TrainingArguments.

Run it after raising the version of transformers: `python tools/training_arguments.py`. A unit test compares.
"""

from __future__ import annotations

import dataclasses
import enum
import json
import sys
import types
import typing
from pathlib import Path
from typing import Any

TABLE = Path(__file__).parent.parent / "src" / "finesweep" / "spec" / "training_arguments.json"
_PLAIN = {int: "int", float: "float", bool: "bool", str: "str", dict: "dict", list: "list", type(None): "none"}


def table() -> dict[str, dict[str, Any]]:
    """Describe every field of the installed TrainingArguments."""
    from transformers import TrainingArguments

    hints = typing.get_type_hints(TrainingArguments)
    return {field.name: _describe(field, hints[field.name]) for field in dataclasses.fields(TrainingArguments)}


def as_text(fields: dict[str, dict[str, Any]]) -> str:
    lines = (f"  {json.dumps(name)}: {json.dumps(entry)}" for name, entry in fields.items())
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _describe(field: dataclasses.Field[Any], hint: Any) -> dict[str, Any]:
    names: set[str] = set()
    choices: list[str] = list(field.metadata.get("choices") or [])
    for member in _members(hint):
        origin = typing.get_origin(member) or member
        if origin is typing.Literal:
            names |= {_PLAIN[type(value)] for value in typing.get_args(member)}
        elif isinstance(origin, type) and issubclass(origin, enum.Enum):
            names.add("str")
            choices += [value.value for value in origin]
        else:
            names.add(_PLAIN.get(origin, "object"))
    default = field.default
    if isinstance(default, enum.Enum):
        default = default.value
    if default is None:
        names.add("none")  # several fields are annotated str and default to None
    entry: dict[str, Any] = {"types": sorted(names)}
    if choices:
        entry["choices"] = choices
    if isinstance(default, str | int | float | bool):
        entry["default"] = default
    return entry


def _members(hint: Any) -> list[Any]:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return [member for part in typing.get_args(hint) for member in _members(part)]
    return [hint]


if __name__ == "__main__":
    TABLE.write_text(as_text(table()), encoding="utf-8")
    sys.stderr.write(f"wrote {TABLE}\n")
