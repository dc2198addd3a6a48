"""The page that puts sweeps side by side; those judged on other data or by another objective stand apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from finesweep.dashboard.figures import best_so_far_figure, figure_json, front_figure
from finesweep.dashboard.page import Grid, grid_of, rendered, results_of, sweep_link, trial_link
from finesweep.errors import ResultsError
from finesweep.results.frames import Results
from finesweep.views.compare import Judge, compare, comparison_tables, judges_of
from finesweep.views.selection import Selection

MOST_SWEEPS = 20
MOST_TRIALS = 100  # of a group, the best first


@dataclass(frozen=True, slots=True)
class Group:
    """Sweeps that can be ranked together: one objective, one set of validation data."""

    title: str
    sweeps: Sequence[str]
    best: Grid
    trials: Grid
    n_trials: int
    has_front: bool


def page(request: Request) -> Response:
    """Compare the sweeps that the address names."""
    results = results_of(request)
    names = _names(request)
    known = [str(name) for name in results.sweeps()["sweep"]][::-1]
    groups = list(_groups(results, names))
    return HTMLResponse(rendered("compare.html", request, known=known, chosen=names, groups=groups, most=MOST_TRIALS))


def figure(request: Request) -> str:
    """Give a plot of sweeps that are ranked together. Raises ResultsError where there is nothing to draw."""
    results, names, axis = results_of(request), _names(request), request.path_params["axis"]
    if not names or axis not in ("trials", "examples", "hours", "front"):
        raise ResultsError("Name the sweeps, and what they are drawn against: trials, examples, hours or front.")
    for name in names:
        results.spec(name)  # raises for a name that is not there

    if axis == "front":
        return figure_json(front_figure(results, names))
    return figure_json(best_so_far_figure(results, names, axis))


def _names(request: Request) -> list[str]:
    return list(dict.fromkeys(request.query_params.getlist("sweep")))[:MOST_SWEEPS]


def _groups(results: Results, names: Sequence[str]) -> Iterator[Group]:
    by_judge: dict[Judge, list[str]] = {}
    for name, judge in judges_of(results, names).items():
        by_judge.setdefault(judge, []).append(name)
    n_data = len({judge.data for judge in by_judge})
    for judge, sweeps in by_judge.items():
        comparison = compare(results, sweeps)
        best, trials = comparison_tables(comparison, selection=Selection(top=MOST_TRIALS))
        said = ", ".join(f"{metric} ({direction})" for metric, direction in judge.objectives)
        yield Group(
            title=f"{said}, {judge.data}" if n_data > 1 else said,
            sweeps=sweeps,
            best=grid_of(best, link=_link(sweeps)),
            trials=grid_of(trials, link=_link(sweeps)),
            n_trials=len(comparison.trials),
            has_front=len(judge.objectives) > 1,
        )


def _link(sweeps: Sequence[str]) -> Any:
    def link(row: Any, key: str) -> str | None:
        sweep = row.get("sweep", sweeps[0])
        match key:
            case "sweep":
                return sweep_link(sweep)
            case "number":
                return trial_link(sweep, row["number"])
            case "best_trial":
                return trial_link(sweep, row["best_trial"])
            case _:
                return None

    return link
