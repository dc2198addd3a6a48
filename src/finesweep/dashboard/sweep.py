"""The page of a sweep: findings, running trials, plots, the table of trials, failures. And its parts, one by one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pandas as pd
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from finesweep.dashboard import control
from finesweep.dashboard.cached import CachedResults
from finesweep.dashboard.figures import (
    MOST_CURVES,
    MOST_LINES,
    best_so_far_figure,
    curves_figure,
    figure_json,
    parallel_lines,
    slice_figure,
)
from finesweep.dashboard.home import kept_cost, sweep_lines
from finesweep.dashboard.page import Grid, Head, grid_of, rendered, results_of, sweep_link, trial_link, with_query
from finesweep.errors import ResultsError
from finesweep.events import DEVICE_USE, TrialState
from finesweep.results.objectives import value_text
from finesweep.verification.found import Outcome
from finesweep.verification.outcome import known_outcome
from finesweep.verification.plan import verifications
from finesweep.views.failures import failure_groups
from finesweep.views.findings import Finding, findings
from finesweep.views.picture import configuration_text, memory_text
from finesweep.views.plots import importance_figure
from finesweep.views.printing import sparkline
from finesweep.views.running import read_running
from finesweep.views.selection import Selection
from finesweep.views.tables import best_first, trials_table
from finesweep.views.verified import verification_table

ROWS = 100  # of the table of trials, on a page
MOST_GROUPS = 20  # of failures
MOST_RUNNING = 50
MOST_BARS = 1000  # attempts in the timeline, the last ones
CURVE_WIDTH = 24  # characters


def page(request: Request) -> Response:
    """Show a sweep."""
    results, sweep = results_of(request), _name(request)
    study = results.spec(sweep).study
    trials = results.trials(sweep)
    metrics = _metrics(results, sweep, trials)
    head = _head(results, sweep)
    return HTMLResponse(
        rendered(
            "sweep.html",
            request,
            sweep=sweep,
            **head,
            **control.values(request, head["line"]),
            **_findings(results, sweep, with_importance=False),
            **_running(results, sweep),
            **_trials(request, results, sweep),
            **_failures(results, sweep),
            metrics=metrics,
            parameters=list(study.parameters),
            has_front=len(study.objectives) > 1,
            n_trials=len(trials),
            most_curves=MOST_CURVES,
            most_lines=MOST_LINES,
            most_bars=MOST_BARS,
        )
    )


def part(request: Request) -> Response:
    """Give a part of the page, to be put in place of the one shown."""
    results, sweep, name = results_of(request), _name(request), request.path_params["part"]
    match name:
        case "head":
            values = _head(results, sweep)
        case "control":
            [line] = sweep_lines(results, sweep)
            values = control.values(request, line)
        case "findings":
            values = _findings(results, sweep, with_importance=True)
        case "running":
            values = _running(results, sweep)
        case "trials":
            values = _trials(request, results, sweep)
        case "failures":
            values = _failures(results, sweep)
        case _:
            raise HTTPException(404)
    return HTMLResponse(rendered(f"_{name}.html", request, sweep=sweep, **values))


def figure(request: Request) -> str:
    """Give a plot as plotly reads it. Raises ResultsError where there is nothing to draw."""
    results, sweep, name = results_of(request), _name(request), request.path_params["figure"]
    asked = request.query_params.get("of")

    def make() -> str:
        match name:
            case "curves":
                drawn = curves_figure(results, sweep, asked)
            case "importance":
                drawn = importance_figure(sweep, results.importances(sweep))
            case "slice":
                drawn = slice_figure(results, sweep, asked or "")
            case "timeline":
                drawn = results.plot.timeline(sweep, last=MOST_BARS)
            case "devices":
                drawn = results.plot.devices(sweep, of=asked or DEVICE_USE)
            case "pareto":
                drawn = results.plot.pareto(sweep)
            case "best-so-far":
                drawn = best_so_far_figure(results, [sweep], "trials")
            case _:
                raise ResultsError(f"There is no plot {name!r}.")
        return figure_json(drawn)

    return results.kept.get(("figure", sweep, name, asked), results.mark(sweep), make)


def parallel(request: Request) -> str:
    """Give the lines of the parallel coordinates."""
    results, sweep = results_of(request), _name(request)
    make = lambda: json.dumps(parallel_lines(results, sweep))  # noqa: E731
    return results.kept.get(("parallel", sweep), results.mark(sweep), make)


def _name(request: Request) -> str:
    return str(request.path_params["sweep"])


def _head(results: CachedResults, sweep: str) -> dict[str, Any]:
    mark = results.mark(sweep)  # raises for a name that is not there
    [line] = sweep_lines(results, sweep)
    return {"line": line, "cost": kept_cost(results, sweep, mark), "mark": mark}


def _findings(results: CachedResults, sweep: str, *, with_importance: bool) -> dict[str, Any]:
    """Say what there is to say; what takes long, how sure the importances are, is left to a second request."""

    def make() -> tuple[Finding, ...]:
        return findings(results, sweep, results.importances(sweep) if with_importance else pd.DataFrame())

    mark = (results.mark(sweep), *map(results.mark, verifications(results, sweep)))
    found = results.kept.get(("findings", sweep, with_importance), mark, make)
    outcome = results.kept.get(("verified", sweep), mark, lambda: known_outcome(results, sweep))
    return {"found": found, "verified": outcome and _verified(outcome)}


def _verified(outcome: Outcome) -> Grid:
    def link(row: Mapping[str, Any], key: str) -> str | None:
        return trial_link(outcome.of, row["trial"]) if key == "trial" else None

    return grid_of(verification_table(outcome), link=link)


def _running(results: CachedResults, sweep: str) -> dict[str, Any]:
    trials = results.trials(sweep)
    numbers = [int(number) for number in trials.loc[trials["state"] == TrialState.RUNNING, "number"]]
    metric = results.spec(sweep).study.objective.metric
    running = [
        {
            "number": trial.number,
            "step": trial.step_text(" of "),
            "share": trial.step / trial.last_step if trial.last_step else None,
            "last": value_text(trial.curve[-1]) if trial.curve else "",
            "curve": sparkline(trial.curve, CURVE_WIDTH),
            "device": trial.device,
            "memory": memory_text(trial.memory_gib),
            "configuration": configuration_text(trial.configuration),
        }
        for trial in read_running(results, sweep, numbers[:MOST_RUNNING])
    ]
    return {"running": running, "metric": metric, "n_running": len(numbers)}


def _trials(request: Request, results: CachedResults, sweep: str) -> dict[str, Any]:
    """Choose, order and cut the table as the address asks: where, sort, page."""
    asked = request.query_params
    where, sort = asked.get("where", "").strip(), asked.get("sort", "").strip()
    study = results.spec(sweep).study
    metric = study.objective.metric
    ordered = best_first(results.trials(sweep), maximize=study.objective.direction == "maximize")
    problem = None
    try:
        selection = Selection(where=where or None, sort=[sort] if sort else [])
        rows = selection.rows_of(ordered, metric=metric)
    except ResultsError as error:
        problem, rows = str(error), ordered.head(0)
    n_pages = max(1, -(-len(rows) // ROWS))
    page_text = asked.get("page", "1")
    number = min(n_pages, max(1, int(page_text))) if page_text.isdecimal() and len(page_text) < 9 else 1
    table = trials_table(rows.iloc[(number - 1) * ROWS : number * ROWS], value_header=metric)

    def link(row: Any, key: str) -> str | None:
        return trial_link(sweep, row["number"]) if key == "number" else None

    def address(**others: Any) -> str:
        return with_query(sweep_link(sweep), ({"where": where, "sort": sort} | others).items())

    grid = grid_of(table, link=link)
    sorts = {head.key: address(sort=_next_sort(head, sort)) for head in grid.heads}
    return {
        "grid": grid,
        "sorts": sorts,
        "where": where,
        "sort": sort,
        "problem": problem,
        "page": number,
        "page_size": ROWS,
        "n_pages": n_pages,
        "n_rows": len(rows),
        "n_all": len(ordered),
        "first": (number - 1) * ROWS + 1,
        "before": address(page=number - 1) if number > 1 else None,
        "after": address(page=number + 1) if number < n_pages else None,
    }


def _next_sort(head: Head, sort: str) -> str:
    """Tell what a click on a column's head orders by: numbers by the largest first, then the other way round."""
    falling = f"-{head.key}"
    if sort in (head.key, falling):
        return falling if sort == head.key else head.key
    return falling if head.is_number else head.key


def _failures(results: CachedResults, sweep: str) -> dict[str, Any]:
    groups = failure_groups(results.trials(sweep), results.attempts(sweep))
    n_failed = sum(len(group.numbers) for group in groups)
    return {"groups": groups[:MOST_GROUPS], "n_groups": len(groups), "n_failed": n_failed}


def _metrics(results: CachedResults, sweep: str, trials: pd.DataFrame) -> list[str]:
    """Name the metrics that trials report, the objective first: what the first few of them told."""
    metric = results.spec(sweep).study.objective.metric
    seen = trials.loc[trials["examples_seen"] > 0, "number"].head(3)
    points = results.points(sweep, numbers=[int(number) for number in seen])
    return list(dict.fromkeys([metric, *sorted(map(str, points["metric"].unique()))]))
