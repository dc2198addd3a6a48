"""Databases of older versions, from frozen dumps: migrated whole or not at all, with a copy, or refused."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from tests.commandline import invoke

from finesweep import sweeps
from finesweep.errors import ResultsError, SweepHeldError
from finesweep.events import TrialState
from finesweep.results.frames import open_results
from finesweep.results.lease import Holder, process_started
from finesweep.results.migrations import MIGRATIONS
from finesweep.results.schema import SCHEMA_VERSION, metadata
from finesweep.results.writer import open_writer

FROZEN = Path(__file__).parent / "frozen"
OLDER = range(1, SCHEMA_VERSION)
AT_MIDNIGHT_S = 1_795_652_100.0  # 2026-11-26 00:15:00 UTC
FAR_S = 1_800_000_000.0  # later than all that is in the frozen databases

Rows = dict[str, list[str]]
Shape = tuple[list[dict[str, Any]], object, object, object, object]


def dump(version: int, kind: str) -> str:
    return (FROZEN / f"version_{version}.{kind}.sql").read_text(encoding="utf-8")


def frozen(version: int, path: Path) -> Path:
    """Make a database as that version left it, its last transactions still in the WAL."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.executescript(dump(version, "sqlite"))
    return path


@pytest.fixture(params=OLDER)
def version(request: pytest.FixtureRequest) -> int:
    given: int = request.param
    return given


@pytest.fixture
def older(version: int, tmp_path: Path) -> Path:
    return frozen(version, tmp_path / "finesweep.db")


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, version: int, tmp_path: Path) -> str:
    """A database of an older version, on either kind."""
    if request.param == "sqlite":
        return f"sqlite:///{frozen(version, tmp_path / 'finesweep.db')}"
    url: str = request.getfixturevalue("postgresql_url")
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql(dump(version, "postgresql"))
    engine.dispose()
    return url


def columns(url: str) -> dict[str, list[str]]:
    """Name our tables' columns, in their order."""
    return {table: [column["name"] for column in shape[0]] for table, shape in shapes(url).items()}


def shapes(url: str) -> dict[str, Shape]:
    """Describe our tables: columns with type, default and whether they may be null; keys and indexes."""
    engine = sa.create_engine(url)
    inspector = sa.inspect(engine)
    found: dict[str, Shape] = {}
    for table in sorted(name for name in inspector.get_table_names() if name.startswith("finesweep_")):
        found[table] = (
            [{**column, "type": str(column["type"])} for column in inspector.get_columns(table)],
            inspector.get_pk_constraint(table),
            inspector.get_foreign_keys(table),
            inspector.get_unique_constraints(table),
            inspector.get_indexes(table),
        )
    engine.dispose()
    return found


def rows(url: str, wanted: dict[str, list[str]]) -> Rows:
    """Read these columns as they are stored, with the types that they are stored in."""
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        found = {
            table: sorted(map(repr, connection.execute(sa.text(f"SELECT {', '.join(names)} FROM {table}"))))
            for table, names in wanted.items()
            if table != "finesweep_version"
        }
    engine.dispose()
    return found


def copies(path: Path) -> list[Path]:
    return sorted(path.parent.glob("*.backup"))


# --- what a migration makes -----------------------------------------------------------------------------------------


def test_there_is_a_migration_and_a_frozen_database_for_every_older_version() -> None:
    assert sorted(MIGRATIONS) == [version + 1 for version in OLDER]
    kinds = ("sqlite", "postgresql")
    assert {path.name for path in FROZEN.iterdir()} == {f"version_{v}.{kind}.sql" for v in OLDER for kind in kinds}


def test_every_row_of_an_older_database_is_the_same_after_migration(url: str) -> None:
    had = columns(url)
    before = rows(url, had)
    assert all(before.values())  # there is something in every table
    open_writer(url).close()
    assert rows(url, had) == before


def test_a_migrated_database_has_the_schema_of_a_fresh_one(url: str) -> None:
    open_writer(url).close()
    migrated = shapes(url)
    engine = sa.create_engine(url)
    metadata.drop_all(engine)
    engine.dispose()
    assert shapes(url) == {}
    open_writer(url).close()
    assert shapes(url) == migrated


def test_a_migrated_database_is_read_and_driven_like_any_other(url: str) -> None:
    with open_writer(url) as writer:
        known = open_results(url)
        assert known.sweeps()["sweep"].tolist() == ["tickets", "waiting"]
        assert known.sweeps()["end_reason"].isna().all()
        assert known.artifacts("tickets")["n_bytes"].isna().all()
        best = known.best("tickets")
        assert best is not None and (best.number, best.value) == (0, 0.75)
        assert known.trials("tickets")["state"].tolist()[:3] == ["COMPLETE", "PRUNED", "FAILED"]
        writer.acquire("tickets", Holder.this_process())
        trials = writer.history("tickets").trials
        assert [trial.state for trial in trials[3:]] == [
            TrialState.COMPLETE,
            TrialState.INTERRUPTED,
            TrialState.WAITING,
        ]
        assert [report.step for report in trials[4].reports] == [100]


def test_a_migration_says_what_it_did_and_whether_there_is_a_copy(url: str, version: int) -> None:
    said: list[str] = []
    open_writer(url, say=said.append, clock=lambda: AT_MIDNIGHT_S).close()
    open_writer(url, say=said.append).close()
    [text] = said
    assert f"migrated from schema version {version} to {SCHEMA_VERSION}" in text
    is_file = url.startswith("sqlite")
    assert (f"finesweep.db.v{version}-2026-11-26T001500.backup" in text) == is_file
    assert ("is not copied; pg_dump does that" in text) == (not is_file)
    assert url.startswith("sqlite") or url.partition("postgres:")[2].partition("@")[0] not in text  # the password


# --- the copy ---------------------------------------------------------------------------------------------------------


def test_the_copy_is_the_database_as_it_was_with_what_was_in_its_wal(older: Path, version: int) -> None:
    writer = sqlite3.connect(older, isolation_level=None)
    writer.execute("UPDATE finesweep_sweeps SET seconds_used = 77.25 WHERE id = 2")  # in the WAL: nobody has closed yet
    had = columns(f"sqlite:///{older}")
    before = rows(f"sqlite:///{older}", had)
    older.chmod(0o640)
    open_writer(older, clock=lambda: AT_MIDNIGHT_S).close()
    writer.close()
    [copy] = copies(older)
    assert copy.name == f"finesweep.db.v{version}-2026-11-26T001500.backup"
    assert copy.stat().st_mode & 0o777 == 0o640
    assert columns(f"sqlite:///{copy}") == had
    assert rows(f"sqlite:///{copy}", had) == before
    assert any("77.25" in str(row) for row in before["finesweep_sweeps"])


def test_a_copy_takes_no_other_files_place(older: Path) -> None:
    there = older.with_name(f"{older.name}.v1-2026-11-26T001500.backup")
    there.write_text("mine")
    open_writer(older, clock=lambda: AT_MIDNIGHT_S).close()
    assert there.read_text() == "mine"
    assert [path.name for path in copies(older) if path != there] == [f"{older.name}.v1-2026-11-26T001500-2.backup"]


def test_a_database_of_this_version_is_not_copied(tmp_path: Path) -> None:
    open_writer(tmp_path / "finesweep.db").close()
    open_writer(tmp_path / "finesweep.db").close()
    assert copies(tmp_path / "finesweep.db") == []


def test_without_a_copy_nothing_is_migrated(older: Path, version: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full for the copy alone."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ResultsError, match="No space left on device"):
        open_writer(older)
    assert stored_version(older) == version
    assert sorted(path.name for path in older.parent.iterdir() if "backup" in path.name) == []


# --- all or nothing ---------------------------------------------------------------------------------------------------

KILLED = """
    import os, signal, sys
    import alembic.operations  # once, before all forks
    import sqlalchemy as sa
    from finesweep.results.writer import open_writer

    def migrate(path, last):
        count = 0

        def next_step(*_):
            nonlocal count
            count += 1
            if count == last:
                os.kill(os.getpid(), signal.SIGKILL)

        for moment in ("before_cursor_execute", "after_cursor_execute", "commit"):
            sa.event.listen(sa.Engine, moment, next_step)
        open_writer(path).close()

    for last, path in enumerate(sys.argv[1:], 1):
        child = os.fork()
        if not child:
            migrate(path, last)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        print(os.WTERMSIG(status), flush=True)
"""


def test_a_migration_killed_at_any_statement_leaves_the_old_database_or_the_new_one(
    tmp_path: Path, version: int
) -> None:
    paths = [frozen(version, tmp_path / f"{n}.db") for n in range(40)]
    had = columns(f"sqlite:///{paths[0]}")
    before = rows(f"sqlite:///{paths[0]}", had)
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED), *map(str, paths)], capture_output=True, text=True, check=True
    )
    signals = [int(line) for line in ran.stdout.split()]
    n_killed = signals.index(0)
    assert signals[:n_killed] == [signal.SIGKILL] * n_killed
    assert n_killed > 10
    was_copied = 0
    for path in paths[: n_killed + 1]:
        is_new = stored_version(path) == SCHEMA_VERSION
        assert (columns(f"sqlite:///{path}") == had) == (not is_new)
        assert rows(f"sqlite:///{path}", had) == before
        mine = [copy for copy in copies(path) if copy.name.startswith(path.name)]
        assert all(rows(f"sqlite:///{copy}", had) == before for copy in mine)
        was_copied += bool(mine)
        open_writer(path).close()
        assert stored_version(path) == SCHEMA_VERSION
        assert rows(f"sqlite:///{path}", had) == before
    assert 1 < was_copied <= n_killed  # some were killed before the copy, some after


def stored_version(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        found: int = connection.execute("SELECT version FROM finesweep_version").fetchone()[0]
    return found


# --- refusals ---------------------------------------------------------------------------------------------------------


def hold(url: str, holder: Holder, *, expires_at: float) -> None:
    """Say that somebody drives a sweep, as an older finesweep writes it."""
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(
            sa.text(
                "UPDATE finesweep_sweeps SET holder_host = :host, holder_pid = :pid, holder_started = :started, "
                "held_since = 0, expires_at = :expires_at WHERE name = 'waiting'"
            ),
            {"host": holder.host, "pid": holder.pid, "started": holder.started, "expires_at": expires_at},
        )
    engine.dispose()


@pytest.mark.parametrize("where", ["here", "elsewhere"])
def test_a_database_that_an_older_finesweep_drives_is_not_touched(url: str, where: str) -> None:
    here = Holder(socket.gethostname(), os.getpid(), process_started(os.getpid()))
    hold(url, here if where == "here" else Holder("node-7", 4711, 99), expires_at=FAR_S)
    had = columns(url)
    with pytest.raises(
        SweepHeldError, match=r"sweep 'waiting' is driven by process \d+ on .* an older finesweep.*kill -INT"
    ):
        open_writer(url, clock=lambda: FAR_S - 1)
    assert columns(url) == had
    hold(url, Holder("node-7", 4711, 99), expires_at=FAR_S)
    open_writer(url, clock=lambda: FAR_S + 1).close()
    assert columns(url) != had


def test_a_reader_of_an_older_database_names_the_verb_that_migrates_it(older: Path) -> None:
    for verb in (["status"], ["compare", "tickets"], ["logs", "tickets:0"]):
        result = invoke(*verb, "--results", str(older))
        assert result.exit_code == 2
        assert f"finesweep migrate --results {older}" in result.stderr
    assert copies(older) == []


def test_the_verb_migrates_once_and_says_where_the_copy_is(older: Path) -> None:
    result = invoke("migrate", "--results", str(older))
    assert result.exit_code == 0, result.output
    [copy] = copies(older)
    assert copy.name in result.stderr
    assert "schema of this finesweep" in result.stdout
    again = invoke("migrate", "--results", str(older))
    assert (again.exit_code, again.stderr) == (0, "")
    assert copies(older) == [copy]
    assert invoke("status", "--results", str(older)).exit_code == 0


@pytest.mark.parametrize(
    "act", [lambda url: sweeps.stop("waiting", results=url), lambda url: sweeps.extend("waiting", 20, results=url)]
)
def test_verbs_that_write_migrate_what_they_meet(older: Path, act: Callable[[str], object]) -> None:
    act(str(older))
    assert stored_version(older) == SCHEMA_VERSION
    assert len(copies(older)) == 1


def test_a_sweep_of_an_older_finesweep_is_deleted_by_name_without_another_word(older: Path) -> None:
    result = invoke("delete", "tickets", "--yes", "--results", str(older))
    assert (result.exit_code, result.stdout) == (0, "tickets: deleted.\n")
    [copy] = copies(older)
    assert copy.name in result.stderr
    assert "tickets" not in list(open_results(older).sweeps()["sweep"])


def test_migrating_a_database_that_is_not_there_creates_none(tmp_path: Path) -> None:
    result = invoke("migrate", "--results", str(tmp_path / "finesweep.db"))
    assert result.exit_code == 2
    assert list(tmp_path.iterdir()) == []
