"""Writing a file so that it appears whole or not at all, and never over another one unasked."""

from __future__ import annotations

from pathlib import Path

from finesweep import durable
from finesweep.errors import ExportError


def write_whole(path: Path, content: bytes, *, force: bool) -> None:
    """Write beside `path`, sync, replace. Raises ExportError."""
    check_free(path, force=force)
    try:
        durable.write_whole(path, content, synced=True)
    except OSError as error:
        raise ExportError(
            f"{path}: {error.strerror or error}. Name a file in a folder that exists and can be written to."
        ) from error


def check_free(path: Path, *, force: bool) -> None:
    """Raise ExportError for a folder and, if not forced, for a file that is there."""
    if path.is_dir():
        raise ExportError(f"{path}: is a folder. Name a file in it.")
    if path.exists() and not force:
        raise ExportError(f"{path}: is already there. Name another file, or replace it with --force.")
