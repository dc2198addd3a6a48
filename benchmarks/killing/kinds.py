"""The kinds of faults, on which backend each is tried, and how many rounds of it make a full run.

In: nothing. Out: `KINDS`. What a kind needs around its sweep, a cluster or a limit of memory, is here too.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import Any

import psutil

from killing import striking
from killing.interrupting import MOMENTS
from killing.striking import Strike, Struck
from killing.sweep import Driver, Sweep
from killing.trainer import EATEN_MIB, PHASES

Change = dict[str, Any]  # further arguments of a Sweep
RAISED, EXITED = "RuntimeError: the shop is closed", "the trainer called sys.exit(3)"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault, on a backend, and how many rounds of it make a full run."""

    name: str
    backend: str
    n_rounds: int
    strike: Strike | None = None  # None: by an interruption at a write
    moment: str | None = None  # of that write
    change: Callable[[Random], Change] = lambda draw: {}
    fails_with: str | None = None  # how the reason begins of the trial that is in trouble
    most_strikes: int = 2

    @property
    def key(self) -> str:
        return f"{self.backend}: {self.name}"

    def failing(self, sweep: Sweep) -> Mapping[int, str]:
        """Tell which trials are to fail, and how their reason begins."""
        return {} if self.fails_with is None else {sweep.settings["trouble"]["trial"]: self.fails_with}


@contextmanager
def around(kind: Kind) -> Iterator[Change]:
    """Give what a kind needs besides: a cluster, a limit of memory."""
    if kind.strike is _remove_node:
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


def _in_trouble(
    name: str, backend: str, n_rounds: int, kind: str, *, fails_with: str | None = None, **budget: Any
) -> Kind:
    def change(draw: Random) -> Change:
        return {"settings": {"trouble": {"kind": kind, "trial": draw.randint(0, 4), "unit": 0}}, "budget": budget}

    strike = striking.make_trouble
    return Kind(name, backend, n_rounds, strike, change=change, fails_with=fails_with, most_strikes=1)


def _remove_node(driver: Driver, sweep: Sweep, draw: Random) -> Struck | None:
    from killing.cluster import remove_one

    if not striking.wait_until_it_trains(driver, sweep, n_workers=2):
        return None
    time.sleep(draw.uniform(0.0, 0.3))
    remove_one(draw)
    return Struck("while both nodes trained", (0,))


def _on_both(backend: str, *, n_random: int, n_phases: int, n_signals: int, n_others: int) -> tuple[Kind, ...]:
    killed_while = striking.kill_driver_while
    return (
        Kind("driver killed", backend, n_random, striking.kill_driver, most_strikes=3),
        *(Kind(f"driver killed, a trial {phase}", backend, n_phases, killed_while(phase)) for phase in PHASES),
        Kind("SIGTERM at the driver", backend, n_signals, striking.interrupt(signal.SIGTERM)),
        Kind("SIGINT at the driver", backend, n_signals, striking.interrupt(signal.SIGINT)),
        Kind("SIGINT twice", backend, n_signals, striking.interrupt_twice),
        Kind("driver stopped past its lease", backend, n_others, striking.stop_past_lease, most_strikes=1),
        Kind("driver stopped, taken over, woken", backend, n_others, striking.wake_after_take_over, most_strikes=1),
        _in_trouble("trainer raises", backend, n_others, "raises", fails_with=RAISED),
        _in_trouble("trainer calls sys.exit", backend, n_others, "exits", fails_with=EXITED),
    )


KINDS: tuple[Kind, ...] = (
    *_on_both("ray", n_random=10, n_phases=3, n_signals=4, n_others=2),
    Kind("driver and all its processes killed", "ray", 5, striking.kill_group),
    *(Kind(f"worker killed, {phase}", "ray", 5, striking.kill_worker_while(phase)) for phase in PHASES),
    Kind("raylet killed", "ray", 4, striking.kill_daemon("raylet"), most_strikes=1),
    Kind("GCS killed", "ray", 4, striking.kill_daemon("gcs_server"), most_strikes=1),
    _in_trouble("trainer segfaults", "ray", 3, "segfaults"),
    _in_trouble("trainer eats memory", "ray", 2, "eats memory"),
    _in_trouble("trainer hangs", "ray", 2, "hangs", stall_minutes=0.05, retry_on=["lost", "stalled"]),
    Kind("node removed", "ray", 2, _remove_node, most_strikes=1),
    *_on_both("inline", n_random=40, n_phases=10, n_signals=5, n_others=3),
    *(Kind(f"driver killed {moment} a write", "inline", 25, moment=moment) for moment in MOMENTS),
)
