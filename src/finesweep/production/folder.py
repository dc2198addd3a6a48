"""The folder that a production training fills: whose it is, what is left of an unfinished training, how it is filled.

In: a path, what the training is of. Out: a place to work in, and in the end a folder with a model, its card and its
metrics. Of a folder that is not such a training's nothing is touched unless asked for.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from finesweep.durable import sync
from finesweep.errors import ExportError
from finesweep.layout import attempts_of, trial_dir
from finesweep.trainer import naming_disk

METRICS = "metrics.json"
CARD = "README.md"
WORK = ".training"  # in the folder, as long as the training is not done
_TOLD = "training.json"  # in there: what it is a training of
_MARK = "finesweep_training"
FORMAT = 1

# What a model may be made of; with --force it goes, so that no part of another one stays beside the new.
_REPLACED = (
    "*.safetensors", "*.safetensors.index.json", "*.bin", "*.bin.index.json", "config.json", "generation_config.json",
    "adapter_config.json", "tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt",
    "chat_template.*", "additional_chat_templates", "unpooled", "best.json", CARD, METRICS,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Work:
    """A training under way."""

    folder: Path
    attempt: int
    goes_on: bool

    @property
    def artifact_dir(self) -> Path:
        """Tell where checkpoints and the best weights lie meanwhile, as in a sweep."""
        return self.folder / WORK


def finished(folder: Path) -> Mapping[str, Any] | None:
    """Read the metrics of the training that filled a folder; None where none has."""
    try:
        content = json.loads((folder / METRICS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) and _MARK in content else None


def metrics_text(content: Mapping[str, Any]) -> str:
    return json.dumps({_MARK: FORMAT, **content}, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def check_folder(folder: Path, *, resume: bool, force: bool) -> None:
    """Raise ExportError where a training may not begin, or go on, in this folder. Changes nothing."""
    if folder.exists() and not folder.is_dir():
        raise ExportError(f"{folder}: is a file. Name a folder for the model: -o FOLDER.")
    if force or not folder.exists() or not any(folder.iterdir()):
        return
    if _is_begun(folder):
        if not resume:
            raise ExportError(
                f"{folder}: holds a training that was interrupted. Go on with it: the same command with --resume. "
                "Begin anew: with --force."
            )
        return
    if finished(folder) is not None:
        if not resume:
            raise ExportError(f"{folder}: holds a model that is done. Name another folder, or replace it with --force.")
        return
    raise ExportError(
        f"{folder}: is not empty, and what is in it is of no training of finesweep's. Name another folder, or let "
        "files of a model in it be replaced with --force."
    )


def claim(folder: Path, number: int, told: Mapping[str, Any], *, resume: bool) -> Work:
    """Begin a training, or go on with the one that was begun. Raises ExportError where that is of something else."""
    work = folder / WORK
    if resume and _is_begun(folder):
        before = json.loads((work / _TOLD).read_text(encoding="utf-8"))
        differing = sorted(name for name in {*before, *told} if before.get(name) != _as_json(told).get(name))
        if differing:
            listed = ", ".join(f"{name} ({before.get(name)} then, {told.get(name)} now)" for name in differing)
            raise ExportError(
                f"{folder}: holds an interrupted training of something else. It differs in {listed}. Give the same "
                "again to go on, or begin anew with --force."
            )
        return Work(folder, max(attempts_of(trial_dir(work, number)), default=0) + 1, goes_on=True)
    with naming_disk(folder.parent if folder.parent.is_dir() else Path.cwd()):
        try:
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir(parents=True)
        except OSError as error:
            raise ExportError(f"{folder}: cannot be made ({error.strerror}). Name a folder that can be.") from error
        (work / _TOLD).write_text(json.dumps(told, indent=1), encoding="utf-8")
    return Work(folder, 1, goes_on=False)


def hold(folder: Path) -> FileLock:
    """Keep other trainings out of a folder. Raises ExportError where one is under way."""
    lock = FileLock(folder / WORK / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ExportError(
            f"{folder}: another process is training in it. Wait for it, or name another folder."
        ) from None
    return lock


def fill(work: Work, write: Callable[[Path], None]) -> None:
    """Have the result written aside, put it in place of whatever model was there, and remove what was for working."""
    beside = work.artifact_dir / "result"
    shutil.rmtree(beside, ignore_errors=True)
    with naming_disk(work.folder):
        beside.mkdir()
        write(beside)
        for entry in [*beside.rglob("*"), beside]:
            sync(entry)
        _remove(path for pattern in _REPLACED for path in work.folder.glob(pattern))
        for entry in sorted(beside.iterdir(), key=lambda entry: (entry.name == METRICS, entry.name)):  # it comes last
            entry.replace(work.folder / entry.name)
        sync(work.folder)
    shutil.rmtree(work.artifact_dir, ignore_errors=True)


def give_up(work: Work) -> None:
    """Remove what was for working, and the folder if nothing else is in it."""
    shutil.rmtree(work.artifact_dir, ignore_errors=True)
    if not any(work.folder.iterdir()):
        work.folder.rmdir()


def _is_begun(folder: Path) -> bool:
    return (folder / WORK / _TOLD).is_file()


def _as_json(told: Mapping[str, Any]) -> Any:
    return json.loads(json.dumps(told))


def _remove(paths: Iterable[Path]) -> None:
    for path in list(paths):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
