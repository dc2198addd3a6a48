"""A power cut at any moment: the database file and its WAL as they were after each commit, the WAL also cut or torn.

SQLite promises a consistent prefix. What is tested is ours: a resume from any prefix makes the sweep whole, Optuna's
tables too.
"""

from __future__ import annotations

import os
import random
import shutil
import socket
import sqlite3
import struct
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import optuna
import pytest

from finesweep.driver import Driver
from finesweep.events import Event, Grid, Listener, Report, SweepHistory, TrialSpec, TrialState
from finesweep.results.lease import Holder
from finesweep.results.schema import SweepState
from finesweep.results.writer import open_writer
from finesweep.scheduling.simulated import Dies, Raises, Says, SimulatedBackend, Stage, VirtualClock
from finesweep.search.broker import TrialBroker
from finesweep.spec.sweep import SweepSpec, read_sweep
from finesweep.views.live import PlainView

GRID = Grid("examples", every=100, longest=300)
N_TRIALS = 5
CHECKPOINT_EVERY = 9  # copies: the WAL is then written from its beginning, over what is in it
OPTUNA_STATES = {TrialState.COMPLETE: "COMPLETE", TrialState.PRUNED: "PRUNED", TrialState.FAILED: "FAIL"}

BEFORE_THE_REBOOT = Holder(socket.gethostname(), os.getpid(), started=1)  # another process now has its number

SPEC = read_sweep(
    {
        "name": "mortal",
        "model": "none",
        "task": "classification",
        "data": {"train": "/t.jsonl", "validation": "/v.jsonl"},
        "budget": {"trials": N_TRIALS, "retries": 1},
        "study": {
            "objective": {"metric": "accuracy", "direction": "maximize"},
            "sampler": {"type": "tpe", "seed": 0, "startup_trials": 3},
            "pruner": {"type": "asha", "first_rung": 100, "reduction_factor": 2},
            "parameters": {"x": {"type": "float", "low": 0, "high": 1}},
        },
    }
)


def life(trial: TrialSpec) -> Sequence[Stage]:
    """Three reports that depend on the configuration; one trial raises, one loses its first worker."""
    x = float(str(trial.configuration["x"]))
    stages: list[Stage] = [
        Says(5.0, Report(step, {"accuracy": x + step / 1000}, step, final=step == GRID.longest))
        for step in (100, 200, 300)
    ]
    if trial.number == 2:
        stages[0] = Raises(1.0, "out of luck")
    if trial.number == 4:
        stages.insert(1, Dies(1.0))
    return stages


def drive(path: Path, spec: SweepSpec, *, after_write: Listener | None = None) -> SweepHistory:
    """Drive what is left of a sweep, as a new process would, and give what is stored in the end."""
    clock = VirtualClock(1000.0)
    with open_writer(path, clock=clock) as writer:
        writer.acquire(spec.name, BEFORE_THE_REBOOT)
        view = PlainView(lambda line: None)
        view.begin(spec.study.objectives, N_TRIALS, writer.history(spec.name))

        def make_broker(listener: Listener) -> TrialBroker:
            history = writer.history(spec.name)
            return TrialBroker(
                spec.study, name=spec.name, grid=GRID, n_trials=N_TRIALS, retries=1, listener=listener, history=history
            )

        listeners = [] if after_write is None else [after_write]
        driver = Driver(spec, writer=writer, make_broker=make_broker, listeners=listeners, view=view, clock=clock)
        end = driver.drive(SimulatedBackend(life, n_slots=2, clock=clock))
        writer.release(spec.name)
        assert (end.state, end.n_unfinished) == (SweepState.FINISHED, 0)
        return writer.history(spec.name)


# --- what a power cut leaves ---------------------------------------------------------------------------------------


@dataclass
class Wal:
    """The frames of a write-ahead log that count: those of its latest beginning. https://sqlite.org/fileformat2.html"""

    salt: bytes
    frame_size: int
    end: int  # in the file; older frames may follow

    HEADER_SIZE = 32
    FRAME_HEADER_SIZE = 24

    @classmethod
    def read(cls, path: Path) -> Wal:
        content = path.read_bytes()
        frame_size = struct.unpack(">I", content[8:12])[0] + cls.FRAME_HEADER_SIZE
        salt, end = content[16:24], cls.HEADER_SIZE
        while content[end + 8 : end + 16] == salt:
            end += frame_size
        return cls(salt, frame_size, end)


@dataclass
class Copies:
    """The database after every write, each as a file with its WAL beside it."""

    source: Path
    folder: Path
    paths: list[Path] = field(default_factory=list)
    firsts: list[int] = field(default_factory=list)  # where in the WAL what came since the copy before begins
    _last: Wal | None = None

    def __call__(self, events: Sequence[Event]) -> None:
        path = self.folder / f"{len(self.paths)}.db"
        with closing(sqlite3.connect(self.source, isolation_level=None, timeout=60)) as connection:
            connection.execute("BEGIN IMMEDIATE")  # Optuna's tables are written by a thread
            shutil.copy(self.source, path)
            shutil.copy(wal_of(self.source), wal_of(path))
            connection.execute("ROLLBACK")
            wal = Wal.read(wal_of(path))
            goes_on = self._last is not None and self._last.salt == wal.salt
            self.firsts.append(self._last.end if goes_on and self._last else Wal.HEADER_SIZE)
            self.paths.append(path)
            self._last = wal
            if len(self.paths) % CHECKPOINT_EVERY == 0:
                is_busy = connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()[0]
                assert not is_busy


def wal_of(path: Path) -> Path:
    return Path(f"{path}-wal")


def cut(path: Path, first: int, target: Path, chance: random.Random) -> Path:
    """Copy a database whose WAL ends at some byte of what came last, or holds nothing from there on but zeros."""
    wal = Wal.read(wal_of(path))
    assert first < wal.end
    at = chance.randrange(first, wal.end)
    content = wal_of(path).read_bytes()
    shutil.copy(path, target)
    is_torn = chance.random() < 0.5
    wal_of(target).write_bytes(content[:at] + bytes(len(content) - at if is_torn else 0))
    return target


def stored(path: Path) -> SweepHistory:
    with open_writer(path) as writer:
        return writer.history(SPEC.name)


# --- what a resume must make of it ---------------------------------------------------------------------------------


@pytest.mark.parametrize("n_cuts", [1, pytest.param(6, marks=pytest.mark.slow)])
def test_a_sweep_is_made_whole_from_what_a_power_cut_leaves_at_any_moment(tmp_path: Path, n_cuts: int) -> None:
    source = tmp_path / "undisturbed.db"
    with open_writer(source) as writer:
        writer.create_sweep(SPEC, grid=GRID, provenance={})
    copies = Copies(source, tmp_path)
    undisturbed = drive(source, SPEC, after_write=copies)
    assert {trial.state for trial in undisturbed.trials} == {*OPTUNA_STATES}
    assert len(copies.paths) > 4 * N_TRIALS
    n_lost, before = 0, SweepHistory()
    for place, (path, first) in enumerate(zip(copies.paths, copies.firsts, strict=True)):
        cuts = [cut(path, first, tmp_path / f"{place}-{n}.db", random.Random(f"{place} {n}")) for n in range(n_cuts)]
        whole = stored(path)
        for left in cuts if n_cuts == 1 and place % 2 else [*cuts, path] if n_cuts > 1 else [path]:
            kept = stored(left)
            assert_keeps(before, kept)
            n_lost += repr(kept) != repr(whole)
            after = drive(left, SPEC)
            assert_keeps(kept, after)
            assert_whole(after)
            assert_mirrored(left, after)
        before = whole
    assert n_lost > len(copies.paths) // 4  # cuts do cost the last write


def assert_keeps(before: SweepHistory, after: SweepHistory) -> None:
    """Nothing that was stored is lost or has changed."""
    assert len(after.trials) >= len(before.trials)
    for earlier, later in zip(before.trials, after.trials, strict=False):
        assert later.configuration == earlier.configuration
        assert repr(later.reports[: len(earlier.reports)]) == repr(earlier.reports)
        assert later.attempts >= earlier.attempts
        if earlier.state.is_final:
            assert (later.state, later.value, later.reason) == (earlier.state, earlier.value, earlier.reason)


def assert_whole(history: SweepHistory) -> None:
    assert [trial.number for trial in history.trials] == list(range(N_TRIALS))
    for trial in history.trials:
        steps = [report.step for report in trial.reports]
        assert steps == sorted(set(steps))
        match trial.state:
            case TrialState.COMPLETE:
                assert steps == [100, 200, 300]
                assert trial.value == max(report.metrics["accuracy"] for report in trial.reports)
            case TrialState.PRUNED:
                assert steps and steps[-1] < GRID.longest and trial.value is None
            case state:
                assert (state, trial.number, trial.reason) == (TrialState.FAILED, 2, "out of luck")


def assert_mirrored(path: Path, history: SweepHistory) -> None:
    storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
    try:
        study = optuna.load_study(study_name=SPEC.name, storage=storage)
        for trial, copy in zip(history.trials, study.get_trials(deepcopy=False), strict=True):
            assert (copy.number, copy.state.name) == (trial.number, OPTUNA_STATES[trial.state])
            assert copy.params == trial.parameters
            assert copy.intermediate_values == {report.step: report.metrics["accuracy"] for report in trial.reports}
            assert trial.value is None or copy.value == trial.value
    finally:
        storage.remove_session()
        storage.engine.dispose()
