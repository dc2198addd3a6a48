"""Run the arms of a benchmark one after another, each in a process of its own, and measure what each costs.

In: arms, functions of a folder that return JSON values; what they need stands in the folder's settings.json. Out: what
they returned and a `Cost`. It must not know what an arm does.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
from tables import Aim, Report, Table

Arm = Callable[[Path], Any]

RESULTS_DIR = Path(__file__).parent / "results"
SAMPLE_EVERY_S = 0.2  # a process's last moments, up to this long, are not counted
STOP_AFTER_S, KILL_AFTER_S = 30.0, 5.0  # for what an arm leaves running
NOISE = 0.1  # share of the machine that others may take before a run is called preliminary
PACKAGES = ("finesweep", "ray", "optuna", "transformers", "torch", "datasets", "accelerate")


@dataclass(frozen=True, slots=True)
class Cost:
    """What an arm cost, seen from outside. Memory is resident size; pages that processes share count in each."""

    wall_s: float  # from the launch of the process to its end
    cpu_s: float  # of the process and all its descendants, sampled
    driver_mib: float  # peak of the process itself
    worker_mib: float | None  # peak of the largest Ray worker
    others: float  # share of the machine's CPU time that went to processes of others meanwhile


@dataclass(frozen=True, slots=True)
class Ran:
    answer: Any  # what the arm returned
    cost: Cost
    launched_at: float  # seconds since the epoch


def serve(arms: Mapping[str, Arm]) -> None:
    """Run one arm and end, where this process was launched to do that; a script calls it first of all."""
    if sys.argv[1:2] == ["--arm"]:
        name, folder = sys.argv[2], Path(sys.argv[3])
        answer = arms[name](folder)
        (folder / "answer.json").write_text(json.dumps(answer), encoding="utf-8")
        sys.exit()


def options(doc: str | None) -> argparse.ArgumentParser:
    """Make the parser of a benchmark's options, with those that all of them have.

    From here on SIGTERM ends the benchmark as Ctrl-C does, and what it has started with it.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slots", type=int, default=2, help="trials at once")
    parser.add_argument("--results-dir", type=Path, default=RESULTS_DIR, help="where what was measured is kept")
    return parser


def settings_of(folder: Path) -> dict[str, Any]:
    settings: dict[str, Any] = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    return settings


def run_arm(
    script: str,
    arm: str,
    folder: Path,
    settings: Mapping[str, Any],
    *,
    environment: Mapping[str, str] | None = None,
    timeout_s: float = 3600,
) -> Ran:
    """Run an arm of a script in a new process and a new folder. Raises RuntimeError where it fails, with its output."""
    folder.mkdir(parents=True)
    (folder / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    say(f"{arm} ...")
    adopt_orphans()
    output = folder / "output.txt"
    before, launched_at = _machine_busy_s(), time.time()
    began_s = time.perf_counter()
    with output.open("w", encoding="utf-8") as out:
        process = subprocess.Popen(
            [sys.executable, script, "--arm", arm, str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**_environment(), **(environment or {})},
        )
        sampler = _Sampler(process.pid)
        sampler.start()
        is_over = False
        try:
            code = process.wait(timeout_s)
            is_over = True
        finally:
            wall_s = time.perf_counter() - began_s
            _end_all(patience_s=STOP_AFTER_S if is_over else 0.0)
            sampler.stop()
    if code != 0 or not (folder / "answer.json").exists():
        last = output.read_text(encoding="utf-8", errors="replace")[-4000:]
        raise RuntimeError(f"arm {arm} of {script} ended with code {code}:\n{last}")
    elapsed_s = time.perf_counter() - began_s
    others_s = _machine_busy_s() - before - sampler.cpu_s() - sampler.own_cpu_s
    cost = Cost(
        wall_s=wall_s,
        cpu_s=sampler.cpu_s(),
        driver_mib=sampler.driver_mib,
        worker_mib=sampler.worker_mib,
        others=max(0.0, others_s / (elapsed_s * (os.cpu_count() or 1))),
    )
    say(f"{arm}: {cost.wall_s:.1f} s, {cost.cpu_s:.1f} CPU-s, others took {cost.others:.0%} of the machine")
    return Ran(json.loads((folder / "answer.json").read_text(encoding="utf-8")), cost, launched_at)


def _environment() -> dict[str, str]:
    """Give every arm the same: no hub, no statistics sent; numbers of threads are left to who starts workers."""
    fixed = {
        "TOKENIZERS_PARALLELISM": "false",
        "RAY_USAGE_STATS_ENABLED": "0",
        "HF_HUB_OFFLINE": "1",
        "PYTHONUNBUFFERED": "1",
    }
    return {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"} | fixed


def finish(
    name: str,
    *,
    tables: tuple[Table, ...],
    aims: tuple[Aim, ...],
    notes: tuple[str, ...],
    ran: Mapping[str, Ran],
    results_dir: Path,
) -> None:
    """Print a benchmark's tables and keep them, with all that was measured, in a file named for it."""
    noisy = {arm: r.cost.others for arm, r in ran.items() if r.cost.others > NOISE}
    if noisy:
        taken = f"{min(noisy.values()):.0%} to {max(noisy.values()):.0%}"
        notes = (f"PRELIMINARY: other work took {taken} of the machine while {', '.join(noisy)} ran", *notes)
    report = Report(
        name=name,
        command=shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
        machine=machine(),
        tables=tables,
        aims=aims,
        notes=notes,
        measured={arm: {"cost": asdict(r.cost), "answer": r.answer} for arm, r in ran.items()},
    )
    results_dir.mkdir(parents=True, exist_ok=True)
    path = results_dir / f"{report.name}.json"
    path.write_text(json.dumps(report.values(), indent=1) + "\n", encoding="utf-8")
    print(report.text())
    say(f"kept in {path}; docs/benchmarks.md is made anew by benchmarks/document.py")


def machine() -> tuple[str, ...]:
    memory = psutil.virtual_memory().total / 2**30
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES)
    return (
        f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores {_processor()}, {memory:.0f} GiB, {platform.system()}",
        f"Python {platform.python_version()}, {versions}",
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def say(text: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


# --- what an arm and its descendants cost ------------------------------------------------------------------------


def adopt_orphans() -> None:
    """Become the parent of what an arm's processes leave behind: Ray's daemons outlive the process that starts them."""
    if sys.platform == "linux":
        set_child_subreaper = 36  # PR_SET_CHILD_SUBREAPER, prctl(2)
        ctypes.CDLL(None).prctl(set_child_subreaper, 1, 0, 0, 0)


class _Sampler(threading.Thread):
    """Looks at all descendants of this process, several times a second, and remembers the most of each."""

    def __init__(self, driver_pid: int) -> None:
        super().__init__(daemon=True)
        self._driver_pid = driver_pid
        self._cpu_s: dict[psutil.Process, float] = {}  # a process is told from a later one of the same number
        self._is_over = threading.Event()
        self.driver_mib = 0.0
        self.worker_mib: float | None = None
        self.own_cpu_s = 0.0

    def run(self) -> None:
        own_began_s = time.thread_time()
        while not self._is_over.wait(SAMPLE_EVERY_S):
            for process in psutil.Process().children(recursive=True):
                self._look(process)
            self.own_cpu_s = time.thread_time() - own_began_s

    def stop(self) -> None:
        self._is_over.set()
        self.join()

    def cpu_s(self) -> float:
        return sum(self._cpu_s.values())

    def _look(self, process: psutil.Process) -> None:
        try:
            with process.oneshot():
                times, mib, name = process.cpu_times(), process.memory_info().rss / 2**20, process.name()
        except psutil.Error:
            return
        self._cpu_s[process] = times.user + times.system
        if process.pid == self._driver_pid:
            self.driver_mib = max(self.driver_mib, mib)
        elif name.startswith("ray::"):
            self.worker_mib = max(self.worker_mib or 0.0, mib)


def _end_all(*, patience_s: float) -> None:
    """Wait for what an arm has left running, then end it: the next arm has the machine to itself."""
    psutil.wait_procs(psutil.Process().children(recursive=True), timeout=patience_s)
    for end in (psutil.Process.terminate, psutil.Process.kill):
        left = psutil.Process().children(recursive=True)
        for process in left:
            _try(end, process)
        psutil.wait_procs(left, timeout=KILL_AFTER_S)


def _try(act: Callable[[psutil.Process], object], process: psutil.Process) -> None:
    try:
        act(process)
    except psutil.NoSuchProcess:
        return


def _machine_busy_s() -> float:
    times = psutil.cpu_times()
    return sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0)
