"""A round: a sweep that is struck by a fault, perhaps again, resumed until it is finished, and then looked at.

In: a `Kind`, a seed. Out: an `Outcome`.
"""

from __future__ import annotations

import shutil
import signal
import tempfile
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import psutil

from killing.checks import Findings, Rows, examine, finished_rows
from killing.interrupting import Interruption
from killing.kinds import Change, Kind, around
from killing.striking import Struck
from killing.sweep import Driver, Sweep

MOST_DRIVERS = 8  # of a round; a sweep that is not finished then never will be
GONE_AFTER_S = 30.0  # what a driver has started, once it is dead
AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")
N_WRITES = 55  # writing transactions of an inline sweep of five trials


@dataclass
class Outcome:
    """What came of a round."""

    kind: str
    backend: str
    seed: int
    sampler: str
    n_trials: int
    struck: list[str]  # each fault as it was brought about
    n_drivers: int
    seconds: float
    found: dict[str, list[str]] = field(default_factory=dict)

    @property
    def is_clean(self) -> bool:
        return not any(self.found.values())

    def values(self) -> dict[str, Any]:
        return asdict(self)


def run_round(kind: Kind, seed: int, *, keep_in: Path | None = None) -> Outcome:
    """Run a round. With `keep_in`, the folder of one that found something is kept there."""
    draw = Random(f"{kind.key} {seed}")
    began_s = time.monotonic()
    others = _children()
    # A short path: the sockets of Ray lie below it.
    folder = Path(tempfile.mkdtemp(prefix="fk", dir="/tmp"))
    try:
        with around(kind) as more:
            sweep = _make_sweep(kind, seed, draw, folder, more)
            struck, before, findings = _drive(kind, sweep, draw)
        look = examine(sweep, before=before, failing=kind.failing(sweep))
        found = {key: [*getattr(findings, key), *texts] for key, texts in asdict(look).items()}
        outcome = Outcome(
            kind=kind.name,
            backend=kind.backend,
            seed=seed,
            sampler=sweep.sampler,
            n_trials=sweep.n_trials,
            struck=struck,
            n_drivers=sweep.n_drivers,
            seconds=round(time.monotonic() - began_s, 1),
            found=found,
        )
        if not outcome.is_clean and keep_in is not None:
            keep_in.mkdir(parents=True, exist_ok=True)
            kept = keep_in / f"{kind.backend}-{kind.name.replace(' ', '-')}-{seed}"
            shutil.copytree(folder / "sweep", kept, dirs_exist_ok=True)
        return outcome
    finally:
        _end(_children() - others)  # nothing, unless this round was itself interrupted
        shutil.rmtree(folder, ignore_errors=True)


def _make_sweep(kind: Kind, seed: int, draw: Random, folder: Path, more: Change) -> Sweep:
    is_ray = kind.backend == "ray"
    (folder / "t").mkdir()
    return Sweep(
        folder / "sweep",
        kind.backend,
        **{
            "n_trials": draw.randint(6, 10) if is_ray else draw.randint(5, 8),
            "pause_s": 0.04 if is_ray else 0.01,
            "seed": seed,
            "sampler": draw.choice(["random", "tpe"]),
            **kind.change(draw),
            **more,
            "environment": {
                "RAY_TMPDIR": str(folder),
                "TMPDIR": str(folder / "t"),
                **more.get("environment", {}),
            },
        },
    )


def _drive(kind: Kind, sweep: Sweep, draw: Random) -> tuple[list[str], list[Rows], Findings]:
    """Strike once or more, then let the sweep come to its end. What drivers should not do is found at once."""
    struck: list[str] = []
    before: list[Rows] = []
    findings = Findings()
    n_strikes = draw.randint(1, kind.most_strikes)
    for n_drivers in range(MOST_DRIVERS):
        is_struck = n_drivers < n_strikes
        others = _children()
        interruption = Interruption(draw.randrange(N_WRITES), kind.moment) if kind.moment and is_struck else None
        driver = sweep.go_on(interruption)
        what = _strike(kind, driver, sweep, draw, interruption) if is_struck else None
        code = driver.wait()
        if what is not None:
            struck.append(what.what)
            if what.wrong is not None:
                findings.wrong.append(what.wrong)
        _judge_end(what, code, driver, findings)
        _await_rest(others, findings)
        before.append(finished_rows(sweep))
        if sweep.is_finished():
            return struck, before, findings
    findings.lost.append(f"the sweep's end: {MOST_DRIVERS} drivers did not come to it")
    return struck, before, findings


def _strike(kind: Kind, driver: Driver, sweep: Sweep, draw: Random, interruption: Interruption | None) -> Struck | None:
    if kind.strike is not None:
        return kind.strike(driver, sweep, draw)
    if driver.wait() != -signal.SIGKILL:  # it made fewer writes than that
        return None
    assert interruption is not None
    return Struck(f"{interruption.moment} a write", (-signal.SIGKILL,))


def _judge_end(struck: Struck | None, code: int | None, driver: Driver, findings: Findings) -> None:
    """A driver ends as its fault has it; without one, with 0."""
    output = driver.output
    may = (0,) if struck is None else struck.codes
    if code is None:
        findings.wrong.append(f"the driver hangs after {struck and struck.what}: {output[-300:]}")
    elif code not in may and not (code == 0 and "Best: trial" in output):  # it was over before it could be struck
        findings.wrong.append(f"the driver ended with {code} after {struck and struck.what}: {output[-600:]}")
    elif struck is not None and struck.says is not None and code > 0 and struck.says not in output:
        findings.wrong.append(f"the driver does not say {struck.says!r}: {output[-600:]}")
    if "Traceback (most recent call last)" in output:
        findings.wrong.append(f"the driver shows a traceback: {output[-1500:]}")


def _await_rest(others: set[psutil.Process], findings: Findings) -> None:
    """Wait for what a dead driver has started to be gone too; what is not is found, and ended.

    Ray's agents are not waited for: without a GCS they try for a minute to tell it of their end.
    """
    started = _children() - others
    agents = {process for process in started if any(name in _command(process) for name in AGENTS)}
    _, left = psutil.wait_procs(started - agents, timeout=GONE_AFTER_S)
    findings.zombie += [f"process {process.pid}: {command[:200]}" for process in left if (command := _command(process))]
    _end({*left, *agents})


def _children() -> set[psutil.Process]:
    """Find all that was started from here but for what forks our drivers, which stays for the next one."""
    staying = ("multiprocessing.forkserver", "multiprocessing.resource_tracker")
    children = psutil.Process().children(recursive=True)
    return {process for process in children if not any(name in _command(process) for name in staying)}


def _end(processes: Collection[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=GONE_AFTER_S)


def _command(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""
