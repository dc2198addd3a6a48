"""Where a sweep's files lie below its artifact folder, and what lies there. The one place that spells these names.

A trial has loose files (its log and what else is small and outlives its weights) and folders, its parts:
`trial-0007/attempt-1/checkpoint-<optimizer step>`, `trial-0007/attempt-1/best-<step>`; a dot stands before the name of
one that is being written.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath

JOB_MODEL = "model.json"  # of a trial of trainer remote: what its job made
RESERVED = ".reserved"  # a file in a folder being written, as long as the folder may become; takes no room by itself


class PartKind(StrEnum):
    WEIGHTS = "weights"
    CHECKPOINT = "checkpoint"
    HALF_WRITTEN = "half-written"
    OTHER = "other"  # of a trainer of the user's own


@dataclass(frozen=True, slots=True)
class Part:
    """A folder of a trial that holds weights, or may."""

    path: Path
    kind: PartKind
    attempt: int | None  # that it was written by; None: belongs to all


def trial_dir(artifact_dir: Path, number: int) -> Path:
    return artifact_dir / f"trial-{number:04d}"


def trial_dirs(artifact_dir: Path) -> dict[int, Path]:
    """Find the trials' folders by number, in their order."""
    return _numbered(artifact_dir, "trial-")


def unknown_dir(artifact_dir: Path) -> Path:
    """Tell where trials are set aside that the database does not know any more."""
    return artifact_dir / "unknown"


def attempt_dir(artifact_dir: Path, number: int, attempt: int) -> Path:
    return trial_dir(artifact_dir, number) / f"attempt-{attempt}"


def checkpoint_name(optimizer_step: int) -> str:
    return f"checkpoint-{optimizer_step}"


def best_name(step: int) -> str:
    return f"best-{step}"


def parts_of(trial: Path) -> list[Part]:
    """List the parts of a trial's folder, in the order of attempts and steps."""
    parts = []
    for folder in _folders(trial):
        attempt = _number_of(folder) if folder.name.startswith("attempt-") else None
        if attempt is None:
            parts.append(Part(folder, PartKind.OTHER, None))
        else:
            parts += [Part(path, _kind_of(path), attempt) for path in _folders(folder)]
    return sorted(parts, key=lambda part: (part.attempt or 0, step_of(part.path), part.path.name))


def attempts_of(trial: Path) -> dict[int, Path]:
    """Find the folders of a trial's attempts, also empty ones."""
    return _numbered(trial, "attempt-")


def step_of(path: Path) -> int:
    """Return 12 of `checkpoint-12`, -1 where no number is."""
    number = _number_of(path)
    return -1 if number is None else number


def size_of(folder: Path) -> int:
    """Add up the bytes of a part's files; of one being written, what is reserved for it if that is more."""
    n_bytes = reserved = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):  # removed meanwhile
                n_file = Path(parent, name).lstat().st_size
                if name == RESERVED:
                    reserved = n_file
                else:
                    n_bytes += n_file
    return max(n_bytes, reserved)


def loose_size(trial: Path) -> int:
    """Add up the bytes of a trial's files outside of its parts."""
    n_bytes = 0
    with contextlib.suppress(OSError), os.scandir(trial) as entries:
        n_bytes = sum(entry.stat(follow_symlinks=False).st_size for entry in entries if entry.is_file())
    return n_bytes


def _numbered(path: Path, prefix: str) -> dict[int, Path]:
    names = {folder.name.removeprefix(prefix): folder for folder in _folders(path) if folder.name.startswith(prefix)}
    return {int(name): names[name] for name in sorted(names, key=lambda name: (len(name), name)) if name.isdecimal()}


def _folders(path: Path) -> Iterator[Path]:
    try:
        with os.scandir(path) as entries:
            found = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:  # not there, or removed meanwhile
        return
    for name in found:
        yield path / name


def _number_of(path: Path) -> int | None:
    number = path.name.rpartition("-")[2]
    return int(number) if number.isdecimal() else None


def _kind_of(path: Path) -> PartKind:
    if path.name.startswith("."):
        return PartKind.HALF_WRITTEN
    if path.name.startswith("checkpoint-"):
        return PartKind.CHECKPOINT
    return PartKind.WEIGHTS if path.name.startswith("best-") else PartKind.OTHER


def own_dir(artifact_dir: Path, number: int) -> Path:
    """Tell where a trainer of the user's own writes what it likes, over all attempts of a trial."""
    return trial_dir(artifact_dir, number) / "folder"


def remote_dir(artifact_dir: Path) -> Path:
    """Tell where a sweep of trainer remote keeps what its trials share."""
    return artifact_dir / "remote"


def tuned_elsewhere(folder: Path) -> str | None:
    """Name the model of a fine-tuning server that a trial of trainer remote has noted; None of any other folder."""
    for path in (folder / JOB_MODEL, folder / "folder" / JOB_MODEL):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            name = json.loads(path.read_text(encoding="utf-8")).get("fine_tuned_model")
            return name if isinstance(name, str) else None
    return None


def log_path(artifact_dir: Path, number: int) -> Path:
    """Tell where a trial's log is: what its attempts printed and logged."""
    return trial_dir(artifact_dir, number) / "log.txt"


def samples_path(artifact_dir: Path, number: int) -> Path:
    """Tell where outputs of a trial's model are kept to look at; like its log they outlive its weights."""
    return trial_dir(artifact_dir, number) / "samples.jsonl"


def driver_log_path(artifact_dir: Path) -> Path:
    """Tell where a detached driver writes what it would have said on the terminal."""
    return artifact_dir / "driver.log"


def trackers_path(artifact_dir: Path, number: int) -> Path:
    """Tell where a trial notes its runs in experiment trackers."""
    return trial_dir(artifact_dir, number) / "trackers.json"


def fitting_path(artifact_dir: Path) -> Path:
    """Tell where is kept how many rows at once have fitted a device."""
    return artifact_dir / "fitting.json"


def is_below(path: object) -> bool:
    """Tell whether a path, as a trainer names an artifact, stays below the sweep's folder wherever that is."""
    if not isinstance(path, str) or not path.isprintable() or "\\" in path:
        return False
    parts = PurePosixPath(path).parts
    return bool(parts) and not path.startswith("/") and ".." not in parts


_OURS = re.compile(  # in a sweep's folder: what functions above name, and what trackers write there
    r"trial-\d{4,}|unknown|remote|driver\.log|fitting\.(json|lock)|\.fitting\.json\.\d+|\.room\.lock"
    r"|tensorboard|wandb|mlflow\.lock"
)


def is_ours(name: str) -> bool:
    """Tell whether an entry of a sweep's folder is one that finesweep makes there."""
    return _OURS.fullmatch(name) is not None
