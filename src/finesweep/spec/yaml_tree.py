"""Text of one YAML file in, plain values out, with the line of every key. Knows nothing of studies and sweeps.

Scalars are read as in YAML 1.2: `5e-6` is a number, `yes`, `on` and `1:30` are text. Values that a message, a
database or JSON could not carry (nan, inf, integers beyond 64 bits, binary) are faults.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from finesweep.spec.faults import Fault, KeyPath, dotted

LARGEST_FILE_BYTES = 250_000  # a second's reading
_DEEPEST = 40  # levels; a sweep needs seven
_MOST_VALUES = 20_000  # after aliases are followed: a "billion laughs" file is small and expands without end
_MOST_FAULTS = 100  # after so many the rest says nothing new
_INTEGER_BOUND = 2**63  # what SQLite and JSON readers can hold


@dataclass(frozen=True, slots=True)
class Tree:
    """A file's values, the line of every key path, and what could not be read."""

    value: dict[str, Any] = field(default_factory=dict)
    lines: Mapping[KeyPath, int] = field(default_factory=dict)
    faults: tuple[Fault, ...] = ()


def read_file(path: Path, *, shown_as: str) -> Tree:
    """Read a YAML file whose top level is a mapping; whatever is wrong with it comes back as faults."""
    try:
        with path.open("rb") as stream:
            content = stream.read(LARGEST_FILE_BYTES + 1)
    except FileNotFoundError:
        return _refused(shown_as, None, "there is no such file. Check the path.")
    except IsADirectoryError:
        return _refused(shown_as, None, "this is a folder; name the YAML file in it.")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return _refused(shown_as, None, f"the file cannot be read: {reason}.")
    if len(content) > LARGEST_FILE_BYTES:
        return _refused(shown_as, None, "the file is larger than 250 kB, far too large for a study or sweep.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        return _refused(shown_as, line, "the file is not UTF-8 text. Save it as UTF-8.")
    return read_text(text, shown_as=shown_as)


def read_text(text: str, *, shown_as: str) -> Tree:
    """Read YAML text whose top level is a mapping."""
    try:
        node = _compose(text)
    except _TooDeepError as error:
        return _refused(shown_as, error.line, f"values are nested more than {_DEEPEST} levels deep.")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else None
        return _refused(shown_as, line, f"this is not YAML: {error.problem or error.context}.")
    except yaml.YAMLError as error:
        position = getattr(error, "position", None)
        line = text[:position].count("\n") + 1 if isinstance(position, int) else None
        return _refused(shown_as, line, f"this is not YAML: {getattr(error, 'reason', 'it cannot be read')}.")
    except (ValueError, IndexError, OverflowError) as error:  # PyYAML on escapes such as "\UFFFFFFFF"
        return _refused(shown_as, None, f"this is not YAML: {error}.")
    if node is None:
        return _refused(shown_as, None, "the file is empty.")
    if not isinstance(node, yaml.MappingNode):
        return _refused(shown_as, node.start_mark.line + 1, "the top level must be a mapping of `key: value` lines.")
    reader = _Reader(shown_as)
    try:
        value = reader.read(node, ())
    except _GivenUpError:
        return Tree(faults=tuple(reader.faults))
    return Tree(value if isinstance(value, dict) else {}, reader.lines, tuple(reader.faults))


def read_value(text: str) -> Any:
    """Read one YAML value, as given on a command line. Raise ValueError that says why it is none."""
    if "\n" in text:
        raise ValueError("this is more than one line. Give one value, as in [1, 2] or {type: tpe}.")
    tree = read_text("value: " + text, shown_as="")
    if tree.faults:
        raise ValueError(tree.faults[0].message)
    return tree.value["value"]


def _refused(file: str, line: int | None, message: str) -> Tree:
    return Tree(faults=(Fault(file, line, "", message),))


# --- YAML as we read it ------------------------------------------------------------------------------------------


class _TooDeepError(Exception):
    def __init__(self, line: int) -> None:
        self.line = line


class _GivenUpError(Exception):
    """What is wrong is noted, and it would take too long to read on."""


class _Composer(yaml.SafeLoader):
    """PyYAML's composer with the scalars of YAML 1.2 and a bound on depth."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own way; filled below, not inherited
    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.depth >= _DEEPEST:
            raise _TooDeepError(self.line + 1)
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1


_PREFIX = "tag:yaml.org,2002:"
for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+(_[0-9]+)*|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?([0-9]+(_[0-9]+)*(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
    ("merge", r"<<", ["<"]),
):
    _Composer.add_implicit_resolver(_PREFIX + _tag, re.compile(rf"^(?:{_pattern})\Z"), _first)


def _compose(text: str) -> yaml.Node | None:
    loader = _Composer(text)
    try:
        node: yaml.Node | None = loader.get_single_node()
        return node
    finally:
        loader.dispose()


class _Reader:
    """Turn nodes into values, keeping lines and faults on the way."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.lines: dict[KeyPath, int] = {}
        self.faults: list[Fault] = []
        self._open: list[yaml.Node] = []  # the nodes around the one being read: an alias to one of them is a cycle
        self._n_values = 0

    def read(self, node: yaml.Node, path: KeyPath) -> Any:
        self._n_values += 1
        if self._n_values > _MOST_VALUES:
            self._fault(node, (), f"the file holds more than {_MOST_VALUES} values once its aliases are followed.")
            raise _GivenUpError
        if any(node is outer for outer in self._open) or len(self._open) > _DEEPEST:
            self._fault(node, path, "this alias contains itself. Write the values out.")
            return None
        self._open.append(node)
        try:
            if isinstance(node, yaml.MappingNode):
                return self._read_mapping(node, path)
            if isinstance(node, yaml.SequenceNode):
                return self._read_sequence(node, path)
            return self._read_scalar(node, path)
        finally:
            self._open.pop()

    def _read_mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        if node.tag != _PREFIX + "map":
            self._fault(node, path, f"the tag {_short(node.tag)} is not known here. Leave it out.")
        values: dict[str, Any] = {}
        first_lines: dict[str, int] = {}
        merged: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _PREFIX + "merge":
                merged |= self._read_merged(value_node, path)
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                self._fault(key_node, path, "a key must be a single word or number.")
                continue
            key = str(self._read_scalar(key_node, path))
            line = key_node.start_mark.line + 1
            if key in first_lines:
                message = f"the key is given twice, first on line {first_lines[key]}. Keep one of the two."
                self._fault(key_node, (*path, key), message)
                continue
            first_lines[key] = self.lines[(*path, key)] = line
            values[key] = self.read(value_node, (*path, key))
        for key, value in merged.items():
            values.setdefault(key, value)
        return values

    def _read_merged(self, node: yaml.Node, path: KeyPath) -> dict[str, Any]:
        """Read what `<<:` brings in; of several mappings the earlier wins, as in YAML 1.1."""
        sources = node.value if isinstance(node, yaml.SequenceNode) else [node]
        merged: dict[str, Any] = {}
        for source in sources:
            own_lines, self.lines = self.lines, {}
            value = self.read(source, path)
            brought, self.lines = self.lines, own_lines
            for key, line in brought.items():
                self.lines.setdefault(key, line)  # a key written here keeps its own line
            if isinstance(value, dict):
                merged = value | merged
            else:
                self._fault(node, path, "`<<` must name a mapping, as in `<<: *anchor`.")
        return merged

    def _read_sequence(self, node: yaml.SequenceNode, path: KeyPath) -> list[Any]:
        if node.tag != _PREFIX + "seq":
            self._fault(node, path, f"the tag {_short(node.tag)} is not known here. Leave it out.")
        values = []
        for index, item in enumerate(node.value):
            self.lines[(*path, index)] = item.start_mark.line + 1
            values.append(self.read(item, (*path, index)))
        return values

    def _read_scalar(self, node: yaml.Node, path: KeyPath) -> str | int | float | bool | None:
        text = str(node.value)
        match node.tag.removeprefix(_PREFIX):
            case "str" | "merge":
                return self._whole_characters(node, path, text)
            case "null":
                return None
            case "bool" if text.lower() in ("true", "false"):
                return text.lower() == "true"
            case "int" | "float" as kind:
                return self._read_number(node, path, text, whole=kind == "int")
        self._fault(node, path, f"the tag {_short(node.tag)} is not known here. Leave it out.")
        return text

    def _whole_characters(self, node: yaml.Node, path: KeyPath, text: str) -> str:
        """Join the halves of characters that JSON's escapes write in two; one half alone is none."""
        try:
            return text.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            self._fault(node, path, "this holds half of a character, a lone surrogate. Write the character itself.")
            return ""

    def _read_number(self, node: yaml.Node, path: KeyPath, text: str, *, whole: bool) -> int | float | None:
        try:
            base = {"0o": 8, "0x": 16}.get(text[:2].lower(), 10)
            number = int(text, base) if whole else float(_yaml_float(text))
        except ValueError:  # an explicit tag on something else, or more digits than Python converts
            self._fault(node, path, f"{text[:30]} is not a number that can be read.")
            return None
        if not math.isfinite(number):
            self._fault(node, path, f"{text[:30]} is not a finite number. Write one, or `null` for none.")
            return None
        if whole and abs(number) >= _INTEGER_BOUND:
            self._fault(node, path, f"{text[:30]} is too large; whole numbers must fit 64 bits.")
            return None
        return number

    def _fault(self, node: yaml.Node, path: KeyPath, message: str) -> None:
        self.faults.append(Fault(self.file, node.start_mark.line + 1, dotted(path), message))
        if len(self.faults) == _MOST_FAULTS:
            self.faults.append(Fault(self.file, None, "", "there is more: mend these first."))
            raise _GivenUpError


def _yaml_float(text: str) -> str:
    return text.replace(".", "", 1) if text.lstrip("+-").lower() in (".inf", ".nan") else text


def _short(tag: str) -> str:
    return ("!!" + tag.removeprefix(_PREFIX) if tag.startswith(_PREFIX) else tag)[:60]
