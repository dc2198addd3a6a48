"""A copy of an SQLite database beside it, before its tables are changed. In: its path. Out: the copy's path.

The copy appears whole under its name or not at all, and takes no other file's place.
"""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from urllib.parse import quote

from finesweep.durable import sync


def copy_beside(path: Path, *, version: int, now_s: float) -> Path:
    """Copy a database, with all that is committed in its WAL, and name the copy for its schema version and the time.

    The caller holds the write lock: what is copied is what it will change. Raises OSError, sqlite3.Error.
    """
    stamp = datetime.fromtimestamp(now_s, UTC).strftime("%Y-%m-%dT%H%M%S")
    names = (f"{path.name}.v{version}-{stamp}{'' if n == 1 else f'-{n}'}.backup" for n in count(1))
    target = next(path.with_name(name) for name in names if not path.with_name(name).exists())
    partial = target.with_name(f"{target.name}.partial")
    try:
        _copy(path, partial)
        shutil.copymode(path, partial)
        partial.replace(target)
        sync(target.parent)
    finally:
        partial.unlink(missing_ok=True)
    return target


def _copy(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)  # what somebody left who was killed here in the same second
    with (
        closing(sqlite3.connect(f"file:{quote(str(source))}?mode=ro", uri=True)) as one,
        closing(sqlite3.connect(target)) as other,
    ):
        one.backup(other)
    sync(target)
