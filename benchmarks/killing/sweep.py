"""A sweep in a folder of its own, and its drivers: real ones, processes that can be killed.

In: a folder, which backend. Out: drivers that run `finesweep run` and `finesweep resume`. It must not know what kills
them.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import yaml

from killing import trainer
from killing.interrupting import Interruption, die_at

NAME = "round"
TRAINER = "killed_trainer"
PATIENCE_S = 120.0  # a driver that takes longer than this hangs


class Process(Protocol):
    """What `subprocess.Popen` and `multiprocessing.Process` are both made to be."""

    pid: int

    def wait(self, timeout_s: float) -> int | None:
        """Wait for the end and give the exit code, below 0 for a signal; None where it is not over."""


@dataclass
class Driver:
    """A process that drives a sweep."""

    process: Process
    output_path: Path
    began_s: float = field(default_factory=time.monotonic)

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def is_over(self) -> bool:
        return self.process.wait(0.0) is not None

    @property
    def output(self) -> str:
        return self.output_path.read_text(encoding="utf-8", errors="replace")

    def send(self, number: signal.Signals) -> None:
        """Send a signal; a driver that is over gets none."""
        if not self.is_over:
            os.kill(self.pid, number)

    def wait(self, timeout_s: float = PATIENCE_S) -> int | None:
        """Wait for the end and give the exit code; None if it hangs, after ending it."""
        code = self.process.wait(timeout_s)
        if code is None:
            os.kill(self.pid, signal.SIGKILL)
            self.process.wait(10.0)
        return code


@dataclass
class Sweep:
    """A sweep of short trials, written into a new folder. Its trainer tells what it is doing in `place`."""

    folder: Path
    backend: str
    n_trials: int = 6
    n_slots: int = 2
    pause_s: float = 0.01
    seed: int = 0
    sampler: str = "random"
    settings: Mapping[str, Any] = field(default_factory=dict)  # more under `training`
    budget: Mapping[str, Any] = field(default_factory=dict)
    resources: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    n_drivers: int = 0

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)
        (self.folder / "phases").mkdir()
        shutil.copy(trainer.__file__, self.folder / f"{TRAINER}.py")
        content = {
            "name": NAME,
            "trainer": f"{TRAINER}:train",
            "study": {
                "objective": {"metric": trainer.MEASURING, "direction": "maximize"},
                "sampler": {"type": self.sampler, "seed": self.seed, "startup_trials": 3},
                "pruner": {"type": "asha", "first_rung": trainer.EVERY, "reduction_factor": 2},
                "parameters": {"rate": {"type": "float", "low": 0.0, "high": 1.0}},
            },
            "training": {
                "eval_every": trainer.EVERY,
                "total_examples": trainer.EVERY * trainer.N_REPORTS,
                "place": str(self.folder),
                "pause_s": self.pause_s,
                **self.settings,
            },
            "budget": {"trials": self.n_trials, "retries": 5, **self.budget},
            "resources": {"devices": "cpu", "max_parallel": self.n_slots, **self.resources},
        }
        if self.sampler == "random":
            del content["study"]["sampler"]["startup_trials"]
        (self.folder / "sweep.yaml").write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")

    @property
    def database(self) -> Path:
        return self.folder / "finesweep.db"

    @property
    def artifact_dir(self) -> Path:
        return self.folder / "artifacts" / NAME

    # --- driving ------------------------------------------------------------------------------------------------

    def go_on(self, interruption: Interruption | None = None) -> Driver:
        """Begin the sweep, or resume it where the database knows it already."""
        return self.start(*(["resume", NAME] if self.is_known() else ["run", "sweep.yaml"]), interruption=interruption)

    def start(self, *arguments: str, interruption: Interruption | None = None) -> Driver:
        """Start a driver, with Ray from the command line, without in a process forked from one that is warm."""
        self.n_drivers += 1
        for told in (self.folder / "phases").iterdir():
            told.unlink(missing_ok=True)
        output_path = self.folder / f"driver-{self.n_drivers}.txt"
        output_path.touch()  # a driver may die before it says a word
        words = [*arguments, "--backend", self.backend]
        if self.backend == "inline":
            return Driver(_Forked(words, self.folder, output_path, interruption), output_path)
        return Driver(_Launched(words, self.folder, output_path, self.environment), output_path)

    def is_known(self) -> bool:
        """Tell whether the database has the sweep: a driver may have died before it came to that."""
        try:
            return bool(self.rows(f"select 1 from finesweep_sweeps where name = '{NAME}'"))
        except sqlite3.OperationalError:
            return False

    def is_finished(self) -> bool:
        """Tell whether the sweep has come to its end, and its driver has left it."""
        state = f"select state, holder_pid from finesweep_sweeps where name = '{NAME}'"
        return self.is_known() and self.rows(state) in ([("FINISHED", None)], [("FAILED", None)])

    # --- looking ------------------------------------------------------------------------------------------------

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Ask the database, not through finesweep. Raises sqlite3.OperationalError where there is none."""
        if not self.database.exists():
            raise sqlite3.OperationalError(f"{self.database} is not there")
        with closing(sqlite3.connect(self.database, timeout=30)) as connection:
            return list(connection.execute(query))

    def execute(self, statement: str) -> None:
        """Change the database, not through finesweep. Raises sqlite3.OperationalError where it stays locked."""
        with closing(sqlite3.connect(self.database, timeout=0.2)) as connection, connection:
            connection.execute(statement)

    def phases(self) -> dict[int, tuple[str, int]]:
        """Tell of each process that trains which phase of which trial it is in."""
        found = {}
        for path in (self.folder / "phases").iterdir():
            words = path.read_text().split()
            if len(words) == 3:  # else it is being written
                found[int(path.name)] = (words[0], int(words[1]))
        return found

    def units(self) -> list[tuple[int, int, int]]:
        """List what was trained, in order: trial, attempt, unit."""
        path = self.folder / "work.txt"
        lines = path.read_text().splitlines() if path.exists() else []
        return [(int(trial), int(attempt), int(unit)) for trial, attempt, unit in map(str.split, lines)]


class _Launched:
    """The command line in a session of its own."""

    def __init__(self, words: list[str], folder: Path, output_path: Path, environment: Mapping[str, str]) -> None:
        with output_path.open("w", encoding="utf-8") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "finesweep", *words],
                cwd=folder,
                env={**_environment(), **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.pid = self._process.pid

    def wait(self, timeout_s: float) -> int | None:
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None


class _Forked:
    """The command line called in a process that has everything imported: a driver in a tenth of a second."""

    def __init__(self, words: list[str], folder: Path, output_path: Path, interruption: Interruption | None) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["finesweep.cli.life", "finesweep.sweeps", "killing.warm"])
        self._process = context.Process(target=_drive, args=(words, folder, output_path, interruption))
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def wait(self, timeout_s: float) -> int | None:
        self._process.join(timeout_s)
        return self._process.exitcode


def _drive(words: list[str], folder: Path, output_path: Path, interruption: Interruption | None) -> None:
    from finesweep.cli import main

    os.setsid()
    os.chdir(folder)
    output = os.open(output_path, os.O_WRONLY | os.O_CREAT)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.update(_environment())
    if interruption is not None:
        die_at(interruption)
    main(words)


def _environment() -> dict[str, str]:
    """Give every driver the same, and its modules to itself."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    environment.pop("FINESWEEP_RESULTS", None)
    return environment


@contextmanager
def patience(what: str, *, timeout_s: float = PATIENCE_S, every_s: float = 0.002) -> Iterator[Callable[[], None]]:
    """Give what is to be called at every turn of a loop that waits for `what`. Raises TimeoutError."""
    end_s = time.monotonic() + timeout_s

    def turn() -> None:
        if time.monotonic() > end_s:
            raise TimeoutError(f"waited {timeout_s:.0f} s in vain for {what}")
        time.sleep(every_s)

    yield turn
