from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

from finesweep.errors import ResultsError
from finesweep.results.database import read, translated, writing_engine
from finesweep.results.frames import open_results
from finesweep.results.url import resolve_url
from finesweep.results.writer import open_writer


def count_tables(connection: sa.Connection) -> int:
    return len(sa.inspect(connection).get_table_names())


def test_sqlite_is_opened_as_the_writer_needs_it(tmp_path: Path) -> None:
    engine = writing_engine(resolve_url("r.db", folder=tmp_path))
    with engine.begin() as connection:
        asked = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        found = {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in asked}
    engine.dispose()
    assert found == {"journal_mode": "wal", "synchronous": 1, "foreign_keys": 1, "busy_timeout": 120_000}


def test_reading_creates_no_file_whether_or_not_a_writer_is_there(tmp_path: Path) -> None:
    writer = open_writer(tmp_path / "r.db")
    assert open_results(tmp_path / "r.db").sweeps().empty
    assert {path.name for path in tmp_path.iterdir()} == {"r.db", "r.db-wal", "r.db-shm"}
    writer.close()
    before = (tmp_path / "r.db").read_bytes()
    assert open_results(tmp_path / "r.db").sweeps().empty
    assert [path.name for path in tmp_path.iterdir()] == ["r.db"]
    assert (tmp_path / "r.db").read_bytes() == before


def test_reading_cannot_write(tmp_path: Path) -> None:
    url = resolve_url(tmp_path / "r.db", folder=tmp_path)
    with open_writer(url), pytest.raises(ResultsError, match="readonly"):
        read(url, lambda connection: connection.execute(sa.text("DELETE FROM finesweep_sweeps")))
    with pytest.raises(ResultsError, match="readonly"):
        read(url, lambda connection: connection.execute(sa.text("DELETE FROM finesweep_sweeps")))


def test_reading_sees_what_a_killed_writer_left_in_the_wal(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    killed = "import os, sys; from finesweep.results.writer import open_writer; open_writer(sys.argv[1]); os._exit(9)"
    subprocess.run([sys.executable, "-c", killed, str(path)])
    assert (tmp_path / "r.db-wal").exists()
    assert open_results(path).sweeps().empty


@pytest.mark.parametrize("fails", [False, True])
def test_a_reading_that_a_writer_disturbed_is_repeated(tmp_path: Path, *, fails: bool) -> None:
    path = tmp_path / "r.db"
    open_writer(path).close()
    calls: list[int] = []

    def disturbed(connection: sa.Connection) -> int:
        calls.append(count_tables(connection))
        if len(calls) == 1:  # a writer comes, writes and goes in the midst of the first reading
            with sqlite3.connect(path, isolation_level=None) as other:
                other.execute("CREATE TABLE late (a BLOB)")
                other.execute("INSERT INTO late VALUES (zeroblob(100000))")
            other.close()
            if fails:
                connection.execute(sa.text("SELECT * FROM torn"))
        return calls[-1]

    assert read(resolve_url(path, folder=tmp_path), disturbed) == calls[0] + 1
    assert len(calls) == 2


def test_a_reading_that_is_disturbed_again_and_again_takes_locks_in_the_end(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    open_writer(path).close()
    calls: list[int] = []

    def disturbed(connection: sa.Connection) -> int:
        calls.append(1)
        size = path.stat()
        os.utime(path, ns=(size.st_atime_ns, size.st_mtime_ns + 1_000_000 * len(calls)))
        return len(calls)

    assert read(resolve_url(path, folder=tmp_path), disturbed) == 6


def test_a_missing_file_is_said_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match=r"nothing\.db: no results database is there.*--results"):
        open_results(tmp_path / "nothing.db")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    path.write_text("these are notes " * 100)
    for open_it in (open_writer, open_results):
        with pytest.raises(ResultsError, match=r"notes\.db: file is not a database\. .*--results"):
            open_it(path)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match=r"unable to open.*must exist and be writable; .*/runs does not exist"):
        open_writer(tmp_path / "runs" / "r.db")


def test_a_folder_in_place_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match=r"unable to open.*must exist and be writable\."):
        open_writer(tmp_path)


def test_a_locked_database(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    url = resolve_url(path, folder=tmp_path)
    with open_writer(path):
        holder = sqlite3.connect(path, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        late = sqlite3.connect(path, timeout=0, isolation_level=None)
        with (
            pytest.raises(ResultsError, match=r"database is locked\. Another process has been writing"),
            translated(url),
        ):
            late.execute("BEGIN IMMEDIATE")
        holder.close()
        late.close()


def test_a_full_disk(tmp_path: Path) -> None:
    url = resolve_url(tmp_path / "r.db", folder=tmp_path)
    engine = writing_engine(url)
    with (
        pytest.raises(ResultsError, match=r"disk is full\. Free some space"),
        translated(url),
        engine.begin() as connection,
    ):
        connection.exec_driver_sql("CREATE TABLE big (a BLOB)")
        connection.exec_driver_sql("PRAGMA max_page_count = 2")
        connection.exec_driver_sql("INSERT INTO big VALUES (zeroblob(100000))")
    engine.dispose()


def test_other_errors_keep_their_words_and_hide_the_password() -> None:
    url = "postgresql+psycopg://me:secret@127.0.0.1:1/x"
    with pytest.raises(ResultsError) as caught, translated(url):
        raise OSError("strange\nthings happen.")
    assert str(caught.value) == (
        "postgresql+psycopg://me:***@127.0.0.1:1/x: strange things happen. "
        "Mend that, or name another database with --results."
    )


def test_a_missing_driver_is_named() -> None:
    wanted = r"driver 'psycopg' is not installed.*pip install 'finesweep\[postgresql\]'"
    with pytest.raises(ResultsError, match=wanted), translated("postgresql+psycopg://h/x"):
        raise ModuleNotFoundError("No module named 'psycopg'", name="psycopg")
