"""Where a sweep's files lie below its artifact folder. The one place that spells these names."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath


def trial_dir(artifact_dir: Path, number: int) -> Path:
    return artifact_dir / f"trial-{number:04d}"


def own_dir(artifact_dir: Path, number: int) -> Path:
    """Tell where a trainer of the user's own writes what it likes, over all attempts of a trial."""
    return trial_dir(artifact_dir, number) / "folder"


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
    r"trial-\d{4,}|unknown|driver\.log|fitting\.(json|lock)|\.fitting\.json\.\d+|\.room\.lock"
    r"|tensorboard|wandb|mlflow\.lock"
)


def is_ours(name: str) -> bool:
    """Tell whether an entry of a sweep's folder is one that finesweep makes there."""
    return _OURS.fullmatch(name) is not None
