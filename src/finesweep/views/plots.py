"""Plots of a sweep as plotly figures, each made of a frame of `Results` and agreeing with it.

Colours are of the Okabe-Ito palette, which colour-blind people can tell apart; state is told by width and dash as well.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import pandas as pd

from finesweep.errors import ResultsError
from finesweep.events import DEVICE_USE, MEMORY_GIB, Grid
from finesweep.results.columns import ON_FRONT, objective_column, parameter_column
from finesweep.results.frames import Results, ranked
from finesweep.results.jobs import is_job
from finesweep.spec.study import AshaPruner, HyperbandPruner, Objective, StudySpec
from finesweep.views.axes import parameter_axis
from finesweep.views.picture import configuration_text

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

COLOURS = {
    "COMPLETE": "#0072B2",
    "PRUNED": "#E69F00",
    "FAILED": "#D55E00",
    "RUNNING": "#009E73",
    "INTERRUPTED": "#CC79A7",
}
LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # of several things of one kind
OF_DEVICES = {DEVICE_USE: "use of the device (share of 1)", MEMORY_GIB: "memory (GiB)"}
INCUMBENT = "#000000"
QUIET = "#999999"
_WIDTHS = {"COMPLETE": 1.5, "RUNNING": 1.5}  # all others are thin
_DASHES = {"FAILED": "dot", "INTERRUPTED": "dash"}


@dataclass(frozen=True, slots=True)
class Plots:
    """Plots of the sweeps of a results database. Each raises ResultsError where there is nothing to show."""

    results: Results

    def curves(self, sweep: str, *, metric: str | None = None, numbers: Collection[int] | None = None) -> Figure:
        """Draw each trial's reports of a metric, by default the objective, against the examples it had seen.

        Pruned trials are thin, the incumbent is bold, rungs are marked where they are the same for all trials.
        `numbers` are those trials to draw beside the incumbent; all without.
        """
        study = self.results.spec(sweep).study
        name = metric or study.objective.metric
        best = self.results.best(sweep)
        leaders = () if best is None else (best.number if best.reused_from is None else best.reused_from,)
        points = self.results.points(sweep, numbers=None if numbers is None else {*numbers, *leaders})
        points = points[points["metric"] == name]
        if points.empty:
            raise ResultsError(f"sweep {sweep!r} has no report of {name!r} to draw yet.")
        trials = self.results.trials(sweep).set_index("number", drop=False)
        parameters = [parameter_column(parameter) for parameter in study.parameters]
        figure = new_figure()
        for state in dict.fromkeys(trials["state"]):
            numbers = [n for n in trials.index[trials["state"] == state] if n not in leaders]
            _add_curves(figure, points, trials, numbers, parameters, state=state, name=state)
        if best is not None:
            label = f"best: trial {best.number}"
            _add_curves(figure, points, trials, leaders, parameters, state="COMPLETE", name=label, is_best=True)
        for rung in _rungs(study, self.results.grid(sweep)):
            if rung <= points["examples_seen"].max():
                figure.add_vline(x=rung, line={"color": QUIET, "width": 1, "dash": "dot"})
        figure.update_layout(xaxis_title="examples seen", yaxis_title=plain(name), legend_title="trials")
        return figure

    def parallel(self, sweep: str) -> Figure:
        """Draw each COMPLETE trial as a line through its parameters and its value."""
        go = _graph_objects()
        study = self.results.spec(sweep).study
        trials = _complete(self.results, sweep)
        dimensions = [
            parameter_axis(name, trials[parameter_column(name)], parameter)
            for name, parameter in study.parameters.items()
        ]
        value = {"label": plain(study.objective.metric), "values": trials["value"]}
        line = {"color": trials["value"], "colorscale": "Cividis", "showscale": True}
        return new_figure(go.Parcoords(line=line, dimensions=[*dimensions, value]))

    def timeline(self, sweep: str, *, last: int | None = None) -> Figure:
        """Draw which attempt was where when: a row for each worker, idle time left blank.

        With `last` only so many attempts, those that began last.
        """
        attempts = self.results.attempts(sweep)
        ended = attempts[attempts["ended_at"].notna()]
        if ended.empty:
            raise ResultsError(f"sweep {sweep!r} has no attempt that has ended yet.")
        states = self.results.trials(sweep).set_index("number")["state"]
        if last is not None:
            ended = ended.sort_values("started_at").tail(last)
        began = attempts["started_at"].min()
        rows = ended.assign(
            begin_s=(ended["started_at"] - began).dt.total_seconds(),
            taken_s=(ended["ended_at"] - ended["started_at"]).dt.total_seconds().clip(lower=0),
            slot=[plain(_slot(facts)) for facts in ended["facts"]],
            state=[states[number] for number in ended["number"]],
        )
        figure = new_figure()
        for state, of_state in rows.groupby("state", sort=False):
            figure.add_bar(
                base=of_state["begin_s"],
                x=of_state["taken_s"],
                y=of_state["slot"],
                orientation="h",
                name=str(state),
                marker={"color": COLOURS.get(str(state), QUIET), "line": {"color": "white", "width": 1}},
                text=of_state["number"].astype("string"),
                textposition="inside",
                insidetextanchor="start",
                customdata=of_state[["number", "attempt", "ending"]].astype("string").fillna("").to_numpy(),
                hovertemplate="trial %{customdata[0]}, attempt %{customdata[1]}: %{customdata[2]}, %{x:.1f} s",
            )
        figure.update_layout(barmode="overlay", xaxis_title="seconds since the first attempt", yaxis_title="worker")
        return figure

    def devices(self, sweep: str, *, of: str = DEVICE_USE) -> Figure:
        """Draw how the devices of a sweep's workers were over time, a line each: `device_use`, or `memory_gib`.

        As told with the reports, so a line is as fine as reports are frequent.
        """
        if of not in OF_DEVICES:
            raise ResultsError(f"there is no {of!r} of devices. Known: {', '.join(OF_DEVICES)}.")
        told = self.results.telemetry(sweep)
        told = told[told["name"] == of]
        if told.empty:
            raise ResultsError(f"No report of sweep {sweep!r} told the {OF_DEVICES[of]}.")
        attempts = self.results.attempts(sweep).set_index(["number", "attempt"])
        slots = attempts["facts"].map(_slot).rename("slot")
        rows = told.join(slots, on=["number", "attempt"]).sort_values("reported_at")
        at_s = (rows["reported_at"] - attempts["started_at"].min()).dt.total_seconds()
        figure = new_figure()
        for place, (slot, of_slot) in enumerate(rows.groupby("slot")):
            figure.add_scatter(
                x=at_s[of_slot.index],
                y=of_slot["value"],
                mode="lines+markers",
                name=plain(str(slot)),
                line={"color": LINES[place % len(LINES)], "width": 1.5, "shape": "vh"},
                marker={"size": 3},
                text=[f"trial {number}" for number in of_slot["number"]],
                hovertemplate="%{text}: %{y:.3g} at %{x:,.0f} s<extra></extra>",
            )
        figure.update_layout(xaxis_title="seconds since the first attempt", showlegend=True)
        figure.update_yaxes(title=OF_DEVICES[of], rangemode="tozero")
        return figure

    def pareto(self, sweep: str) -> Figure:
        """Draw two objectives against each other, those trials marked that no other beats."""
        objectives = self.results.spec(sweep).study.objectives
        if len(objectives) < 2:
            raise ResultsError(f"sweep {sweep!r} has one objective, {objectives[0].metric}; a front needs two.")
        trials = _complete(self.results, sweep)
        first, second = objectives[:2]
        figure = new_figure()
        for is_front, label in ((False, "beaten"), (True, "front")):
            chosen = trials[trials[ON_FRONT].fillna(value=False) == is_front]
            figure.add_scatter(
                x=chosen["value"],
                y=chosen[objective_column(second.metric)],
                mode="markers",
                name=label,
                marker={
                    "color": COLOURS["COMPLETE"] if is_front else QUIET,
                    "symbol": "diamond" if is_front else "circle",
                    "size": 9 if is_front else 6,
                },
                text=[f"trial {number}" for number in chosen["number"]],
            )
        figure.update_layout(xaxis_title=_axis(first), yaxis_title=_axis(second))
        return figure


def importance_figure(sweep: str, importances: pd.DataFrame) -> Figure:
    """Draw how much each parameter of a sweep matters, with the interval, from a frame of `search.importance`."""
    go = _graph_objects()
    if importances.empty:
        raise ResultsError(f"sweep {sweep!r} has too few COMPLETE trials to tell which parameters matter.")
    rising = importances.iloc[::-1]
    share = rising["importance"]
    bars = go.Bar(
        x=share,
        y=[plain(name) for name in rising["parameter"]],
        orientation="h",
        marker={"color": COLOURS["COMPLETE"]},
        error_x={
            "type": "data",
            "symmetric": False,
            "array": (rising["high"] - share).clip(lower=0),
            "arrayminus": (share - rising["low"]).clip(lower=0),
        },
    )
    figure = new_figure(bars)
    figure.update_layout(xaxis_title="share of importance")
    return figure


def plain(text: str) -> str:
    """Keep plotly from reading tags in a text."""
    return escape(text, quote=False)


def _graph_objects() -> Any:  # Any: plotly is untyped
    try:
        from plotly import graph_objects
    except ModuleNotFoundError as error:
        raise ResultsError("plots need plotly. Run: pip install 'finesweep[dashboard]'.") from error
    return graph_objects


def new_figure(*traces: Any) -> Any:  # Any: plotly is untyped
    """Make a figure in our style. Raises ResultsError without plotly."""
    figure = _graph_objects().Figure(list(traces))
    figure.update_layout(template="plotly_white", margin={"t": 40, "r": 20, "b": 50})
    return figure


def plotly_script() -> str:
    """Give plotly's own script, which a page with figures needs. Raises ResultsError without plotly."""
    _graph_objects()
    from plotly.offline import get_plotlyjs

    script: str = get_plotlyjs()
    return script


def _complete(results: Results, sweep: str) -> pd.DataFrame:
    complete = ranked(results.trials(sweep))
    if complete.empty:
        raise ResultsError(f"sweep {sweep!r} has no COMPLETE trial to draw yet.")
    return complete


def _add_curves(
    figure: Any,  # Any: plotly is untyped
    points: pd.DataFrame,
    trials: pd.DataFrame,
    numbers: Sequence[int],
    parameters: Sequence[str],
    *,
    state: str,
    name: str,
    is_best: bool = False,
) -> None:
    """Add the curves of some trials as one trace, with gaps between them: ten thousand traces would be slow."""
    xs: list[float | None] = []
    ys: list[float | None] = []
    texts: list[str] = []
    wanted = points[points["number"].isin(list(numbers))]
    for number, curve in wanted.sort_values(["number", "step"]).groupby("number"):
        row = trials.loc[number]
        given = {p: row[p] for p in parameters if not pd.isna(row[p])}
        xs += [*curve["examples_seen"], None]
        ys += [value if math.isfinite(value) else None for value in curve["value"]] + [None]
        texts += [plain(f"trial {number}: {configuration_text(given)}")] * (len(curve) + 1)
    if not xs:
        return
    width = 4 if is_best else _WIDTHS.get(state, 0.75)
    figure.add_scatter(
        x=xs,
        y=ys,
        text=texts,
        name=name,
        mode="lines+markers",
        line={"color": INCUMBENT if is_best else COLOURS.get(state, QUIET), "width": width, "dash": _DASHES.get(state)},
        marker={"size": 6 if is_best else 3},
        hovertemplate="%{text}<br>%{y:.4g} at %{x:,} examples<extra></extra>",
    )


def _rungs(study: StudySpec, grid: Grid) -> Iterable[int]:
    """Give the examples seen at which trials are compared, where those are the same for all."""
    if not isinstance(study.pruner, AshaPruner | HyperbandPruner) or grid.unit != "examples":
        return
    rung = study.pruner.first_rung or grid.every
    while rung <= grid.longest:
        yield rung
        rung *= study.pruner.reduction_factor


def _slot(facts: Mapping[str, Any]) -> str:
    """Name the worker of an attempt: where it was, on which device, as which process."""
    gpus = "+".join(map(str, facts.get("gpu_ids") or ()))
    device = "waiting for jobs" if is_job(facts) else f"gpu {gpus}" if gpus else "cpu"
    parts = (facts.get("node", ""), device, f"pid {facts.get('pid', '?')}")
    return " ".join(str(part) for part in parts if part)


def _axis(objective: Objective) -> str:
    return plain(f"{objective.metric} ({objective.direction})")
