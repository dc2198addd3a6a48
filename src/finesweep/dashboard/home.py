"""The first page: the sweeps of the database, how far each is, and what is best."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from finesweep.dashboard.cached import CachedResults
from finesweep.dashboard.page import rendered, results_of
from finesweep.dashboard.words import age_text, moment_text, silence_text
from finesweep.results.changes import last_heard
from finesweep.results.cost import examples_trained, sweep_cost
from finesweep.results.database import read
from finesweep.results.frames import Results
from finesweep.results.jobs import job_cost
from finesweep.results.objectives import value_text
from finesweep.views.printing import duration_text

MOST_SWEEPS = 200  # on the page, the newest first; the search finds the others


@dataclass(frozen=True, slots=True)
class SweepLine:
    """A sweep as the pages list it; texts, apart from the counts."""

    name: str
    state: str
    what: str  # task and model
    best: str
    best_trial: int | None
    metric: str
    direction: str
    n_ended: int
    n_budget: int
    counts: str
    time: str
    driver: str | None
    heard: str | None  # of a sweep that is driven: how long ago its last report came
    stalled: str | None
    end_reason: str | None
    created: str


def page(request: Request) -> Response:
    """Show the first page."""
    return HTMLResponse(rendered("home.html", request, **_values(request)))


def sweeps_part(request: Request) -> Response:
    """Give its list alone, to be put in place of the one shown."""
    return HTMLResponse(rendered("_sweeps.html", request, **_values(request)))


def _values(request: Request) -> dict[str, Any]:
    search = request.query_params.get("search", "").strip()
    results = results_of(request)
    lines = sweep_lines(results)
    found = [line for line in lines if search.lower() in f"{line.name} {line.what} {line.state}".lower()]
    shown = found[:MOST_SWEEPS]
    marks = results.marks() if shown else {}
    costs = {line.name: kept_cost(results, line.name, marks.get(line.name)) for line in shown}
    return {"search": search, "n_sweeps": len(lines), "n_found": len(found), "lines": shown, "costs": costs}


def kept_cost(results: CachedResults, sweep: str, mark: str | None) -> str:
    """Say what a sweep has cost, computed anew when it has changed."""
    return results.kept.get(("cost", sweep), mark, lambda: cost_text(results, sweep))


def sweep_lines(results: Results, sweep: str | None = None) -> list[SweepLine]:
    """List the sweeps, or one, newest first."""
    heard = read(results.url, last_heard)
    frame = results.sweeps().iloc[::-1]
    now_s = results.clock()
    rows = frame.to_dict("records") if sweep is None else frame[frame["sweep"] == sweep].to_dict("records")
    return [_line(results, {str(key): value for key, value in row.items()}, heard, now_s) for row in rows]


def _line(results: Results, row: dict[str, Any], heard: Any, now_s: float) -> SweepLine:
    name = str(row["sweep"])
    driver = _text(row["driver"])
    at = heard.get(name) if driver else None
    limit = results.spec(name).budget.stall_minutes if driver else None
    counted = ("complete", "pruned", "failed", "running", "interrupted", "waiting")
    return SweepLine(
        name=name,
        state=str(row["state"]),
        what=" · ".join(part for part in (_text(row["task"]), _text(row["model"])) if part),
        best="" if pd.isna(row["best_value"]) else value_text(float(row["best_value"])),
        best_trial=None if pd.isna(row["best_trial"]) else int(row["best_trial"]),
        metric=str(row["metric"]),
        direction=str(row["direction"]),
        n_ended=sum(int(row[state]) for state in ("complete", "pruned", "failed")),
        n_budget=int(row["budget_trials"]),
        counts=", ".join(f"{row[state]:,} {state}" for state in counted if row[state]),
        time=duration_text(float(row["seconds_used"])),
        driver=driver,
        heard=None if at is None else age_text(now_s - at),
        stalled=silence_text(at, now_s=now_s, limit_s=None if limit is None else 60 * limit),
        end_reason=_text(row["end_reason"]),
        created=moment_text(row["created_at"].timestamp()),
    )


def cost_text(results: Results, sweep: str) -> str:
    """Say what a sweep has cost: hours of slots, of GPUs, and examples; of jobs of a server tokens and money."""
    jobs = job_cost(results, sweep)
    if jobs is not None:
        return f"{jobs.text()}, {examples_trained(results.trials(sweep)):,} examples"
    cost, examples = sweep_cost(results, sweep), examples_trained(results.trials(sweep))
    gpus = f", {cost.gpu_hours:.3g} GPU hours" if cost.gpu_hours else ""
    return f"{cost.slot_hours:.3g} slot hours{gpus}, {examples:,} examples"


def _text(value: Any) -> str | None:
    return None if pd.isna(value) else str(value)
