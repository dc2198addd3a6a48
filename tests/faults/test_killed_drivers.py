"""Drivers killed at their writes, signalled, stopped and taken over: real processes, forked from one that is warm."""

from __future__ import annotations

import signal
from itertools import count
from pathlib import Path

import pytest
from killing.checks import examine, finished_rows
from killing.interrupting import MOMENTS, Interruption
from killing.kinds import KINDS
from killing.rounds import run_round
from killing.sweep import Sweep

ROUNDS = {kind.key: kind for kind in KINDS}


def die_at_writes(folder: Path, moment: str, *, first: int, every: int) -> int:
    """Kill a driver at every so many writes, another one each time, resume, and look; count the kills."""
    for write in count(first, every):
        sweep = Sweep(folder / f"{moment}-{write}", "inline", n_trials=3, n_slots=1, pause_s=0.0, seed=write)
        code = sweep.go_on(Interruption(write, moment)).wait()
        if code == 0:  # it made fewer writes than that
            return (write - first) // every
        assert code == -signal.SIGKILL
        before = finished_rows(sweep)
        resumed = sweep.go_on()
        assert resumed.wait() == 0, resumed.output
        assert examine(sweep, before=[before]).all == [], f"killed {moment} write {write}"
    raise AssertionError("never ends")


@pytest.mark.parametrize(("first", "moment"), list(enumerate(MOMENTS)))
def test_a_driver_killed_at_a_write_is_resumed_to_a_whole_sweep(tmp_path: Path, first: int, moment: str) -> None:
    """The moments share the writes of a sweep among them."""
    assert die_at_writes(tmp_path, moment, first=3 * first, every=9) >= 3


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_driver_killed_at_any_write_is_resumed_to_a_whole_sweep(tmp_path: Path, moment: str) -> None:
    assert die_at_writes(tmp_path, moment, first=0, every=1) >= 30


@pytest.mark.parametrize(
    "key",
    [
        "inline: SIGTERM at the driver",  # exit 130, and how to resume
        "inline: SIGINT twice",
        "inline: driver stopped past its lease",  # another one is refused
        "inline: driver stopped, taken over, woken",  # it stores nothing more
    ],
)
def test_a_struck_driver_leaves_a_sweep_that_is_resumed_whole(key: str) -> None:
    outcome = run_round(ROUNDS[key], seed=0)
    assert outcome.struck
    assert outcome.is_clean, outcome.found


@pytest.mark.slow
@pytest.mark.parametrize(
    "key", ["ray: GCS killed", "ray: node removed", "ray: trainer eats memory", "ray: trainer hangs"]
)
def test_what_dies_beside_the_driver_costs_no_trial(key: str) -> None:
    outcome = run_round(ROUNDS[key], seed=0)
    assert outcome.struck
    assert outcome.is_clean, outcome.found
