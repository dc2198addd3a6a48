"""A trainer of one's own that can be killed at a chosen moment, and whose every value can be computed again.

In: a trial with a `rate`; under `training` the `place` of a round, the `pause_s` of each phase and perhaps a `trouble`
to make. Out: reports; in the place, which phase each process is in and a line for every unit trained. No torch. The
module is copied beside the sweep file, as a user's would be: it imports nothing of the benchmarks.
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

N_REPORTS = 4  # of a trial that is trained to its end
EVERY = 100  # examples between them
PHASES = ("training", "evaluating", "checkpointing")
CHECKPOINT = "state.json"
HANG_S = 600.0
EATEN_MIB = 6144  # far more than what others on the machine may take or give back meanwhile
MEASURING = "score"


def score(rate: float, n_units: int) -> float:
    """Compute what a trial reports after so many units of training: a chaotic map, so a lost or doubled unit shows."""
    state = 0.5
    for _ in range(n_units):
        state = trained(state, rate)
    return state


def trained(state: float, rate: float) -> float:
    return (3.6 + 0.39 * rate) * state * (1 - state)


def train(trial: Any, reporter: Any) -> None:
    """Train, evaluate, report, write a checkpoint, and so on; go on from the last checkpoint there is."""
    place = Place(Path(trial.settings["place"]), trial.number, pause_s=trial.settings["pause_s"])
    checkpoint = trial.folder / CHECKPOINT
    n_units, state = json.loads(checkpoint.read_text()) if checkpoint.exists() else (0, 0.5)
    while n_units < N_REPORTS:
        with place.phase("training"):
            make_trouble(trial, n_units, trial.settings.get("trouble"))
            state = trained(state, trial.configuration["rate"])
            n_units += 1
            place.note_unit(trial.attempt, n_units)
        with place.phase("evaluating"):
            pass
        decision = reporter.report(n_units * EVERY, {MEASURING: state})
        write_checkpoint(place, checkpoint, json.dumps([n_units, state]))
        if decision.must_return:
            return


def write_checkpoint(place: Place, path: Path, text: str) -> None:
    """Write a file beside and move it into place; a kill in between leaves half of it beside."""
    beside = path.with_suffix(".half-written")
    with beside.open("w") as file:
        file.write(text[: len(text) // 2])
        file.flush()
        with place.phase("checkpointing"):
            file.write(text[len(text) // 2 :])
            file.flush()
            os.fsync(file.fileno())
    beside.replace(path)


class Place:
    """What a trial tells those who want to kill it, and those who look afterwards."""

    def __init__(self, folder: Path, number: int, *, pause_s: float) -> None:
        self._folder, self._number, self._pause_s = folder, number, pause_s

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Be in a phase: announced, and as long as a pause."""
        (self._folder / "phases" / str(os.getpid())).write_text(f"{name} {self._number} .")
        time.sleep(self._pause_s)
        yield

    def note_unit(self, attempt: int, unit: int) -> None:
        with (self._folder / "work.txt").open("a") as file:  # one write: lines of several workers do not mix
            file.write(f"{self._number} {attempt} {unit}\n")


def make_trouble(trial: Any, n_units: int, trouble: Mapping[str, Any] | None) -> None:
    """Do what the sweep tells this trial to do wrong, in its first attempt, after so many units."""
    if trouble is None or trial.attempt > 1 or (trial.number, n_units) != (trouble["trial"], trouble["unit"]):
        return
    match trouble["kind"]:
        case "raises":
            raise RuntimeError("the shop is closed")
        case "exits":
            sys.exit(3)
        case "segfaults":
            ctypes.string_at(0)
        case "hangs":
            time.sleep(HANG_S)
        case "eats memory":
            eaten = bytearray(EATEN_MIB * 2**20)
            eaten[::4096] = b"x" * math.ceil(len(eaten) / 4096)  # touched, or it is not there
            time.sleep(HANG_S)
