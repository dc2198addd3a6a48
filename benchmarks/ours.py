"""The finesweep arms: sweep files written into a folder and run through the public API, as a user would.

In: a workload, a folder. Out: what each trial found and took, read from the results database.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from workload import Workload, model_path

NAME = "benchmark"
OBJECTIVE = {"metric": "accuracy", "direction": "maximize"}
SPACE = {  # wide enough for every configuration that a benchmark gives; where one searches, it gives its own
    "learning_rate": {"type": "float", "low": 1e-6, "high": 1e-1, "log": True},
    "batch_size": {"type": "categorical", "choices": [8, 16, 32]},
    "weight_decay": {"type": "float", "low": 0.0, "high": 0.1},
    "warmup_steps": {"type": "int", "low": 0, "high": 100},
}


def write_sweep(folder: Path, content: Mapping[str, Any]) -> Path:
    """Write a sweep file, its study within it."""
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump({"name": NAME, **content}, sort_keys=False), encoding="utf-8")
    return path


def training_sweep(
    workload: Workload,
    *,
    eval_every: int | None = None,
    resources: Mapping[str, Any] | None = None,
    **sections: Any,
) -> dict[str, Any]:
    """Say in a sweep's words what a workload is: its configurations one by one, no pruning, no weights kept."""
    method = {"method": "feature-extraction", "unfrozen_layers": 0} if workload.head_only else {"method": "full"}
    return {
        "model": model_path(),
        "task": "classification",
        "data": {
            "train": workload.train_path,
            "validation": workload.validation_path,
            "max_length": workload.max_length,
        },
        "training": {
            **method,
            "epochs": workload.epochs,
            "eval_every": eval_every or workload.n_train_rows,
            "seed": workload.seed,
        },
        "study": {"objective": OBJECTIVE, "parameters": SPACE},
        "start_with": list(workload.configurations),
        "try_defaults": False,
        "budget": {"trials": len(workload.configurations)},
        "artifacts": {"keep": "none"},
        "resources": {"devices": "cpu", "max_parallel": workload.slots, **(resources or {})},
        **sections,
    }


def run_sweep(sweep_path: Path, folder: Path, view: Any = None) -> None:
    """Run a sweep file as `finesweep run` does; results and artifacts go to the folder."""
    import finesweep

    finesweep.run(finesweep.load_sweep(sweep_path), results=str(folder / "finesweep.db"), view=view)


def outcomes(folder: Path) -> list[dict[str, Any]]:
    """Read each trial's end from the database: last metrics, seconds of training, CPU-seconds where they were told."""
    from finesweep import open_results

    results = open_results(str(folder / "finesweep.db"))
    points, attempts = results.points(NAME), results.attempts(NAME)
    found = []
    for trial in results.trials(NAME).to_dict("records"):
        number = trial["number"]
        own = points[points["number"] == number]
        last = own[own["step"] == own["step"].max()].set_index("metric")["value"].to_dict()
        of_trial = attempts[attempts["number"] == number]
        facts = [dict(told or {}) for told in of_trial["facts"]]
        found.append(
            {
                "number": int(number),
                "state": trial["state"],
                "learning_rate": float(trial.get("learning_rate", "nan")),
                "accuracy": last.get("accuracy"),
                "loss": last.get("loss"),
                "cpu_s": _total([told.get("cpu_seconds") for told in facts]),
                "training_s": _total([_training_s(trial["examples_seen"], told) for told in facts]),
                "ended_at": max(of_trial["ended_at"]).timestamp(),
            }
        )
    return found


def _training_s(examples: int, facts: Mapping[str, Any]) -> float | None:
    """Return the seconds from the beginning of training to its end, evaluation included, from the rate told."""
    rate = facts.get("examples_per_second")
    return float(examples) / rate if rate else None


def _total(values: Sequence[float | None]) -> float | None:
    told = [value for value in values if value is not None]
    return sum(told) if told and len(told) == len(values) else None


class Watch:
    """A view that notes when each report and each end of a trial was stored."""

    def __init__(self) -> None:
        self.notes: list[dict[str, Any]] = []

    def begin(self, objectives: Any, n_trials: int, history: Any) -> None:
        """Nothing: there is no earlier drive."""

    def set_total(self, n_trials: int) -> None:
        """Nothing: the total stays."""

    def __call__(self, events: Sequence[Any]) -> None:
        from finesweep.events import Reported, TrialFinished

        for event in events:
            if isinstance(event, Reported):
                metrics = event.report.metrics
                self._note("report", event.number, accuracy=metrics["accuracy"], loss=metrics.get("loss"))
            elif isinstance(event, TrialFinished):
                self._note("end", event.number, state=str(event.state))

    def refresh(self) -> None:
        """Nothing is shown."""

    def say(self, text: str) -> None:
        print(text, flush=True)

    def _note(self, event: str, number: int, **more: Any) -> None:
        self.notes.append({"event": event, "number": number, "at": time.time(), **more})


def cache_in(folder: Path) -> dict[str, str]:
    """Keep tokenised data and features of a benchmark in a folder of its own: cold at first, warm the second time."""
    return {"FINESWEEP_CACHE": os.fspath(folder)}
