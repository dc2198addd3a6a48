"""Room for stored features: what is there, what is no longer wanted, what has to go.

In: the folder of all stores, the bytes that one more takes. Out: fewer stores, or `NoRoomError`. It must not know what
is in them.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from filelock import FileLock, Timeout

USED = "used"  # a file in each store, touched when it is used

_SPARE_BYTES = 256 * 2**20  # of the disk that stay free for others
_GIB = 2**30


class NoRoomError(Exception):
    """A store fits neither what may be used nor what is free."""


def make_room(root: Path, n_bytes: int, *, quota_bytes: int, building: Path) -> None:
    """Remove the stores that were not used for longest until `n_bytes` more fit. Raises NoRoomError if they never will.

    For one caller at a time. `building` is the folder to be filled. Whoever has mapped a store that goes keeps it: its
    space is free once the last of them lets go.
    """
    if n_bytes > quota_bytes:
        raise NoRoomError(
            f"what it computes takes {_gib(n_bytes)} GiB, more than resources.feature_cache_gib ({_gib(quota_bytes)})"
        )
    _clear_remains(root, but=building)
    folders = [path for path in root.iterdir() if path.is_dir()]
    stores = sorted((path for path in folders if not _is_unfinished(path)), key=_last_used)
    sizes = {path: _size(path) for path in folders}
    n_removable = sum(sizes[path] for path in stores)
    n_being_built = sum(sizes.values()) - n_removable
    if n_being_built + n_bytes > quota_bytes:
        raise NoRoomError(f"what it computes takes {_gib(n_bytes)} GiB beside {_gib(n_being_built)} being built")
    if n_bytes > _free(root) + n_removable:
        raise NoRoomError(f"what it computes takes {_gib(n_bytes)} GiB, and the disk has {_gib(_free(root))} left")
    while n_bytes > _free(root) or sum(sizes.values()) + n_bytes > quota_bytes:
        if not stores:
            raise NoRoomError("what was removed for it is still in use, and the disk is full")
        _remove(stores[0])
        del sizes[stores.pop(0)]


def _clear_remains(root: Path, *, but: Path) -> None:
    """Remove what builders left that are dead: nobody holds the lock of what they were building."""
    for path in root.iterdir():
        if not _is_unfinished(path) or path == but:
            continue
        if _key_of(path) == _key_of(but):  # whose lock is the caller's
            shutil.rmtree(path, ignore_errors=True)
            continue
        try:
            with FileLock(root / f"{_key_of(path)}.lock", timeout=0):
                shutil.rmtree(path, ignore_errors=True)
        except Timeout:
            continue


def _is_unfinished(path: Path) -> bool:
    return path.name.startswith(".") and path.is_dir()


def _key_of(unfinished: Path) -> str:
    """Return KEY of `.KEY.<process id>`."""
    return unfinished.name[1:].rpartition(".")[0]


def _remove(store: Path) -> None:
    """Make a store vanish at once, then remove its files."""
    away = store.with_name(f".{store.name}.{os.getpid()}")
    try:
        store.rename(away)
    except OSError:  # gone already, or about to be replaced by its builder
        return
    shutil.rmtree(away, ignore_errors=True)


def _last_used(store: Path) -> float:
    try:
        return (store / USED).stat().st_mtime_ns
    except OSError:
        return 0.0


def _free(root: Path) -> int:
    return shutil.disk_usage(root).free - _SPARE_BYTES


def _size(folder: Path) -> int:
    n_bytes = 0
    for path in folder.glob("*"):
        try:
            n_bytes += path.stat().st_size
        except OSError:  # removed meanwhile
            continue
    return n_bytes


def _gib(n_bytes: int) -> str:
    return f"{n_bytes / _GIB:.3g}"
