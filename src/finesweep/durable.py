"""Writing such that a file is whole or not there, and outlives a power cut."""

from __future__ import annotations

import os
import threading
from pathlib import Path


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_whole(path: Path, content: bytes, *, synced: bool) -> None:
    """Write beside a file and take its place, whoever else writes it at the same time. Raises OSError.

    Args:
        synced: wait until it is on the disk; without, it may be lost, but not torn, if the machine loses its power.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}{threading.get_ident()}")
    try:
        beside.write_bytes(content)
        if synced:
            sync(beside)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
