"""Where a sweep's numbers come from: versions, code, machine, data and model. Read once, when a sweep begins."""

from __future__ import annotations

import platform
import socket
import subprocess
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from finesweep.secrets import hide_in

PACKAGES = (
    "finesweep", "optuna", "ray", "torch", "transformers", "datasets", "peft", "accelerate", "tokenizers", "numpy",
    "pandas",
)  # fmt: skip


def gather_provenance(
    *, devices: Mapping[str, Any], data: Mapping[str, Any], file: Path | None, overrides: Sequence[str] = ()
) -> dict[str, Any]:
    """Describe the surroundings of a sweep. `file` is the sweep file, whose repository's commit is noted.

    `overrides` are those of --set, without what is known as a secret. The command line itself is not kept.
    """
    return {
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "devices": hide_in(dict(devices)),
        "git": _git(file.parent) if file is not None else None,
        "file": str(file) if file is not None else None,
        "overrides": hide_in(list(overrides)),
        **data,
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git(folder: Path) -> dict[str, Any] | None:
    commit = _ask_git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None
    return {"commit": commit, "has_changes": bool(_ask_git(folder, "status", "--porcelain"))}


def _ask_git(folder: Path, *arguments: str) -> str | None:
    try:
        answer = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
