"""Files and folders that a sweep names: made absolute from the file that names them, and looked for.

In: one named value and the folder it is relative to. Out: the resolved value, or why it cannot be used.
"""

from __future__ import annotations

import importlib.util
import json
import os.path
import re
from pathlib import Path
from urllib.parse import urlsplit

from finesweep.spec.faults import show, unknown

DATA_SUFFIXES = (".arrow", ".csv", ".json", ".jsonl", ".parquet", ".txt")
_SAVED_SPLITS, _SAVED_ROWS = "dataset_dict.json", "state.json"  # what `save_to_disk` writes of several splits, of one
_SPLIT = re.compile(r"\s*([\w.-]+)\s*(\[[^\[\]]*:[^\[\]]*\])?(\(\w+\))?\s*\Z")  # train, train[:1000], train[10%:20%]
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?\Z")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_DATABASES = ("sqlite", "postgresql")


class InputProblem(Exception):  # noqa: N818 - not raised to users; its text becomes a Fault
    """Say why a named file, model or database cannot be used."""


def resolve_data(text: str, folder: Path) -> str:
    """Return the absolute path of a data file. Raise InputProblem if there is none."""
    path = _absolute(text, folder)
    if path.is_file():
        if path.suffix not in DATA_SUFFIXES:
            raise InputProblem(f"the ending {show(path.suffix)} is unknown. Known: {', '.join(DATA_SUFFIXES)}.")
        return str(path)
    if saved_splits(path):
        raise InputProblem(f"{show(text)} is a folder of `save_to_disk`. Name it as data.dataset, and its split here.")
    if path.is_dir():
        raise InputProblem(f"{show(text)} is a folder ({path}). Name the file of rows in it.")
    raise InputProblem(f"there is no file {show(text)} ({path}). Paths are relative to the file that names them.")


def resolve_dataset(text: str, folder: Path) -> str:
    """Return the absolute path of a folder that `save_to_disk` wrote; leave a hub id as it is."""
    path = _absolute(text, folder)
    if path.is_file():
        raise InputProblem(f"{show(text)} is a file. Name it as data.train, and leave data.dataset out.")
    if path.is_dir():
        if not saved_splits(path):
            raise InputProblem(
                f"{show(text)} is a folder ({path}), but none that `save_to_disk` of datasets has written: it holds"
                f" neither {_SAVED_SPLITS} nor {_SAVED_ROWS}. Name files of rows as data.train and data.validation."
            )
        return str(path)
    if _is_local(text) or not _HUB_ID.match(text):
        raise InputProblem(
            f"there is no folder {show(text)} ({path}). Paths are relative to the file that names them; a data set of"
            " the hub is written org/name."
        )
    return text


def resolve_split(text: str, dataset: str) -> str:
    """Return the name of a split, sliced perhaps. Raise InputProblem if the data set is known to have none such."""
    known = saved_splits(Path(dataset)) if Path(dataset).is_absolute() else ()
    for part in text.split("+"):
        named = _SPLIT.match(part)
        if named is None:
            raise InputProblem(f"{show(text)} names no split. Write train, train[:1000], train[80%:] or train+test.")
        if known and named[1] not in known:
            raise InputProblem(unknown(f"{dataset} holds no such split:", named[1], known))
    return text


def saved_splits(path: Path) -> tuple[str, ...]:
    """Name the splits in a folder that `save_to_disk` wrote; none if it is no such folder."""
    try:
        if (path / _SAVED_SPLITS).is_file():
            return tuple(json.loads((path / _SAVED_SPLITS).read_text(encoding="utf-8"))["splits"])
        if (path / _SAVED_ROWS).is_file():
            return (json.loads((path / _SAVED_ROWS).read_text(encoding="utf-8"))["_split"] or "train",)
    except (ValueError, KeyError, TypeError):
        raise InputProblem(f"{path} was written by `save_to_disk`, but its list of splits is damaged.") from None
    return ()


def resolve_model(text: str, folder: Path) -> str:
    """Return a local model's absolute path; leave hub ids and package folders as they are, if they can be meant."""
    if text.startswith("package:"):
        package_path(text)
        return text
    path = _absolute(text, folder)
    if path.is_dir() or (path.is_file() and path.suffix.lower() == ".gguf"):
        return str(path)
    is_local = _is_local(text) or text.lower().endswith(".gguf")
    if path.is_file():
        raise InputProblem(f"{show(text)} is a file, but no GGUF file. Name the folder of the model.")
    if is_local:
        raise InputProblem(
            f"there is no model at {show(text)} ({path}). Paths are relative to the file that names them."
        )
    if not _HUB_ID.match(text):
        raise InputProblem(
            f"{show(text)} is neither a folder here nor a hub id. Write org/name, a path that begins with ./, a GGUF"
            " file, or package:NAME/folder."
        )
    return text


def resolve_results(text: str, folder: Path) -> str:
    """Return the results database as a URL; a path, or a relative SQLite URL, becomes absolute."""
    if not _URL.match(text):
        if ":" in text.partition("/")[0]:
            raise InputProblem(f"{show(text)} is no database URL. Write a path, sqlite:///path or postgresql://...")
        return f"sqlite:///{_absolute(text, folder)}"
    scheme = urlsplit(text).scheme.partition("+")[0]
    if scheme not in _DATABASES:
        raise InputProblem(f"database {show(scheme)} is not supported. Known: {', '.join(_DATABASES)}.")
    prefix, slashes, path = text.partition(":///")
    if scheme == "sqlite" and (not slashes or not path or path.startswith(":")):
        raise InputProblem(f"{show(text)} names no file. Write sqlite:///results.db; a sweep needs a lasting database.")
    return f"{prefix}:///{_absolute(path, folder)}" if scheme == "sqlite" else text


def resolve_folder(text: str, folder: Path) -> str:
    """Return an absolute path, which need not exist. Raise InputProblem for a URI: only folders are built yet."""
    if _URL.match(text):
        raise InputProblem(f"{show(text)} is a URI; artifacts are written to folders. Name a local or shared one.")
    return str(_absolute(text, folder))


def resolve_code_dir(text: str, folder: Path) -> str:
    """Return the absolute path of a folder of modules. Raise InputProblem if there is none."""
    path = _absolute(text, folder)
    if not path.is_dir():
        raise InputProblem(f"there is no folder {show(text)} ({path}). Paths are relative to the file that names them.")
    return str(path)


def _is_local(text: str) -> bool:
    return text.startswith(("./", "../", "/", "~")) or text in (".", "..")


def _absolute(text: str, folder: Path) -> Path:
    """Join and tidy a path without touching the disk. Raise InputProblem for what no path can be."""
    if "\0" in text or not text:
        raise InputProblem(f"{show(text)} is no path.")
    try:
        return Path(_tidy(folder / Path(text).expanduser()))
    except (RuntimeError, ValueError) as error:  # "~nobody/x"
        raise InputProblem(f"{show(text)} is no path: {str(error).rstrip('.')}.") from None


def _tidy(path: Path) -> str:
    return os.path.normpath(path.absolute())


def package_path(text: str) -> Path:
    """Find what package:NAME/folder names in an installed package. Raise InputProblem if there is none."""
    name, _, inner = text.removeprefix("package:").partition("/")
    if not name.isidentifier():
        raise InputProblem(f"{show(text)} must read package:NAME/folder, with the name that Python imports.")
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        # no guess at what to install: a package of a similar name may be anybody's
        raise InputProblem(f"the package {show(name)} is not installed here. Mind its spelling, or install it.")
    places = [Path(place) for place in spec.submodule_search_locations]
    found = next((place / inner for place in places if (place / inner).exists()), None)
    if found is None:
        folders = sorted(entry.name for place in places for entry in place.iterdir() if _may_be_model(entry))
        listed = f" Folders in it: {', '.join(folders)}." if folders else ""
        raise InputProblem(f"the package {show(name)} is installed but holds no {show(inner)}.{listed}")
    return found


def _may_be_model(entry: Path) -> bool:
    return entry.is_dir() and not entry.name.startswith(("_", "."))
