"""What the files of a folder were when it was written, and whether they still are.

In: a folder. Out: sizes and check sums by name, that JSON can hold; a DamagedError where they are not what they were.

The check sum is CRC-32: it guards against accidents, such as the zeros that a power cut leaves, not against malice, and
takes a third of the time of a cryptographic one.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from finesweep.layout import RESERVED

Manifest = Mapping[str, Sequence[int]]  # path below the folder -> bytes, check sum

_READ_BYTES = 2**20


class DamagedError(Exception):
    """A file is not what it was when it was written."""


def manifest_of(folder: Path) -> Manifest:
    """Take down what a folder holds, after it was filled."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != RESERVED)
    return {file.relative_to(folder).as_posix(): [file.stat().st_size, _check_sum(file)] for file in files}


def check_sizes(folder: Path, manifest: Manifest) -> None:
    """Raise DamagedError unless all files are there and as long as they were. Reads none of them."""
    for name, (n_bytes, _) in manifest.items():
        try:
            found = (folder / name).stat().st_size
        except FileNotFoundError:
            raise DamagedError(f"{name} is missing") from None
        if found != n_bytes:
            raise DamagedError(f"{name} has {found} bytes instead of {n_bytes}")


def check_contents(folder: Path, manifest: Manifest) -> None:
    """Raise DamagedError unless all files are what they were. Reads all of them."""
    check_sizes(folder, manifest)
    for name, (_, check_sum) in manifest.items():
        if _check_sum(folder / name) != check_sum:
            raise DamagedError(f"the contents of {name} are not what was written")


def _check_sum(path: Path) -> int:
    check_sum = 0
    with path.open("rb") as file:
        while data := file.read(_READ_BYTES):
            check_sum = zlib.crc32(data, check_sum)
    return check_sum
