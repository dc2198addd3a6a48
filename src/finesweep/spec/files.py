"""A sweep file and the study it names in; a checked and resolved spec out, or every fault of both files at once."""

from __future__ import annotations

import copy
import os.path
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from finesweep.errors import SpecError
from finesweep.spec.explain import explain
from finesweep.spec.faults import Fault, Finding, KeyPath, Note, dotted, in_order, show
from finesweep.spec.functions import find_function, named_functions
from finesweep.spec.inputs import (
    InputProblem,
    resolve_code_dir,
    resolve_data,
    resolve_dataset,
    resolve_folder,
    resolve_model,
    resolve_results,
    resolve_split,
)
from finesweep.spec.notes import find_notes
from finesweep.spec.overrides import FILE as SET
from finesweep.spec.overrides import Override, apply_override, parse_overrides
from finesweep.spec.rules import find_faults, read_draft
from finesweep.spec.secret_rules import secret_faults
from finesweep.spec.sweep import SweepSpec, read_sweep, sweep_kind
from finesweep.spec.yaml_tree import Tree, read_file

_MOST_FAULTS = 200
_SPLITS: tuple[KeyPath, ...] = (("data", "train"), ("data", "validation"), ("data", "test"))
_RESOLVED: tuple[tuple[KeyPath, Callable[[str, Path], str]], ...] = (
    (("data", "dataset"), resolve_dataset),
    *((path, resolve_data) for path in _SPLITS),
    (("model",), resolve_model),
    (("model", "name"), resolve_model),
    (("results",), resolve_results),
    (("artifacts", "folder"), resolve_folder),
)


@dataclass(frozen=True, slots=True)
class Checked:
    """What came of reading a sweep: a spec if there are no faults, and notes on what may not be meant."""

    faults: tuple[Fault, ...]
    notes: tuple[Note, ...]
    spec: SweepSpec | None


def load_sweep(path: Path, *, overrides: Sequence[str] = (), name: str | None = None) -> SweepSpec:
    """Read, check and resolve a sweep. Raise SpecError with all faults of both files."""
    checked = check_sweep(path, overrides=overrides, name=name)
    if checked.spec is None:
        raise SpecError(checked.faults)
    return checked.spec


def check_sweep(path: Path, *, overrides: Sequence[str] = (), name: str | None = None) -> Checked:
    """Find everything wrong or doubtful in a sweep file and its study. `name` replaces the sweep's own."""
    source, faults = _read_source(Path(path), overrides, name)
    if not source.values:
        return Checked(in_order(faults), (), None)
    faults += [
        source.fault(finding)
        for finding in [*_resolve_inputs(source), *_resolve_code(source), *secret_faults(source.values)]
    ]
    spec, findings = _validate(source)
    told = {(fault.file, fault.key) for fault in faults}  # a value that could not be read is not judged as well
    faults += [fault for fault in map(source.fault, findings) if (fault.file, fault.key) not in told]
    if faults or spec is None:
        return Checked(_as_told(faults), (), None)
    return Checked((), in_order(source.note(finding) for finding in find_notes(spec)), spec)


def _as_told(faults: Sequence[Fault]) -> tuple[Fault, ...]:
    """Put faults in order; of thousands the first say what the others would."""
    ordered = in_order(faults)
    if len(ordered) <= _MOST_FAULTS:
        return ordered
    more = f"{len(ordered) - _MOST_FAULTS} more faults are not shown: mend these first."
    return (*ordered[:_MOST_FAULTS], Fault(ordered[_MOST_FAULTS].file, None, "", more))


def _validate(source: _Source) -> tuple[SweepSpec | None, list[Finding]]:
    """Check keys, types and rules; what pydantic refused is not told again by a rule about the same key."""
    spec, findings = None, []
    try:
        spec = read_sweep(source.values)
    except ValidationError as error:
        findings = explain(error, source.values, sweep_kind(source.values))
    if source.study_is_unread:
        findings = [finding for finding in findings if finding.path[:1] != ("study",)]
    told = {finding.path for finding in findings}
    broken = [finding for finding in find_faults(read_draft(source.values)) if finding.path not in told]
    return spec, [*findings, *broken]


# --- the values of both files and where each came from -----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Place:
    file: str
    line: int | None
    folder: Path  # what paths are relative to


@dataclass(slots=True)
class _Source:
    """The values of sweep, study and overrides laid together, with the place of every key path."""

    top: _Place
    values: dict[str, Any] = field(default_factory=dict)
    places: dict[KeyPath, _Place] = field(default_factory=dict)
    roots: dict[KeyPath, _Place] = field(default_factory=dict)  # a file's own place, for keys that it lacks
    study_is_unread: bool = False  # its file is not there or not YAML, which is told once

    def add(self, tree: Tree, file: _Place, *, at: KeyPath = ()) -> None:
        self.roots[at] = file
        for path, line in tree.lines.items():
            self.places[(*at, *path)] = _Place(file.file, line, file.folder)

    def place(self, path: KeyPath) -> _Place:
        """Find where a key path stands, or else the nearest key around it."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.roots:
                return self.roots[path[:length]]
            if path[:length] in self.places:
                return self.places[path[:length]]
        return self.top

    def set(self, path: KeyPath, place: _Place) -> None:
        """Mark a key path as given elsewhere, and forget what stood below it."""
        for places in (self.places, self.roots):
            for known in [known for known in places if known[: len(path)] == path]:
                del places[known]
        self.places[path] = place

    def fault(self, finding: Finding) -> Fault:
        place = self.place(finding.path)
        return Fault(place.file, place.line, dotted(finding.path), finding.message)

    def note(self, finding: Finding) -> Note:
        place = self.place(finding.path)
        return Note(place.file, place.line, dotted(finding.path), finding.message)


def _read_source(path: Path, override_texts: Sequence[str], name: str | None) -> tuple[_Source, list[Fault]]:
    top = _Place(str(path), None, path.parent.absolute())
    given = _Place(SET, None, Path().absolute())
    source = _Source(top)
    tree = read_file(path, shown_as=str(path))
    overrides, override_faults = parse_overrides(override_texts)
    faults = [*tree.faults, *override_faults]
    if not tree.value:
        return source, faults or [
            Fault(str(path), None, "", "the file says nothing: a sweep needs a name, a study, ...")
        ]
    if "objective" in tree.value and "parameters" in tree.value and "study" not in tree.value:
        message = "this is a study. Give a sweep file, which names it: `study: path/to/this.yaml`."
        return source, [Fault(str(path), None, "", message)]
    source.values = copy.deepcopy(tree.value)
    source.add(tree, top)
    faults += _apply(source, [override for override in overrides if override.key == "study"], given)
    faults += _read_study(source)
    later = [override for override in overrides if override.key != "study"]
    if source.study_is_unread:
        later = [override for override in later if not override.key.startswith("study.")]
    faults += _apply(source, later, given)
    if name is not None:
        source.values["name"] = name
        source.set(("name",), _Place("--name", None, given.folder))
    return source, faults


def _apply(source: _Source, overrides: Iterable[Override], given: _Place) -> list[Fault]:
    faults = []
    for override in overrides:
        path = apply_override(source.values, override)
        if isinstance(path, Fault):
            faults.append(path)
        else:
            source.set(path, given)
    return faults


def _read_study(source: _Source) -> list[Fault]:
    """Replace the path of a study by what its file says."""
    named = source.values.get("study")
    if isinstance(named, dict) or "study" not in source.values:
        return []
    place = source.place(("study",))
    source.study_is_unread = True
    if not isinstance(named, str) or not named.strip() or "\0" in named:
        message = (
            f"{show(named)} is no study. Write the path of a study file, relative to this one, or the study itself."
        )
        return [Fault(place.file, place.line, "study", message)]
    path = Path(os.path.normpath(place.folder / Path(named)))
    shown = _shown(path, beside=source.top)
    if not path.exists():
        message = f"there is no study file {show(named)} ({path}). Paths are relative to the file that names them."
        return [Fault(place.file, place.line, "study", message)]
    tree = read_file(path, shown_as=shown)
    if tree.value:
        source.study_is_unread = False
        source.values["study"] = copy.deepcopy(tree.value)
        source.add(tree, _Place(shown, None, path.parent), at=("study",))
    return [replace(fault, key=f"study.{fault.key}" if fault.key else "") for fault in tree.faults]


def _shown(path: Path, *, beside: _Place) -> str:
    """Write a study's path as the sweep's was given: absolute, or from the current folder."""
    if Path(beside.file).is_absolute():
        return str(path)
    return os.path.relpath(path)


def _resolve_inputs(source: _Source) -> list[Finding]:
    """Make paths absolute in place, each from the folder of the file that names it.

    Where the data is a `dataset`, its splits are names instead of files.
    """
    findings = []
    for path, resolve in _RESOLVED:
        section: Any = source.values
        for part in path[:-1]:
            section = section.get(part) if isinstance(section, dict) else None
        value = section.get(path[-1]) if isinstance(section, dict) else None
        if not isinstance(value, str) or not value:
            continue
        try:
            if path in _SPLITS and isinstance(dataset := section.get("dataset"), str):
                section[path[-1]] = resolve_split(value, dataset)
            else:
                section[path[-1]] = resolve(value, source.place(path).folder)
        except InputProblem as problem:
            findings.append(Finding(path, str(problem)))
        except OSError as error:  # a name too long, a folder that may not be read
            findings.append(Finding(path, f"{show(value)} cannot be looked for: {error.strerror}."))
    return findings


def _resolve_code(source: _Source) -> list[Finding]:
    """Find the functions that the sweep names, and keep with it where they are: it may go on from another folder."""
    named, given = named_functions(source.values), source.values.get("code_dir")
    if not named and given is None:
        return []
    at: KeyPath = ("code_dir",)
    try:
        folder = resolve_code_dir(given if isinstance(given, str) else ".", source.place(at).folder)
    except InputProblem as problem:
        return [Finding(at, str(problem))]
    if given is None or isinstance(given, str):
        source.values["code_dir"] = folder
    findings = []
    for path, text in named.items():
        try:
            find_function(text, Path(folder))
        except InputProblem as problem:
            findings.append(Finding(path, str(problem)))
    return findings
