"""Plots of the pages that no other view has: thinned curves, slices, best so far, and the lines of parallel axes.

Each is made of the frames alone; pruned and failed trials never enter the best.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from finesweep import notebook
from finesweep.errors import ResultsError
from finesweep.events import TrialState
from finesweep.results.columns import ON_FRONT, objective_column, parameter_column
from finesweep.results.cost import SECONDS_PER_HOUR
from finesweep.results.frames import Results, ranked
from finesweep.spec.study import Objective
from finesweep.views.axes import choice_text, numeric_span, parameter_axis
from finesweep.views.compare import compare
from finesweep.views.plots import COLOURS, INCUMBENT, LINES, QUIET, new_figure, plain
from finesweep.views.tables import best_first

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

MOST_CURVES = 150  # trials; a browser draws some thousands of points at once
MOST_IN_BAND = 600  # trials whose reports tell where most curves lie
MOST_LINES = 2000  # trials in parallel coordinates and slices


def sample(trials: pd.DataFrame, most: int, *, maximize: bool) -> list[int]:
    """Choose so many trials at most: those that run, the better half of the rest, and every so-manyth of what is left.

    The same trials whenever the same frame is given, so that a page does not flicker.
    """
    trained = best_first(trials[trials["reused_from"].isna()], maximize=maximize)
    numbers = [int(number) for number in trained["number"]]
    if len(numbers) <= most:
        return numbers
    running = [int(number) for number in trained.loc[trained["state"] == TrialState.RUNNING, "number"]][:most]
    rest = [number for number in numbers if number not in set(running)]
    n_first = (most - len(running)) // 2
    n_spread = most - len(running) - n_first
    left = rest[n_first:]
    spread = [left[place * len(left) // n_spread] for place in range(n_spread)] if n_spread else []
    return [*running, *rest[:n_first], *spread]


def curves_figure(results: notebook.Results, sweep: str, metric: str | None) -> Figure:
    """Draw the learning curves; of more than are drawn, a sample, and behind it where the middle 80 % of trials lie.

    At each step that is of the trials that came so far, of an even sample of MOST_IN_BAND of them.
    """
    study, trials = results.spec(sweep).study, results.trials(sweep)
    maximize = study.objective.direction == "maximize"
    drawn = sample(trials, MOST_CURVES, maximize=maximize)
    figure = results.plot.curves(sweep, metric=metric, numbers=drawn)
    trained = trials.loc[trials["reused_from"].isna(), "number"].astype(int).tolist()
    if len(trained) <= MOST_CURVES:
        return figure
    n_apart = -(-len(trained) // MOST_IN_BAND)
    points = results.points(sweep, numbers=trained[::n_apart])
    points = points[points["metric"] == (metric or study.objective.metric)]
    shares = np.array([0.1, 0.5, 0.9])
    band = points.groupby("examples_seen")["value"].quantile(shares).unstack()  # missing values are left out
    figure.add_scatter(x=band.index, y=band[0.9], mode="lines", line={"width": 0}, hoverinfo="skip", showlegend=False)
    shade = {"fill": "tonexty", "fillcolor": "rgba(86, 180, 233, 0.18)"}
    figure.add_scatter(
        x=band.index, y=band[0.1], mode="lines", line={"width": 0}, hoverinfo="skip", name="80 % of trials", **shade
    )
    figure.add_scatter(
        x=band.index,
        y=band[0.5],
        mode="lines",
        line={"color": QUIET, "width": 2, "dash": "dash"},
        name="median",
        hovertemplate="median %{y:.4g} at %{x:,} examples<extra></extra>",
    )
    return figure


def slice_figure(results: Results, sweep: str, parameter: str) -> Figure:
    """Draw the value of each COMPLETE trial against one of its parameters. Raises ResultsError for an unknown one."""
    study = results.spec(sweep).study
    if parameter not in study.parameters:
        raise ResultsError(f"{parameter!r} is no parameter of sweep {sweep!r}. It has {', '.join(study.parameters)}.")
    trials = _complete(results, sweep)
    column = parameter_column(parameter)
    trials = trials[trials[column].notna()]
    span = numeric_span(study.parameters[parameter])
    xs = trials[column].tolist() if span is not None else [plain(choice_text(value)) for value in trials[column]]
    figure = new_figure()
    figure.add_scatter(
        x=xs,
        y=trials["value"],
        mode="markers",
        text=[f"trial {number}" for number in trials["number"]],
        marker={"color": COLOURS["COMPLETE"], "size": 6, "opacity": 0.6},
        hovertemplate="%{text}: %{y:.4g} at %{x}<extra></extra>",
    )
    best = results.best(sweep)
    if best is not None and best.configuration.get(parameter) is not None:
        value = best.configuration[parameter]
        figure.add_scatter(
            x=[value if span is not None else plain(choice_text(value))],
            y=[best.value],
            mode="markers",
            marker={"color": INCUMBENT, "size": 11, "symbol": "diamond"},
            text=[f"best: trial {best.number}"],
            hovertemplate="%{text}: %{y:.4g} at %{x}<extra></extra>",
        )
    kind = "category" if span is None else "log" if span[2] else "linear"
    figure.update_layout(xaxis={"type": kind, "title": plain(parameter)}, yaxis_title=plain(study.objective.metric))
    figure.update_layout(showlegend=False)
    return figure


def best_so_far_figure(results: Results, sweeps: Sequence[str], axis: str) -> Figure:
    """Draw the best value that was reached by so many trials, examples or hours of slots: one line a sweep.

    `axis` is "trials", "examples" or "hours". Only COMPLETE trials that were trained lift a line.
    """
    figure = new_figure()
    objective: Objective | None = None
    for place, sweep in enumerate(sweeps):
        objective = results.spec(sweep).study.objective
        xs, ys = _best_so_far(results.trials(sweep), objective, axis)
        if xs:
            colour = LINES[place % len(LINES)]
            line = {"color": colour, "width": 2.5, "shape": "hv", "dash": _DASHES[place // len(LINES) % len(_DASHES)]}
            figure.add_scatter(x=xs, y=ys, mode="lines+markers", name=plain(sweep), line=line, marker={"size": 5})
    if objective is None or not figure.data:
        raise ResultsError("No trial of these sweeps is complete yet.")
    title = {"trials": "trials that have ended", "examples": "examples seen", "hours": "hours of training, added up"}
    figure.update_layout(xaxis_title=title[axis], yaxis_title=f"best {plain(objective.metric)} so far", showlegend=True)
    return figure


def front_figure(results: Results, sweeps: Sequence[str]) -> Figure:
    """Draw two objectives of the COMPLETE trials of sweeps that are judged alike; none beats those that are large."""
    first, *others = results.spec(sweeps[0]).study.objectives
    if not others:
        raise ResultsError("These sweeps have one objective; a front needs two.")
    second, trials = others[0], compare(results, sweeps).trials
    trials = ranked(trials)
    figure = new_figure()
    for place, sweep in enumerate(sweeps):
        of_sweep = trials[trials["sweep"] == sweep]
        is_front = of_sweep[ON_FRONT].fillna(value=False)
        figure.add_scatter(
            x=of_sweep["value"],
            y=of_sweep[objective_column(second.metric)],
            mode="markers",
            name=plain(sweep),
            text=[f"trial {number}" for number in of_sweep["number"]],
            marker={
                "color": LINES[place % len(LINES)],
                "size": [11 if front else 6 for front in is_front],
                "symbol": ["diamond" if front else "circle" for front in is_front],
            },
            hovertemplate="%{text}: %{x:.4g}, %{y:.4g}",
        )
    if not len(trials):
        raise ResultsError("No trial of these sweeps is complete yet.")
    figure.update_layout(
        xaxis_title=plain(f"{first.metric} ({first.direction})"),
        yaxis_title=plain(f"{second.metric} ({second.direction})"),
        showlegend=True,
    )
    return figure


def parallel_lines(results: Results, sweep: str) -> dict[str, Any]:
    """Give what parallel coordinates draw: the axes with their ticks, and a line of places between 0 and 1 per trial.

    Each axis tells how a place is written in a condition of --where, so that a brush becomes one.
    """
    study = results.spec(sweep).study
    trials = _complete(results, sweep)
    axes = []
    for name, parameter in study.parameters.items():
        values = trials[parameter_column(name)]
        is_number = numeric_span(parameter) is not None and not values.isna().any()
        axis = parameter_axis(name, values, parameter)
        known = {choice_text(value): _literal(value) for value in values.dropna().tolist()}
        literals = None if is_number else known
        axes.append(_axis(axis, column=parameter_column(name), literals=literals))
    low, high = float(trials["value"].min()), float(trials["value"].max())
    value = {
        "label": study.objective.metric,
        "values": trials["value"],
        "range": [low, high if high > low else low + 1],
    }
    axes.append(_axis(value, column="value", literals=None))
    maximize = study.objective.direction == "maximize"
    return {"numbers": trials["number"].tolist(), "axes": axes, "maximize": maximize}


def figure_json(figure: Figure) -> str:
    text: str = figure.to_json()
    return text


_DASHES = ("solid", "dash", "dot")


def _complete(results: Results, sweep: str) -> pd.DataFrame:
    study = results.spec(sweep).study
    complete = ranked(results.trials(sweep))
    if complete.empty:
        raise ResultsError("No trial is complete yet.")
    chosen = sample(complete, MOST_LINES, maximize=study.objective.direction == "maximize")
    return complete[complete["number"].isin(chosen)]


def _best_so_far(trials: pd.DataFrame, objective: Objective, axis: str) -> tuple[list[float], list[float]]:
    ended = trials[trials["finished_at"].notna() & trials["reused_from"].isna()].sort_values("finished_at")
    spent = {"trials": pd.Series(1.0, index=ended.index), "examples": ended["examples_seen"].astype(float)}
    spent["hours"] = ended["duration_s"].fillna(0.0) / SECONDS_PER_HOUR
    xs: list[float] = []
    ys: list[float] = []
    for x, state, value in zip(spent[axis].cumsum(), ended["state"], ended["value"], strict=True):
        if state == TrialState.COMPLETE and objective.is_better(float(value), ys[-1] if ys else None):
            xs.append(float(x))
            ys.append(float(value))
    if xs:  # as far as was gone without anything better
        xs.append(float(spent[axis].sum()))
        ys.append(ys[-1])
    return xs, ys


def _axis(axis: Mapping[str, Any], *, column: str, literals: Mapping[str, str] | None) -> dict[str, Any]:
    low, high = axis["range"]
    width = (high - low) or 1
    is_log = literals is None and "tickvals" in axis
    ticks = axis.get("tickvals") or [low, (low + high) / 2, high]
    texts = axis.get("ticktext") or [f"{tick:.4g}" for tick in ticks]
    return {
        "label": axis["label"],
        "column": column if column.isidentifier() else None,  # None: no condition can name it
        "kind": "choice" if literals is not None else "log" if is_log else "linear",
        "range": [low, high],
        "ticks": [
            {"place": (at - low) / width, "text": text, "literal": None if literals is None else literals.get(text)}
            for at, text in zip(ticks, texts, strict=True)
        ],
        "places": [round((float(value) - low) / width, 5) for value in axis["values"]],
    }


def _literal(value: object) -> str:
    """Write a value as a condition has it."""
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, int | float):
        return repr(value) if math.isfinite(value) else "0"
    return json.dumps(str(value), ensure_ascii=True)
