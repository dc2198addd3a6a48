"""The faults themselves: what is done to a sweep while it is driven, and when.

In: a driver and its sweep, a source of chance. Out: a `Struck` for a fault that came in time, None for one that found
the sweep over. It must not know what is right afterwards.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random

import psutil

from killing.sweep import NAME, Driver, Sweep, patience

Strike = Callable[[Driver, Sweep, Random], "Struck | None"]


@dataclass(frozen=True, slots=True)
class Struck:
    """A fault that was brought about."""

    what: str  # the fault as it was in the end: a worker may have gone on to its next phase
    codes: tuple[int, ...]  # how the driver may end after it
    says: str | None = None  # what it must have said then
    wrong: str | None = None  # what should not have come of it


def wait_until_it_trains(driver: Driver, sweep: Sweep, *, n_workers: int = 1) -> bool:
    """Wait until trials run; tell whether they still do."""
    with patience("the first trial") as turn:
        while len(sweep.phases()) < n_workers:
            if driver.is_over:
                return False
            turn()
    return True


def moment(driver: Driver, sweep: Sweep, draw: Random) -> bool:
    """Let some time pass: mostly while trials run, sometimes while the driver starts. Tell whether it still runs."""
    if draw.random() < 0.2:
        time.sleep(draw.uniform(0.0, 5.0 if sweep.backend == "ray" else 0.3))
    else:
        wait_until_it_trains(driver, sweep)
        time.sleep(draw.uniform(0.0, 0.8 * sweep.n_trials * sweep.pause_s * 6 / sweep.n_slots))
    return not driver.is_over


def process_in(phase: str, driver: Driver, sweep: Sweep, draw: Random) -> int | None:
    """Find a process that has just come to a phase of its trial, some phases from now; None where the driver ends."""
    met: set[tuple[int, str, int]] = set()
    skipped = draw.randint(0, 5)
    with patience(f"a trial that is {phase}") as turn:
        while not driver.is_over:
            for pid, (name, number) in sweep.phases().items():
                if name == phase and (pid, name, number) not in met:
                    met.add((pid, name, number))
                    if len(met) > skipped and psutil.pid_exists(pid):
                        return pid
            turn()
    return None


# --- deaths of the driver ------------------------------------------------------------------------------------------


def kill_driver(driver: Driver, sweep: Sweep, draw: Random) -> Struck | None:
    if not moment(driver, sweep, draw):
        return None
    driver.send(signal.SIGKILL)
    return Struck("random moment", (-signal.SIGKILL,))


def kill_driver_while(phase: str) -> Strike:
    def strike(driver: Driver, sweep: Sweep, draw: Random) -> Struck | None:
        pid = process_in(phase, driver, sweep, draw)
        if pid is None:
            return None
        driver.send(signal.SIGKILL)
        return Struck(f"while a trial was {phase}", (-signal.SIGKILL,))

    return strike


def kill_group(driver: Driver, sweep: Sweep, draw: Random) -> Struck | None:
    """Kill the driver and everything that it has started at once, as the end of a container does."""
    if not moment(driver, sweep, draw):
        return None
    with contextlib.suppress(psutil.NoSuchProcess):
        everybody = [psutil.Process(driver.pid), *psutil.Process(driver.pid).children(recursive=True)]
        for process in everybody:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
    return Struck("random moment", (-signal.SIGKILL,))


# --- deaths beside the driver --------------------------------------------------------------------------------------


def kill_worker_while(phase: str) -> Strike:
    def strike(driver: Driver, sweep: Sweep, draw: Random) -> Struck | None:
        pid = process_in(phase, driver, sweep, draw)
        if pid is None:
            return None
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return None
        told = sweep.phases().get(pid)
        died_in = told[0] if told is not None else phase
        return Struck(f"while {died_in}", (0,))

    return strike


def kill_daemon(name: str) -> Strike:
    """Kill one of Ray's own processes."""

    def strike(driver: Driver, sweep: Sweep, draw: Random) -> Struck | None:
        if not wait_until_it_trains(driver, sweep):
            return None
        time.sleep(draw.uniform(0.0, 0.6))
        try:
            children = psutil.Process(driver.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return None
        for process in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.name() == name and not driver.is_over:
                    process.kill()
                    # Without a GCS Ray itself ends the driver, before that can say anything.
                    says = "finesweep resume" if name == "raylet" else "GCS may have been killed"
                    return Struck("while trials ran", (1,), says=says)
        return None

    return strike


# --- signals -------------------------------------------------------------------------------------------------------


def interrupt(number: signal.Signals) -> Strike:
    def strike(driver: Driver, sweep: Sweep, draw: Random) -> Struck | None:
        if not wait_until_it_trains(driver, sweep):
            return None
        time.sleep(draw.uniform(0.0, 0.4 * sweep.n_trials * sweep.pause_s * 6 / sweep.n_slots))
        driver.send(number)
        return Struck("while trials ran", (130,), says="finesweep resume")

    return strike


def interrupt_twice(driver: Driver, sweep: Sweep, draw: Random) -> Struck | None:
    struck = interrupt(signal.SIGINT)(driver, sweep, draw)
    if struck is not None:
        time.sleep(draw.uniform(0.01, 0.2))
        driver.send(signal.SIGINT)
    return struck


def stop_past_lease(driver: Driver, sweep: Sweep, draw: Random) -> Struck | None:
    """Stop the driver (SIGSTOP), let its lease run out, see another one refused, and let it go on.

    The lease is not waited for: the minute that it has is taken off it in the database.
    """
    if not wait_until_it_trains(driver, sweep):
        return None
    time.sleep(draw.uniform(0.0, 0.2))
    other = _second_driver(driver, sweep)
    if other is None:
        return None
    code = other.wait()
    driver.send(signal.SIGCONT)
    refused = code == 2 and "is driven by process" in other.output
    wrong = None if refused else f"another resume ended with {code}: {other.output[-500:]}"
    return Struck("another one resumed it", (0,), wrong=wrong)


def wake_after_take_over(driver: Driver, sweep: Sweep, draw: Random) -> Struck | None:
    """Stop the driver, have another one take the sweep over and finish it, then wake the first: it stores nothing."""
    if not wait_until_it_trains(driver, sweep):
        return None
    time.sleep(draw.uniform(0.0, 0.2))
    other = _second_driver(driver, sweep, "--take-over")
    if other is None:
        return None
    code = other.wait()
    driver.send(signal.SIGCONT)
    wrong = None if code == 0 else f"the one that took over ended with {code}: {other.output[-500:]}"
    return Struck("taken over, then woken", (2,), says="was taken over by", wrong=wrong)


def _second_driver(driver: Driver, sweep: Sweep, *more: str) -> Driver | None:
    """Stop the driver between two writes: one that is stopped within a write holds the database for everybody."""
    with patience("a moment between two writes") as turn:
        while not driver.is_over:
            driver.send(signal.SIGSTOP)
            try:
                if sweep.is_known():
                    sweep.execute("update finesweep_sweeps set expires_at = expires_at - 3600")
                    return sweep.start("resume", NAME, *more)
            except sqlite3.OperationalError:
                pass
            driver.send(signal.SIGCONT)
            turn()
    return None


# --- troubles of the trainer ---------------------------------------------------------------------------------------

ENDINGS: Mapping[str, str] = {  # how the attempt ends in which a trainer makes a trouble
    "raises": "failed",
    "exits": "failed",
    "segfaults": "lost",
    "eats memory": "lost",
    "hangs": "stalled",
}


def make_trouble(driver: Driver, sweep: Sweep, draw: Random) -> Struck | None:
    """Let the trainer do what its sweep tells it to, and see by what is stored of its attempt that it did."""
    trouble = sweep.settings["trouble"]
    with patience("the trial in trouble") as turn:
        while not driver.is_over:
            turn()
    attempts = f"select ending from finesweep_attempts where number = {trouble['trial']} and attempt = 1"
    if sweep.is_known() and sweep.rows(attempts) == [(ENDINGS[trouble["kind"]],)]:
        return Struck("in a trial", (0,))
    return None
