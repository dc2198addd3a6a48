"""A whole sweep through the public API on the inline backend, with a trainer that takes no time, and who watches it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import optuna

import finesweep
from finesweep import Reporter, SweepEnd, Trial
from finesweep.events import Event, SweepHistory, TrialFinished
from finesweep.results.frames import Results, open_results
from finesweep.spec.study import Objective
from finesweep.spec.sweep import SweepSpec, read_sweep

NAME = "shared"
STATES = {"COMPLETE": "COMPLETE", "PRUNED": "PRUNED", "FAILED": "FAIL"}  # ours, Optuna's


def train(trial: Trial, reporter: Reporter) -> None:
    for step in (100, 200, 300, 400):
        if reporter.report(step, {"accuracy": float(str(trial.configuration["x"])) + step / 1000}).must_return:
            return


def sweep_spec(folder: Path, *, trials: int) -> SweepSpec:
    return read_sweep(
        {
            "name": NAME,
            "trainer": f"{__name__}:train",
            "training": {"eval_every": 100, "total_examples": 400},
            "study": {
                "objective": {"metric": "accuracy", "direction": "maximize"},
                "pruner": {"type": "asha"},
                "parameters": {"x": {"type": "float", "low": 0, "high": 1}},
            },
            "budget": {"trials": trials},
            "resources": {"devices": "cpu", "max_parallel": 1},
            "artifacts": {"folder": str(folder / "artifacts")},
        }
    )


@dataclass
class Watch:
    """A view that does something whenever a trial has ended."""

    on_end: Callable[[int], None] = lambda number: None

    def begin(self, objectives: Sequence[Objective], n_trials: int, history: SweepHistory) -> None: ...

    def set_total(self, n_trials: int) -> None: ...

    def __call__(self, events: Sequence[Event]) -> None:
        for event in events:
            if isinstance(event, TrialFinished):
                self.on_end(event.number)

    def refresh(self) -> None: ...

    def say(self, text: str) -> None: ...


def run(url: str, folder: Path, *, trials: int, on_end: Callable[[int], None] = lambda number: None) -> SweepEnd:
    return finesweep.run(sweep_spec(folder, trials=trials), results=url, backend="inline", view=Watch(on_end))


def resume(url: str) -> SweepEnd:
    return finesweep.resume(NAME, results=url, backend="inline", view=Watch())


def assert_whole(url: str, *, trials: int) -> Results:
    """Every trial ended once with its reports, and Optuna's tables say the same."""
    results = open_results(url)
    frame = results.trials(NAME)
    assert frame["number"].tolist() == list(range(trials))
    assert set(frame["state"]) <= {*STATES}
    told = results.metrics(NAME, ["accuracy"]).set_index("number")["accuracy"]
    assert [told[number] for number in frame["number"][frame["state"] == "COMPLETE"]] == frame[
        "value"
    ].dropna().tolist()
    points = results.points(NAME).groupby("number")["step"].apply(list)
    copies = optuna_trials(url)
    assert [copy.number for copy in copies] == frame["number"].tolist()
    assert [copy.state.name for copy in copies] == [STATES[state] for state in frame["state"]]
    for number, state, copy in zip(frame["number"], frame["state"], copies, strict=True):
        steps = points[number]
        assert steps == sorted(set(steps)) == sorted(copy.intermediate_values)
        assert (steps[-1] == 400) == (state == "COMPLETE")
    return results


def optuna_trials(url: str) -> list[optuna.trial.FrozenTrial]:
    storage = optuna.storages.RDBStorage(url)
    try:
        return optuna.load_study(study_name=NAME, storage=storage).trials
    finally:
        storage.remove_session()
        storage.engine.dispose()
