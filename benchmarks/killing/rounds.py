"""A round: a sweep that is struck by a fault, perhaps again, resumed until it is finished, and then looked at.

In: a `Kind`, a seed. Out: an `Outcome`. Which kinds there are, and how often each is tried, stands in `KINDS`.
"""

from __future__ import annotations

import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import psutil

from killing import striking
from killing.checks import Findings, Rows, examine, finished_rows
from killing.interrupting import MOMENTS, Interruption
from killing.striking import Strike, Struck
from killing.sweep import Driver, Sweep
from killing.trainer import EATEN_MIB, PHASES

MOST_DRIVERS = 8  # of a round; a sweep that is not finished then never will be
GONE_AFTER_S = 30.0  # what a driver has started, once it is dead
N_WRITES = 55  # writing transactions of an inline sweep of five trials

Change = dict[str, Any]  # further arguments of a Sweep


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault, on a backend, and how many rounds of it make a full run."""

    name: str
    backend: str
    n_rounds: int
    strike: Strike | None = None  # None: by an interruption at a write
    moment: str | None = None  # of that write
    change: Callable[[Random], Change] = lambda draw: {}
    failing: Callable[[Sweep], Mapping[int, str]] = lambda sweep: {}
    most_strikes: int = 2

    @property
    def key(self) -> str:
        return f"{self.backend}: {self.name}"


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
    # A short path: the sockets of Ray lie below it.
    folder = Path(tempfile.mkdtemp(prefix="fk", dir="/tmp"))
    try:
        with _around(kind) as more:
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
        others = set(psutil.Process().children(recursive=True))
        interruption = Interruption(draw.randrange(N_WRITES), kind.moment) if kind.moment and is_struck else None
        driver = sweep.go_on(interruption)
        what = _strike(kind, driver, sweep, draw, interruption) if is_struck else None
        code = driver.wait()
        if what is not None:
            struck.append(what.what)
            if what.what.isupper():
                findings.wrong.append(what.what)
        _judge_end(what, code, driver, findings)
        _await_rest(others, findings)
        before.append(finished_rows(sweep))
        if sweep.is_finished() and (not is_struck or what is not None or kind.moment):
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
    started = [(process, _command(process)) for process in psutil.Process().children(recursive=True)]
    rest = [process for process, command in started if process not in others and not _may_stay(command)]
    _, left = psutil.wait_procs(rest, timeout=GONE_AFTER_S)
    findings.zombie += [f"process {process.pid}: {command[:200]}" for process in left if (command := _command(process))]
    agents = [process for process, command in started if process not in others and "Agent" in command]
    for process in [*left, *agents]:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(agents, timeout=GONE_AFTER_S)


def _may_stay(command: str) -> bool:
    """Tell of Ray's agents, and of what forks our drivers."""
    names = ("multiprocessing.forkserver", "multiprocessing.resource_tracker", "ray::DashboardAgent")
    return any(name in command for name in (*names, "ray::RuntimeEnvAgent"))


def _command(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


# --- what is done around a sweep ------------------------------------------------------------------------------------


@contextmanager
def _around(kind: Kind) -> Iterator[Change]:
    """Give what a kind needs besides: a cluster, a limit of memory."""
    if kind.name == "node removed":
        from killing.cluster import two_nodes

        with two_nodes() as address:
            yield {"resources": {"address": address, "cpus_per_trial": 1}}
    elif kind.name == "trainer eats memory":
        memory = psutil.virtual_memory()
        threshold = (memory.total - memory.available + EATEN_MIB / 2 * 2**20) / memory.total
        monitor = {"RAY_memory_usage_threshold": f"{threshold:.3f}", "RAY_memory_monitor_refresh_ms": "50"}
        yield {"environment": monitor}
    else:
        yield {}


def _trouble(kind: str, **budget: Any) -> Callable[[Random], Change]:
    def change(draw: Random) -> Change:
        return {"settings": {"trouble": {"kind": kind, "trial": draw.randint(0, 4), "unit": 0}}, "budget": budget}

    return change


def _failing(reason: str) -> Callable[[Sweep], Mapping[int, str]]:
    return lambda sweep: {sweep.settings["trouble"]["trial"]: reason}


def _remove_node(driver: Driver, sweep: Sweep, draw: Random) -> Struck | None:
    from killing.cluster import remove_one

    if not striking.wait_until_it_trains(driver, sweep, n_workers=2):
        return None
    time.sleep(draw.uniform(0.0, 0.3))
    remove_one(draw)
    return Struck("while both nodes trained", (0,), ends=False)


RAISED, EXITED = "RuntimeError: the shop is closed", "the trainer called sys.exit(3)"


def _of_driver(backend: str, *, random: int, phases: int) -> tuple[Kind, ...]:
    return (
        Kind("driver killed", backend, random, striking.kill_driver, most_strikes=3),
        *(
            Kind(f"driver killed, a trial {phase}", backend, phases, striking.kill_driver_while(phase))
            for phase in PHASES
        ),
    )


KINDS: tuple[Kind, ...] = (
    *_of_driver("ray", random=10, phases=3),
    Kind("driver and all its processes killed", "ray", 5, striking.kill_group),
    *(Kind(f"worker killed, {phase}", "ray", 5, striking.kill_worker_while(phase)) for phase in PHASES),
    Kind("raylet killed", "ray", 4, striking.kill_daemon("raylet"), most_strikes=1),
    Kind("GCS killed", "ray", 4, striking.kill_daemon("gcs_server"), most_strikes=1),
    Kind("SIGTERM at the driver", "ray", 4, striking.interrupt(signal.SIGTERM)),
    Kind("SIGINT at the driver", "ray", 4, striking.interrupt(signal.SIGINT)),
    Kind("SIGINT twice", "ray", 3, striking.interrupt_twice),
    Kind("driver stopped past its lease", "ray", 2, striking.stop_past_lease, most_strikes=1),
    Kind("driver stopped, taken over, woken", "ray", 2, striking.wake_after_take_over, most_strikes=1),
    Kind(
        "trainer raises",
        "ray",
        2,
        striking.make_trouble,
        change=_trouble("raises"),
        failing=_failing(RAISED),
        most_strikes=1,
    ),  # fmt: skip
    Kind(
        "trainer calls sys.exit",
        "ray",
        2,
        striking.make_trouble,
        change=_trouble("exits"),
        failing=_failing(EXITED),
        most_strikes=1,
    ),  # fmt: skip
    Kind("trainer segfaults", "ray", 3, striking.make_trouble, change=_trouble("segfaults"), most_strikes=1),
    Kind("trainer eats memory", "ray", 2, striking.make_trouble, change=_trouble("eats memory"), most_strikes=1),
    Kind(
        "trainer hangs",
        "ray",
        2,
        striking.make_trouble,
        most_strikes=1,
        change=_trouble("hangs", stall_minutes=0.05, retry_on=["lost", "stalled"]),
    ),  # fmt: skip
    Kind("node removed", "ray", 2, _remove_node, most_strikes=1),
    *_of_driver("inline", random=40, phases=10),
    *(Kind(f"driver killed {moment} a write", "inline", 25, moment=moment) for moment in MOMENTS),
    Kind("SIGTERM at the driver", "inline", 5, striking.interrupt(signal.SIGTERM)),
    Kind("SIGINT at the driver", "inline", 5, striking.interrupt(signal.SIGINT)),
    Kind("SIGINT twice", "inline", 5, striking.interrupt_twice),
    Kind("driver stopped past its lease", "inline", 3, striking.stop_past_lease, most_strikes=1),
    Kind("driver stopped, taken over, woken", "inline", 3, striking.wake_after_take_over, most_strikes=1),
    Kind(
        "trainer raises",
        "inline",
        2,
        striking.make_trouble,
        change=_trouble("raises"),
        failing=_failing(RAISED),
        most_strikes=1,
    ),  # fmt: skip
    Kind(
        "trainer calls sys.exit",
        "inline",
        2,
        striking.make_trouble,
        change=_trouble("exits"),
        failing=_failing(EXITED),
        most_strikes=1,
    ),  # fmt: skip
)
