"""Results for notebooks and scripts: the frames of `results.frames`, what follows from them, and plots."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from finesweep.errors import ResultsError
from finesweep.results import frames
from finesweep.results.columns import typed_frame
from finesweep.results.url import redacted
from finesweep.search.importance import Importance, importances
from finesweep.verification.record import verification_of
from finesweep.views import plots
from finesweep.views.printing import html_table
from finesweep.views.report import report_html
from finesweep.views.tables import best_first, sweeps_table

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

IMPORTANCE_COLUMNS = {
    "parameter": "string",  # under the study's name: a branch's own range is "lora.learning_rate"
    "importance": "float64",  # share; they add up to one
    "low": "float64",  # of a 90 % bootstrap interval over the trials
    "high": "float64",
    "n_trials": "Int64",  # COMPLETE trials that had this parameter
}


def open_results(url: str | Path | None = None, *, clock: Callable[[], float] = time.time) -> Results:
    """Open a results database to read: a path, an sqlite:/// or postgresql:// URL; else what FINESWEEP_RESULTS names.

    Raises ResultsError.
    """
    known = frames.open_results(url or os.environ.get("FINESWEEP_RESULTS"), clock=clock)
    return Results(known.url, known.clock)


@dataclass(frozen=True, slots=True, repr=False)
class Results(frames.Results):
    """What the database holds, as frames with documented columns, and what can be said of it."""

    @property
    def plot(self) -> Plots:
        """Give the plots, each a plotly figure: `results.plot.curves("tickets")`. Needs finesweep[dashboard]."""
        return Plots(self)

    def pareto(self, sweep: str) -> pd.DataFrame:
        """Give the COMPLETE trials that no other beats, best first; with one objective the best alone."""
        study = self.spec(sweep).study
        trials = best_first(self.trials(sweep), maximize=study.objective.direction == "maximize")
        front = [trial.number for trial in self.front(sweep)]
        return trials[trials["number"].isin(front)].reset_index(drop=True)

    def importances(self, sweep: str, *, metric: str | None = None) -> pd.DataFrame:
        """Tell which parameters decide the objective, or another metric of those; columns as IMPORTANCE_COLUMNS.

        Over the COMPLETE trials that were trained, by PED-ANOVA: what pruning took out is not seen. No rows where there
        is too little to go by. Raises ResultsError for a metric that is no objective.
        """
        objectives = {objective.metric: objective for objective in self.spec(sweep).study.objectives}
        name = metric or next(iter(objectives))
        if name not in objectives:
            raise ResultsError(f"{name!r} is no objective of sweep {sweep!r}. It has {', '.join(objectives)}.")
        found = importances(self.history(sweep).trials, objectives[name])
        return typed_frame(IMPORTANCE_COLUMNS, [tuple(asdict(one).values()) for one in found])

    def verification(self, sweep: str) -> Mapping[str, Any] | None:
        """Give what the latest verification of a sweep found: mean, intervals, gain; None if none is over.

        Keys are those of exports: mean, std, interval, prediction_interval, split, baseline, difference, arms, ...
        """
        return verification_of(self, sweep)

    def report(self, sweep: str) -> str:
        """Write a sweep as one HTML page that opens without a network. Needs finesweep[dashboard]."""
        return report_html(self, sweep, self.importances(sweep))

    def __repr__(self) -> str:
        return f"Results({redacted(self.url)!r})"

    def _repr_html_(self) -> str:
        """Show the sweeps, for a notebook."""
        return f"<p><code>{escape(repr(self))}</code></p>\n{html_table(sweeps_table(self))}"


@dataclass(frozen=True, slots=True)
class Plots(plots.Plots):
    """Plots of the sweeps of a results database. Each raises ResultsError where there is nothing to show."""

    results: Results

    def importance(self, sweep: str, *, metric: str | None = None) -> Figure:
        """Draw how much each parameter matters, with a 90 % interval; see `Results.importances`."""
        return plots.importance_figure(sweep, self.results.importances(sweep, metric=metric))


assert [field.name for field in fields(Importance)] == list(IMPORTANCE_COLUMNS), "a row is an Importance"
