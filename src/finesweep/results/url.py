"""Where results live: from what a user writes to a complete database URL, and the artifact folder beside it.

Opens nothing. The current folder is passed in.
"""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa

from finesweep.errors import ResultsError
from finesweep.secrets import hide_urls

DEFAULT_FILE = "finesweep.db"
POSTGRESQL_DRIVER = "postgresql+psycopg"


def resolve_url(given: str | Path | None = None, *, folder: Path) -> str:
    """Turn a path, an sqlite:/// or a postgresql:// URL into a complete URL that SQLAlchemy and Optuna understand.

    Relative SQLite paths are taken from `folder`; None is `finesweep.db` there. Raises ResultsError.
    """
    text = DEFAULT_FILE if given is None else str(given)
    if "://" not in text:
        return _sqlite_url(Path(text), folder)
    url = _parsed(text)
    match url.get_backend_name():
        case "sqlite":
            if url.query:
                raise ResultsError(
                    f"results: {redacted(text)!r} has options; an SQLite URL takes none. Leave them out."
                )
            if url.database in (None, "", ":memory:"):
                raise ResultsError(
                    f"results: {text!r} names a database in memory, which nobody could resume or read. "
                    "Name a file: sqlite:///finesweep.db."
                )
            return _sqlite_url(Path(str(url.database)), folder)
        case "postgresql":
            if not url.database:
                raise ResultsError(f"results: {redacted(text)!r} names no database. Add it: postgresql://host/NAME.")
            return url.set(drivername=POSTGRESQL_DRIVER).render_as_string(hide_password=False)
        case other:
            raise ResultsError(
                f"results: database kind {other!r} is unknown. Known: a path, sqlite:///path, postgresql://host/name."
            )


def redacted(url: str | sa.URL) -> str:
    """Replace every password in a URL by ***. Never raises, whatever the text."""
    return hide_urls(url if isinstance(url, str) else url.render_as_string(hide_password=False))


def sqlite_path(url: str) -> Path | None:
    """Tell the file of an SQLite URL; None for a server."""
    parsed = _parsed(url)
    return Path(str(parsed.database)) if parsed.get_backend_name() == "sqlite" else None


def artifacts_dir(url: str, *, folder: Path) -> Path:
    """Tell the default artifact folder: `artifacts` beside an SQLite file, in `folder` for a server."""
    path = sqlite_path(url)
    return (folder.absolute() if path is None else path.parent) / "artifacts"


def _sqlite_url(path: Path, folder: Path) -> str:
    try:
        absolute = (folder.absolute() / path.expanduser()).resolve()
    except (RuntimeError, ValueError, OSError) as error:  # ~nobody/x, a NUL, a name too long
        said = getattr(error, "strerror", None) or str(error).rstrip(".")
        raise ResultsError(f"results: {redacted(str(path))!r} is no path: {said}. Write another.") from None
    return sa.URL.create("sqlite", database=str(absolute)).render_as_string()


def _parsed(text: str) -> sa.URL:
    try:
        return sa.make_url(text)
    except (sa.exc.ArgumentError, ValueError):
        raise ResultsError(
            f"results: {redacted(text)!r} is no database URL. Write a path, sqlite:///path or "
            "postgresql://user:password@host:port/name, with %-escapes in the password."
        ) from None  # whose words may hold a part of the password
