"""A PostgreSQL server of the tests' own on loopback, as another user when this one is root."""

from __future__ import annotations

import importlib.util
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa


@dataclass(frozen=True)
class Server:
    url: str  # without the database's name

    @contextmanager
    def database(self) -> Iterator[str]:
        """Give the URL of a new database, which is dropped in the end: each has ten megabytes."""
        name = f"t{secrets.token_hex(8)}"
        self._do(f"CREATE DATABASE {name}")
        try:
            yield f"{self.url}/{name}"
        finally:
            self._do(f"DROP DATABASE {name} WITH (FORCE)")

    def _do(self, command: str) -> None:
        engine = sa.create_engine(f"{self.url}/postgres", isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql(command)
        engine.dispose()


def why_not() -> str | None:
    """Tell why no server can be started here; None where one can."""
    if importlib.util.find_spec("psycopg") is None:
        return "psycopg is not installed"
    if _binaries() is None:
        return "no PostgreSQL server is installed"
    if os.geteuid() == 0 and _as_other() is None:
        return "PostgreSQL does not run as root, and there is no user postgres to run it as"
    return None


@contextmanager
def running_server() -> Iterator[Server]:
    """Start a server in a folder that is removed when it has ended."""
    binaries = _binaries()
    assert binaries is not None
    as_other = _as_other() or []
    folder = Path(tempfile.mkdtemp(prefix="finesweep-pg-"))
    password = secrets.token_hex(8)
    (folder / "password").write_text(password)
    if as_other:
        for path in (folder, folder / "password"):
            shutil.chown(path, "postgres")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    data = folder / "data"
    initdb = [binaries / "initdb", "-D", data, "-U", "postgres", "-A", "scram-sha-256", "-N"]
    password_file = ["--pwfile", folder / "password"]
    subprocess.run([*as_other, *initdb, *password_file], check=True, capture_output=True, cwd="/")
    options = ["-D", data, "-p", str(port), "-k", folder, "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen([*as_other, binaries / "postgres", *options], stdout=log, stderr=log, cwd="/")
    try:
        _wait_for(port, server, folder / "log")
        yield Server(f"postgresql+psycopg://postgres:{password}@127.0.0.1:{port}")
    finally:
        stop = [binaries / "pg_ctl", "-D", data, "-m", "immediate", "stop"]  # nothing of it is kept
        subprocess.run([*as_other, *stop], check=True, capture_output=True, cwd="/")
        server.wait(timeout=30)
        shutil.rmtree(folder)


def _binaries() -> Path | None:
    """Find the folder of initdb, postgres and pg_ctl; only the last may be on the PATH."""
    on_path = shutil.which("pg_ctl")
    folders = [Path(on_path).resolve().parent] if on_path else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return next((folder for folder in reversed(folders) if (folder / "initdb").exists()), None)


def _as_other() -> list[str] | None:
    """Give the command that runs another as user postgres; None where that is not needed or not possible."""
    if os.geteuid() != 0 or shutil.which("runuser") is None:
        return None
    is_there = subprocess.run(["id", "postgres"], capture_output=True).returncode == 0
    return ["runuser", "-u", "postgres", "--"] if is_there else None


def _wait_for(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(300):
        ready = "listening on IPv4 address" in log.read_text() and "ready to accept" in log.read_text()
        if ready:
            return
        if server.poll() is not None:
            break
        time.sleep(0.1)
    raise RuntimeError(f"PostgreSQL did not start on port {port}:\n{log.read_text()}")
