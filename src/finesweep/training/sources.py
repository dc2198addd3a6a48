"""Open what a sweep names as its data: files, or a folder or hub data set with splits.

In: the data section. Out: a table for each split, and what its contents are recognised by. It must not know what the
columns mean.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import datasets

from finesweep.errors import DataError
from finesweep.spec.inputs import saved_splits
from finesweep.spec.sweep import DataSpec
from finesweep.training.files import open_file
from finesweep.training.hub import HubDataSet


@dataclass(frozen=True, slots=True)
class Table:
    rows: datasets.Dataset
    where: str  # how a message begins that is about it: data.train: /path
    is_text: bool = False  # all cells are text, as in CSV: numbers and lists are written in it
    is_document: bool = False  # a .txt file: one row, which a share cuts in parts


class Source(Protocol):
    """Where rows come from. Splits are named train, validation, test; what each is called there, the section says."""

    def digest(self, split: str) -> str:
        """Return what equal contents have in common. Cheap: every worker asks for it."""

    def table(self, split: str, *, scratch_dir: Path) -> Table:
        """Read a split. Raises DataError."""


def quiet() -> None:
    """Keep what reads files from writing into the sweep's own output."""
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # what it logs as errors is raised as well


def source_of(data: DataSpec) -> Source:
    if data.dataset is None:
        return _Files(data)
    if Path(data.dataset).is_absolute():
        return _SavedFolder(data, Path(data.dataset))
    return _Hub(data, HubDataSet(data.dataset, config=data.config, revision=data.revision))


class _Files:
    def __init__(self, data: DataSpec) -> None:
        self._data = data

    def digest(self, split: str) -> str:
        path = Path(getattr(self._data, split))
        kind = ".txt" if path.suffix == ".txt" else ""  # the same bytes may also be rows
        return _file_digest(path, f"data.{split}: {path}") + kind

    def table(self, split: str, *, scratch_dir: Path) -> Table:
        path = Path(getattr(self._data, split))
        where = f"data.{split}: {path}"
        rows = open_file(path, where=where, text_column=self._data.text, scratch_dir=scratch_dir)
        return Table(rows, where, is_text=path.suffix == ".csv", is_document=path.suffix == ".txt")


class _SavedFolder:
    """A folder of `save_to_disk`: several splits, or one, which keeps its name or is called train."""

    def __init__(self, data: DataSpec, path: Path) -> None:
        self._data, self._path = data, path
        self._contents: str | None = None

    def digest(self, split: str) -> str:
        if self._contents is None:
            if not self._path.is_dir():
                raise DataError(f"data.dataset: there is no folder {self._path}. Correct the path.")
            files = sorted(
                path for path in self._path.rglob("*") if path.is_file() and not path.name.startswith("cache-")
            )
            parts = [_file_digest(path, f"data.dataset: {path}") for path in files]
            self._contents = hashlib.blake2b("".join(parts).encode(), digest_size=12).hexdigest()
        return f"{self._contents}:{getattr(self._data, split)}"

    def table(self, split: str, *, scratch_dir: Path) -> Table:
        try:
            saved = datasets.load_from_disk(str(self._path))
        except (OSError, ValueError, KeyError) as error:
            reason = str(error).strip().split("\n")[0]
            message = f"data.dataset: {self._path} cannot be read: {reason} Write it anew with `save_to_disk`."
            raise DataError(message) from error
        splits = saved if isinstance(saved, datasets.DatasetDict) else {saved_splits(self._path)[0]: saved}
        return _slice(self._data, split, splits)


class _Hub:
    def __init__(self, data: DataSpec, hub: HubDataSet) -> None:
        self._data, self._hub = data, hub

    def digest(self, split: str) -> str:
        return f"{self._hub.identity()}:{getattr(self._data, split)}"

    def table(self, split: str, *, scratch_dir: Path) -> Table:
        return _slice(self._data, split, self._hub.splits())


def _slice(data: DataSpec, split: str, splits: Mapping[str, datasets.Dataset]) -> Table:
    """Take what train[:1000] or train+test names out of the splits there are."""
    named = getattr(data, split)
    where = f'data.{split}: split "{named}" of {data.dataset}'
    try:
        parts = datasets.ReadInstruction.from_spec(named).to_absolute({name: len(splits[name]) for name in splits})
    except (ValueError, AssertionError) as error:
        raise DataError(
            f"{where} is not to be had: {str(error).split(chr(10))[0]} It has: {', '.join(splits)}."
        ) from error
    chosen = [splits[part.splitname].select(range(part.from_, part.to)) for part in parts if part.from_ < part.to]
    if not chosen:
        sizes = ", ".join(f"{name} ({len(rows):,})" for name, rows in splits.items())
        raise DataError(f"{where} holds no rows. Name a slice with at least one. There are: {sizes}.")
    return Table(datasets.concatenate_datasets(chosen) if len(chosen) > 1 else chosen[0], where)


def _file_digest(path: Path, where: str) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "blake2b").hexdigest()
    except OSError as error:
        raise DataError(
            f"{where} cannot be read ({error.strerror}). Correct the path; it is relative to the file that names it."
        ) from error
