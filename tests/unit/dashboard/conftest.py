"""A results database as the dashboard meets it, with hostile texts, and a client that asks from the loopback."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from finesweep.dashboard.app import make_app
from finesweep.events import AttemptEnded, AttemptResult, Ending, Event, Grid, TrialState
from finesweep.layout import log_path
from finesweep.notebook import Results, open_results
from finesweep.results.writer import ResultsWriter, open_writer
from finesweep.spec.sweep import SweepSpec

PARAMETERS = {
    "learning_rate": {"type": "float", "low": 1e-6, "high": 1e-1, "log": True},
    "batch_size": {"type": "categorical", "choices": [8, 16, 32]},
    "lr_scheduler_type": {"type": "categorical", "choices": ["linear", "cosine"]},
}
SCRIPT = "<script>alert('owned')</script>"
LOOPBACK = "http://127.0.0.1:8765"


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[ResultsWriter]:
    now_s = iter(range(1000, 10**6))
    with open_writer(tmp_path / "r.db", clock=lambda: float(next(now_s))) as opened:
        yield opened


@pytest.fixture
def results(
    writer: ResultsWriter,
    tmp_path: Path,
    make_spec: Callable[..., SweepSpec],
    trial_events: Callable[..., list[Event]],
) -> Results:
    """Keep three COMPLETE trials, one PRUNED, one FAILED with a script in what it says; a front; an empty sweep."""
    folder = tmp_path / "artifacts"
    for name, others in (("tickets", None), ("two", {"size": "minimize"}), ("empty", None)):
        objectives = {"accuracy": "maximize", **(others or {})}
        objective = [{"metric": metric, "direction": direction} for metric, direction in objectives.items()]
        spec = make_spec(name, study={"objective": objective, "parameters": PARAMETERS})
        writer.create_sweep(
            spec, grid=Grid("examples", 100, 400), provenance={"artifact_dir": str(folder), "labels": [SCRIPT]}
        )
    take = writer.listener("tickets")

    def told(number: int, values: list[float], **options: Any) -> list[Event]:
        learning_rate, batch_size = 10.0 ** -(2 + number), [8, 16, 32][number % 3]
        configuration = {"learning_rate": learning_rate, "batch_size": batch_size, "lr_scheduler_type": "cosine"}
        facts = {"device_batch_size": 8, "accumulation": 2, "warmup_steps_asked": 50, "warmup_steps": 20, "pid": 7}
        return trial_events(number, values, configuration=configuration, facts=facts, **options)

    for number in range(3):
        take(told(number, [0.1 * number + 0.1, 0.1 * number + 0.5]))
    take(told(3, [0.05], state=TrialState.PRUNED, reason="rung"))
    *begun, _, ended = told(4, [0.99], state=TrialState.FAILED, reason=f"boom {SCRIPT}")
    traceback = f"Traceback:\n{SCRIPT}"
    take([*begun, AttemptEnded(4, 1, AttemptResult(Ending.FAILED, f"boom {SCRIPT}", traceback)), ended])
    for number in range(2):
        writer.listener("two")(told(number, [0.5, 0.6 + number / 10], others={"size": [3.0, 2.0 + number]}))
    path = log_path(folder, 0)
    path.parent.mkdir(parents=True)
    path.write_text(f"epoch 1\n{SCRIPT}\n", encoding="utf-8")
    return open_results(writer.url)


@pytest.fixture
def client(results: Results) -> Iterator[TestClient]:
    with TestClient(make_app(results), base_url=LOOPBACK) as asking:
        yield asking
