"""What a sweep holds on disk, and making room: what the verb `artifacts` does.

In: a results database, a sweep, perhaps another policy than the sweep's own. Out: holdings; fewer files.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass

from finesweep.errors import FinesweepError
from finesweep.holdings import Holding, find_holdings
from finesweep.layout import size_of, unknown_dir
from finesweep.results.frames import Results
from finesweep.results.lease import Holder
from finesweep.results.writer import open_writer
from finesweep.retention import free
from finesweep.spec.artifact_rules import keep_problem
from finesweep.spec.sweep import Keep


@dataclass(frozen=True, slots=True)
class Stock:
    """What all trials of a sweep hold."""

    holdings: tuple[Holding, ...]
    keep: Keep  # the policy that it is seen by
    quota_bytes: int | None
    unknown_bytes: int  # of trials set aside, that the database does not know


def take_stock(known: Results, sweep: str, *, keep: Keep | None = None, is_driven: bool) -> Stock:
    """Look at a sweep's files by its own policy or another. Raises FinesweepError for one that cannot be kept."""
    spec = known.spec(sweep)
    artifact_dir = known.artifact_dir(sweep)
    chosen = spec.artifacts.keep if keep is None else keep
    problem = keep_problem(chosen, n_objectives=len(spec.study.objectives))
    if problem is not None:
        raise FinesweepError(f"--keep {problem}")
    trials = known.history(sweep).trials
    found = find_holdings(artifact_dir, trials, spec.study.objectives, chosen, is_driven=is_driven)
    return Stock(tuple(found), chosen, spec.artifacts.quota_bytes, size_of(unknown_dir(artifact_dir)))


def make_room(known: Results, sweep: str, *, keep: Keep | None = None) -> None:
    """Remove what the sweep's policy, or another, does not keep and nobody needs to go on with.

    Raises SweepHeldError while the sweep is driven; nobody can begin to drive it meanwhile. Raises FinesweepError where
    the database names a folder that is not called like the sweep, and so is none of ours.
    """
    folder = known.artifact_dir(sweep)
    if folder.name != sweep:
        raise FinesweepError(f"{folder} is no folder of sweep {sweep!r}: nothing is removed there.")
    with open_writer(known.url) as writer:
        writer.acquire(sweep, Holder.this_process())
        try:
            stock = take_stock(known, sweep, keep=keep, is_driven=False)
            free(stock.holdings, removed=lambda number: writer.remove_artifacts(sweep, number))
            shutil.rmtree(unknown_dir(folder), ignore_errors=True)
        finally:
            writer.release(sweep)
