"""Opening the database to write or to read, with its errors in our words.

Reading an SQLite file neither writes nor creates anything, not even the files that WAL keeps beside it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.pool import NullPool

from finesweep.errors import ResultsError
from finesweep.results.url import redacted, sqlite_path
from finesweep.secrets import hide

BUSY_TIMEOUT_S = 120.0  # a backup or a copy may hold the lock for long; a driver outlives it
READ_TRIES = 5

Answer = TypeVar("Answer")


def writing_engine(url: str) -> sa.Engine:
    """Make an engine of one connection. On SQLite its transactions take the write lock when they begin."""
    if sqlite_path(url) is None:
        return sa.create_engine(url, pool_size=1, max_overflow=0, pool_pre_ping=True, hide_parameters=True)
    engine = sa.create_engine(
        url,
        pool_size=1,
        max_overflow=0,
        hide_parameters=True,
        connect_args={"timeout": BUSY_TIMEOUT_S, "check_same_thread": False},
    )

    def prepare(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # transactions are begun below, not by the driver
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}").close()

    event.listen(engine, "connect", prepare)
    event.listen(engine, "begin", _begin_immediate)
    return engine


def read(url: str, query: Callable[[sa.Connection], Answer]) -> Answer:
    """Answer a query from one consistent state of the database. The query may be asked again."""
    path = sqlite_path(url)
    with translated(url):
        return _read_server(url, query) if path is None else _read_file(url, path, query)


@contextmanager
def translated(url: str) -> Iterator[None]:
    """Turn database errors into ResultsError with the redacted URL and the way out."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise ResultsError(
            f"{redacted(url)}: the driver {error.name!r} is not installed. Run: pip install 'finesweep[postgresql]'."
        ) from error
    except (sa.exc.SQLAlchemyError, sqlite3.Error, OSError) as error:
        origin = getattr(error, "orig", None) or error
        said = " ".join(hide(str(origin)).split()) or type(origin).__name__
        raise ResultsError(f"{redacted(url)}: {said.rstrip('.')}. {_way_out(said, url)}") from error


def _read_server(url: str, query: Callable[[sa.Connection], Answer]) -> Answer:
    engine = sa.create_engine(url, poolclass=NullPool, hide_parameters=True)
    with engine.connect() as connection:
        options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        return query(connection.execution_options(**options))


def _read_file(url: str, path: Path, query: Callable[[sa.Connection], Answer]) -> Answer:
    """Read through the WAL if there is one; if not, as immutable, since SQLite would then create the WAL's files.

    Immutable means without locks: should a writer come in between, the answer is thrown away and the query repeated.
    """
    for _ in range(READ_TRIES):
        before = _state(path)
        if before.has_wal:
            return _query_file(url, path, "mode=ro", query)
        try:
            answer = _query_file(url, path, "mode=ro&immutable=1", query)
        except sa.exc.DatabaseError:
            if _state(path) == before:
                raise
            continue
        if _state(path) == before:
            return answer
    return _query_file(url, path, "mode=ro", query)


@dataclass(frozen=True, slots=True)
class _FileState:
    """What tells whether a file was written between two looks."""

    has_wal: bool
    modified_ns: int
    size: int


def _state(path: Path) -> _FileState:
    if not path.is_file():
        raise ResultsError(
            f"{path}: no results database is there. Run a sweep first, or name another one with --results."
        )
    status = path.stat()
    return _FileState(Path(f"{path}-wal").exists(), status.st_mtime_ns, status.st_size)


def _query_file(url: str, path: Path, mode: str, query: Callable[[sa.Connection], Answer]) -> Answer:
    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(f"file:{quote(str(path))}?{mode}", uri=True, timeout=BUSY_TIMEOUT_S)
        connection.isolation_level = None
        return connection

    engine = sa.create_engine(url, creator=connect, poolclass=NullPool, hide_parameters=True)
    event.listen(engine, "begin", _begin)
    with engine.connect() as connection:
        return query(connection)


def _begin(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN")


def _begin_immediate(connection: sa.Connection) -> None:
    own: sqlite3.Connection = connection.connection.dbapi_connection  # type: ignore[assignment]  # it is SQLite's
    own.execute("BEGIN IMMEDIATE").close()  # SQLAlchemy's way to say it costs ten times as much


def _way_out(said: str, url: str) -> str:
    path = sqlite_path(url)
    ways = {
        "locked": f"Another process has been writing to it for {BUSY_TIMEOUT_S:.0f} s; find it, or try again.",
        "disk is full": "Free some space on that disk, then resume the sweep; nothing stored is lost.",
        "not a database": "That file is something else; name another one with --results.",
        "malformed": 'The file is damaged; restore a copy, or rescue its rows with sqlite3 FILE ".recover".',
        "readonly": "The file or its folder cannot be written to; change that, or name another with --results.",
        "unable to open": f"Its folder must exist and be writable{_folder_state(path)}.",
        "authentication failed": "Check user and password in the URL; special characters are written as %-escapes.",
        "does not exist": "Create it on the server first, or correct the name in the URL.",
        "refused": "Is the server running at that host and port?",
    }
    return next(
        (way for sign, way in ways.items() if sign in said.lower()),
        "Mend that, or name another database with --results.",
    )


def _folder_state(path: Path | None) -> str:
    if path is None or path.parent.is_dir():
        return ""
    return f"; {path.parent} does not exist"
