"""Folders that appear whole or not at all, and outlive a power cut.

In: a path and a function that fills a folder. Out: the folder. It must not know what is in it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from finesweep.durable import sync
from finesweep.trainer import naming_disk


def write_whole(path: Path, fill: Callable[[Path], None]) -> None:
    """Fill a folder beside `path`, make it durable, and move it into place; what `fill` raises leaves nothing behind.

    For one writer of `path` at a time. Raises DiskFullError where its disk is full.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        with naming_disk(path.parent):
            beside.mkdir(parents=True)
            fill(beside)
            for entry in [*beside.rglob("*"), beside]:
                sync(entry)
            shutil.rmtree(path, ignore_errors=True)
            beside.replace(path)
            sync(path.parent)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
