"""The page of a trial: how it ended and why, its parameters resolved, its curves, attempts, samples and log; export."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from finesweep.dashboard.cached import CachedResults
from finesweep.dashboard.figures import figure_json
from finesweep.dashboard.page import rendered, results_of
from finesweep.dashboard.words import moment_text, outcome_text
from finesweep.errors import FinesweepError, ResultsError, SpecError
from finesweep.events import GRAD_NORM, LEARNING_RATE, TrialState
from finesweep.export.record import export_record
from finesweep.export.record_text import export_text
from finesweep.layout import log_path
from finesweep.results.frames import TrialResult
from finesweep.results.jobs import place_text
from finesweep.results.objectives import value_text
from finesweep.spec.settings import trial_settings
from finesweep.spec.sweep import RemoteSweep, SweepSpec
from finesweep.views.plots import COLOURS, OF_DEVICES, new_figure, plain
from finesweep.views.printing import duration_text
from finesweep.views.samples import read_samples

LOG_TAIL = 64 * 1024  # bytes
MOST_SAMPLES = 20
_TELEMETRY = {  # what workers tell with their reports -> how a person reads it
    LEARNING_RATE: "learning rate",
    GRAD_NORM: "gradient norm, before clipping",
    **OF_DEVICES,
}
_RESOLVED = {  # facts of the worker -> how a person reads them
    "device": "device",
    "gpu_ids": "GPUs",
    "device_batch_size": "rows on the device at once",
    "accumulation": "batches added up before a step",
    "warmup_steps_asked": "warm-up steps asked for",
    "warmup_steps": "warm-up steps there are",
    "optimizer_steps": "optimizer steps of its schedule",
    "last_step": "steps of the sweep's grid",
    "n_trainable": "parameters that move",
    "n_parameters": "parameters of the model",
    "examples_per_second": "examples per second",
    "peak_memory_gib": "most memory of the device (GiB)",
    "n_oom": "times the memory ran out",
    "dtype": "number format",
}
_OF_JOB = {  # the same of a worker that waits for a fine-tuning server
    "device": "server",
    "job": "job",
    "model": "model that is tuned",
    "hyperparameters": "hyperparameters at the server",
    "trained_tokens": "trained tokens",
    "cost": "cost",
    "fine_tuned_model": "tuned model",
    "best_checkpoint": "best checkpoint",
    "last_step": "steps of the sweep's grid",
}


def page(request: Request) -> Response:
    """Show a trial."""
    results, trial = results_of(request), _trial(request)
    spec = results.spec(trial.sweep)
    worker = trial if trial.reused_from is None else results.trial(trial.sweep, trial.reused_from)
    best = results.best(trial.sweep)
    return HTMLResponse(
        rendered(
            "trial.html",
            request,
            sweep=trial.sweep,
            trial=trial,
            is_best=best is not None and best.number == trial.number,
            values=[(name, value_text(value)) for name, value in trial.values.items()],
            searched=[(name, _text(value)) for name, value in trial.configuration.items()],
            fixed=_fixed(spec, trial),
            resolved=_resolved(worker, _OF_JOB if isinstance(spec, RemoteSweep) else _RESOLVED),
            started=moment_text(trial.started_at),
            finished=moment_text(trial.finished_at),
            can_export=trial.state is TrialState.COMPLETE,
            has_next=trial.number + 1 < len(results.trials(trial.sweep)),
            **_outcome(results, trial),
            **_attempts(results, trial),
            **_samples(results, trial),
            **_files(results, trial),
            **_log(results, trial),
        )
    )


def part(request: Request) -> Response:
    """Give a part of the page, to be put in place of the one shown."""
    results, trial, name = results_of(request), _trial(request), request.path_params["part"]
    makers = {"outcome": _outcome, "attempts": _attempts, "samples": _samples, "files": _files, "log": _log}
    if name not in makers:
        raise HTTPException(404)
    return HTMLResponse(rendered(f"_{name}.html", request, trial=trial, **makers[name](results, trial)))


def curves(request: Request) -> str:
    """Give the curve of each metric that the trial reported, as plotly reads it, by the metric's name."""
    results, trial = results_of(request), _trial(request)
    worker = trial.number if trial.reused_from is None else trial.reused_from
    points = results.points(trial.sweep, numbers=[worker])
    if points.empty:
        raise ResultsError("It has reported nothing yet.")
    objectives = [objective.metric for objective in results.spec(trial.sweep).study.objectives]
    names = [*objectives, *sorted(set(map(str, points["metric"])) - {*objectives})]
    by_name = {name: points[points["metric"] == name] for name in names}
    drawn = [_curve(name, of_name) for name, of_name in by_name.items() if not of_name.empty]
    told = results.telemetry(trial.sweep, numbers=[worker])
    drawn += [
        _curve(said, told[told["name"] == name]) for name, said in _TELEMETRY.items() if name in set(told["name"])
    ]
    return json.dumps(drawn)


def _curve(name: str, points: pd.DataFrame) -> dict[str, Any]:
    """Draw numbers against the examples seen when they were reported."""
    figure = new_figure()
    figure.add_scatter(
        x=points["examples_seen"],
        y=points["value"],
        mode="lines+markers",
        line={"color": COLOURS["COMPLETE"]},
        hovertemplate="%{y:.5g} at %{x:,} examples<extra></extra>",
    )
    figure.update_layout(xaxis_title="examples seen", yaxis_title=plain(name), showlegend=False)
    return {"name": name, "figure": json.loads(figure_json(figure))}


def export(request: Request) -> Response:
    """Give the record of the trial as a file, as `finesweep export` writes it."""
    trial = _trial(request)
    text = export_text(export_record(results_of(request), trial.sweep, trial.number))
    named = f"{trial.sweep}-{trial.number}.json"
    safe = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "._-") else "_" for letter in named)
    headers = {"Content-Disposition": f'attachment; filename="{safe}"'}
    return Response(text, media_type="application/json", headers=headers)


def _trial(request: Request) -> TrialResult:
    results, sweep = results_of(request), str(request.path_params["sweep"])
    results.spec(sweep)  # raises for a name that is not there
    try:
        return results.trial(sweep, min(int(request.path_params["number"]), 2**31 - 1))
    except ResultsError as error:
        raise HTTPException(404, str(error)) from None


def _fixed(spec: SweepSpec, trial: TrialResult) -> list[tuple[str, str]]:
    """List the settings that were not searched; none where an older finesweep knew others."""
    try:
        settings = trial_settings(spec.training, trial.configuration).model_dump(mode="json")
    except SpecError:
        return []
    return [(name, _text(value)) for name, value in settings.items() if name not in trial.configuration]


def _resolved(worker: TrialResult, names: Mapping[str, str]) -> list[tuple[str, str]]:
    """List what the worker told that the configuration came to."""
    return [(said, _text(worker.facts[key])) for key, said in names.items() if worker.facts.get(key) not in (None, [])]


def _outcome(results: CachedResults, trial: TrialResult) -> dict[str, Any]:
    return {"outcome": outcome_text(results, trial), "state": trial.state, "mark": results.mark(trial.sweep)}


def _attempts(results: CachedResults, trial: TrialResult) -> dict[str, Any]:
    frame = results.attempts(trial.sweep)
    rows = []
    for row in frame[frame["number"] == trial.number].to_dict("records"):
        ended, facts = row["ended_at"], row["facts"]
        where = [facts.get("node"), place_text(facts), facts.get("pid") and f"process {facts['pid']}"]
        is_open = ended is None or ended != ended  # NaT is not itself
        rows.append(
            {
                "attempt": row["attempt"],
                "began": moment_text(row["started_at"].timestamp()),
                "took": "" if is_open else duration_text((ended - row["started_at"]).total_seconds()),
                "ending": "has not ended" if is_open else _text(row["ending"]),
                "reason": _text(row["reason"]),
                "where": " · ".join(str(part) for part in where if part),
                "traceback": _text(row["traceback"]) or None,
            }
        )
    return {"attempts": rows}


def _samples(results: CachedResults, trial: TrialResult) -> dict[str, Any]:
    try:
        rows = read_samples(results, trial.sweep, trial.number)
    except (FinesweepError, OSError, KeyError):  # most sweeps generate nothing; what is told elsewhere is not told here
        rows = []
    return {"samples": rows[:MOST_SAMPLES], "n_samples": len(rows)}


def _files(results: CachedResults, trial: TrialResult) -> dict[str, Any]:
    number = trial.number if trial.reused_from is None else trial.reused_from
    kept = results.artifacts(trial.sweep)
    kept = kept[(kept["number"] == number) & kept["removed_at"].isna()]
    tuned = trial.facts.get("fine_tuned_model")  # of a fine-tuning server
    return {"artifacts": [(str(row.kind), str(row.path)) for row in kept.itertuples()], "tuned": tuned}


def _log(results: CachedResults, trial: TrialResult) -> dict[str, Any]:
    """Read the end of the trial's log. Only that file: neither the address nor a link in the folder leads elsewhere."""
    folder = results.provenance(trial.sweep).get("artifact_dir")
    number = trial.number if trial.reused_from is None else trial.reused_from
    if not isinstance(folder, str):
        return {"log": None, "log_is_cut": False}
    try:
        descriptor = os.open(log_path(Path(folder), number), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - LOG_TAIL))
            text = file.read(LOG_TAIL).decode("utf-8", errors="replace")
    except OSError:
        return {"log": None, "log_is_cut": False}
    return {"log": text, "log_is_cut": size > LOG_TAIL}


def _text(value: Any) -> str:
    match value:
        case None:
            return ""
        case float():
            return "" if value != value else f"{value:.6g}"
        case bool():
            return str(value).lower()
        case int():
            return f"{value:,}"
        case str():
            return value
        case list() if all(isinstance(item, str | int) for item in value):
            return ", ".join(map(str, value))
        case _:
            try:
                return json.dumps(value, ensure_ascii=False)
            except TypeError:  # pandas' missing value
                return ""
