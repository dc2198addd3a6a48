"""A database that others use while a sweep writes it: they lock it, or read it all the time."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from tests.contract.inline_sweep import NAME, assert_whole, resume, run

import finesweep
from finesweep.results import database
from finesweep.results.frames import open_results
from finesweep.results.schema import SweepState
from finesweep.results.writer import open_writer
from finesweep.search import mirror

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start scripts in processes of their own; each says what it has to say by lines."""
    started: list[subprocess.Popen[str]] = []

    def start_one(script: str, *arguments: str) -> subprocess.Popen[str]:
        started.append(
            subprocess.Popen(
                [sys.executable, "-c", textwrap.dedent(script), *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return started[-1]

    yield start_one
    for process in started:
        process.kill()
        process.communicate()


# --- locked ---------------------------------------------------------------------------------------------------------

LOCKS = """
    import sqlite3, sys, time

    connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)
    connection.execute(sys.argv[2])
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("SELECT count(*) FROM finesweep_version").fetchall()
    print("locked", flush=True)
    time.sleep(float(sys.argv[3]))
    connection.execute("ROLLBACK")
"""
KEEPS_NOBODY_OUT, KEEPS_READERS_OUT = "PRAGMA locking_mode = NORMAL", "PRAGMA locking_mode = EXCLUSIVE"


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None and process.stderr is not None
    return process.stdout.readline().strip() or pytest.fail(process.stderr.read())


@pytest.mark.parametrize("held_s", [1.0, pytest.param(30.0, marks=pytest.mark.slow)])
def test_a_sweep_waits_for_a_process_that_holds_the_write_lock(tmp_path: Path, start: Start, held_s: float) -> None:
    path = tmp_path / "r.db"
    moments: list[float] = []

    def lock(number: int) -> None:
        moments.append(time.monotonic())
        if number == 2:
            assert line_of(start(LOCKS, str(path), KEEPS_NOBODY_OUT, str(held_s))) == "locked"

    end = run(f"sqlite:///{path}", tmp_path, trials=6, on_end=lock)
    assert end.state is SweepState.FINISHED
    assert_whole(f"sqlite:///{path}", trials=6)
    waited_s = [after - before for before, after in pairwise(moments)]
    assert waited_s[2] > held_s > waited_s[1]


def test_writers_and_optunas_tables_wait_four_times_as_long_as_half_a_minute(tmp_path: Path) -> None:
    assert database.BUSY_TIMEOUT_S == mirror.BUSY_TIMEOUT_S == 120
    storage = mirror._open_storage(f"sqlite:///{tmp_path / 'r.db'}")
    with storage.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 120_000
    mirror._close(storage)


def test_a_reader_waits_for_a_process_that_keeps_readers_out(tmp_path: Path, start: Start) -> None:
    path = tmp_path / "r.db"
    open_writer(path).close()
    locker = start(LOCKS, str(path), KEEPS_READERS_OUT, "0.5")
    assert line_of(locker) == "locked"
    began_s = time.monotonic()
    assert open_results(path).sweeps().empty
    assert time.monotonic() - began_s > 0.3


# --- read all the time ------------------------------------------------------------------------------------------------

READS = """
    import sys
    from pathlib import Path

    url, name, what = sys.argv[1:]

    def frames():
        from finesweep.results.frames import open_results

        results = open_results(url)
        results.sweeps(), results.points(name), results.attempts(name), results.artifacts(name)
        results.best(name), results.spec(name)
        return len(results.trials(name))

    def compared():
        from finesweep.results.frames import open_results
        from finesweep.views.compare import compare, comparison_tables
        from finesweep.views.tables import leaderboard

        comparison_tables(compare(open_results(url), [name]))
        return len(leaderboard(open_results(url), name).rows)

    def loaded():
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        return len(optuna.load_study(study_name=name, storage=url).trials)

    def dashboard():  # as optuna-dashboard opens it
        from optuna.storages import RDBStorage

        global storage
        if "storage" not in globals():
            storage = RDBStorage(url, skip_compatibility_check=True, skip_table_creation=True)
        [study] = [study for study in storage.get_all_studies() if study.study_name == name]
        return len(storage.get_all_trials(study._study_id, deepcopy=False))

    while True:
        print(globals()[what](), flush=True)
"""
READERS = ("frames", "compared", "loaded", "dashboard")


def test_readers_that_read_all_the_time_neither_break_a_sweep_nor_fail(url: str, tmp_path: Path, start: Start) -> None:
    """Each has read at least once between any two ends of trials, and reads on as fast as it can."""
    readers: dict[str, subprocess.Popen[str]] = {}
    seen: dict[str, list[int]] = {what: [] for what in READERS}

    def read_on(number: int) -> None:
        if number == 0:
            readers.update({what: start(READS, url, NAME, what) for what in READERS})
        for what, reader in readers.items():
            seen[what].append(int(line_of(reader)))

    end = run(url, tmp_path, trials=8, on_end=read_on)
    assert end.state is SweepState.FINISHED
    assert_whole(url, trials=8)
    for what, reader in readers.items():
        assert reader.poll() is None
        assert seen[what] == sorted(seen[what])  # what one has seen, it sees ever after
        assert len(seen[what]) == 8
    assert seen["frames"][-1] > 1


# --- the whole way ----------------------------------------------------------------------------------------------------


def test_a_sweep_is_run_stopped_resumed_extended_and_deleted(url: str, tmp_path: Path) -> None:
    def stop(number: int) -> None:
        if number == 2:
            signal.raise_signal(signal.SIGINT)

    stopped = run(url, tmp_path, trials=8, on_end=stop)
    assert stopped.state is SweepState.INTERRUPTED
    before = open_results(url).trials(NAME)
    assert 3 <= len(before) < 8
    assert resume(url).state is SweepState.FINISHED
    after = assert_whole(url, trials=8).trials(NAME)
    ended = before[before["state"].isin(["COMPLETE", "PRUNED"])]["number"]
    assert after.loc[ended].equals(before.loc[ended])
    finesweep.extend(NAME, 10, results=url)
    assert resume(url).state is SweepState.FINISHED
    assert_whole(url, trials=10)
    finesweep.delete(NAME, results=url)
    assert open_results(url).sweeps().empty
