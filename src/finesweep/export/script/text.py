"""The frame of a training script: its head, imports, constants and parts in order, and what it requires.

In: what the parts are. Out: text.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from typing import Any

from finesweep.export.batch import Spread
from finesweep.export.headline import headline, one_line
from finesweep.export.record import ExportRecord

_WIDTH = 112  # characters of a line
_VERSION = re.compile(r"\d+[\w.]*")
_ALWAYS = ("torch", "transformers", "accelerate", "datasets", "numpy")


@dataclass
class Parts:
    """What a script is made of: the order of adding is the order of the text."""

    imports: set[str] = field(default_factory=set)
    constants: list[str] = field(default_factory=list)
    blocks: list[str] = field(default_factory=list)
    packages: set[str] = field(default_factory=lambda: set(_ALWAYS))

    def constant(self, name: str, value: Any, *, why: str = "") -> None:
        """Add a constant at the head. `why` becomes its comment."""
        text = f"{name} = {literal(value, width=_WIDTH - len(name))}"
        self.constants.append(f"{text}  # {why}" if why and "\n" not in text else text)

    def block(self, text: str, *imports: str) -> None:
        """Add a piece of code, with what it imports."""
        if text not in self.blocks:
            self.blocks.append(text)
        self.imports |= set(imports)

    def text(self) -> str:
        body = ""
        for before, block in zip(["", *self.blocks], self.blocks, strict=False):
            is_flat = _is_run(before) and _is_run(block)
            body += ("\n" if is_flat else "\n\n") + block.strip("\n") + "\n"
        return "\n".join([*_imports(self.imports), "", *self.constants]) + f"\n{body}"


def literal(value: Any, *, width: int = _WIDTH) -> str:
    """Write a plain value as Python, with double quotes; a long list or mapping has a line for each of its parts."""
    match value:
        case str():
            return json.dumps(value, ensure_ascii=False) if value.isprintable() else repr(value)
        case dict():
            parts = [f"{literal(key)}: {literal(item)}" for key, item in value.items()]
            opening, closing = "{", "}"
        case list() | tuple():
            parts = [literal(item) for item in value]
            opening, closing = "[", "]"
        case float() if not math.isfinite(value):
            return f'float("{value}")'
        case _:
            return repr(value)
    line = f"{opening}{', '.join(parts)}{closing}"
    if len(line) <= width:
        return line
    return "\n".join([opening, *(f"    {part}," for part in parts), closing])


def _imports(lines: set[str]) -> list[str]:
    """Put imports in order: the standard library's first; what comes from one module in one line."""
    names: dict[str, list[str]] = {}
    for line in lines:
        if line.startswith("from "):
            module, _, name = line.removeprefix("from ").partition(" import ")
            names.setdefault(module, []).append(name)
    written = [line for line in lines if line.startswith("import ")]
    for module, of_module in names.items():
        listed = ", ".join(sorted(of_module))
        line = f"from {module} import {listed}"
        if len(line) > _WIDTH:
            line = "\n".join([f"from {module} import (", *(f"    {name}," for name in sorted(of_module)), ")"])
        written.append(line)
    written.sort(key=lambda line: (line.startswith("from"), line))
    own = [line for line in written if line.split()[1].split(".")[0] in _STANDARD]
    return [*own, "", *(line for line in written if line not in own)]


_STANDARD = ("csv", "itertools", "json", "math", "os", "random", "re", "sys", "collections", "pathlib")


def _is_run(block: str) -> bool:
    """Tell code that is run from definitions, around which two lines are left."""
    return bool(block) and not block.lstrip("\n").startswith(("def ", "class "))


def header(record: ExportRecord, spread: Spread) -> str:
    """Say what the script is, how it is run, and what it should come to."""
    versions = record.provenance.get("versions", {})
    on = f"On {record.facts.get('device', 'its device')}, with transformers {versions.get('transformers', '?')}"
    many = f"torchrun --nproc-per-node {spread.n_devices if spread.n_devices > 1 else 2} train.py"
    told = "\n".join(headline(record))
    return f'''"""Train as trial {record.trial} of the sweep {record.sweep} was trained. Written by `finesweep export`.

    pip install -r requirements.txt
    python train.py                      # or: accelerate launch train.py
    {many}

An optimizer step sees {spread.batch_size} examples on however many devices, if these divide {spread.batch_size}.

{told}
{one_line(f"{on} and torch {versions.get('torch', '?')}.")}
"""

'''


def requirements(record: ExportRecord, packages: set[str]) -> str:
    """Pin what the trial was trained with; what its provenance does not tell is left open."""
    versions = record.provenance.get("versions", {})
    lines = []
    for package in sorted(packages):
        found = _VERSION.match(str(versions.get(package)))  # +cpu is a build, and none of the index
        lines.append(f"{package}=={found[0]}" if found else package)
    return "\n".join(lines) + "\n"
