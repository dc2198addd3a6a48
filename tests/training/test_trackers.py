"""Trials stand as runs in TensorBoard, MLflow and W&B: what they wrote is read back by means of their own."""

from __future__ import annotations

import importlib.util
import json
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from finesweep.errors import TrackerError
from finesweep.events import Decision, Report
from finesweep.training.prepare import prepare

pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")  # mlflow's own

TRIAL = {"batch_size": 8, "learning_rate": 1e-3}

needs = {
    name: pytest.mark.skipif(importlib.util.find_spec(name) is None, reason=f"{name} is not installed")
    for name in ("tensorboard", "mlflow", "wandb")
}


@dataclass
class Found:
    """A run as a tracker shows it."""

    name: str
    group: str
    state: str
    configuration: Mapping[str, Any]
    points: dict[str, list[tuple[int, float]]] = field(default_factory=dict)


def stop_at(step: int, answer: Decision) -> Callable[[Report], Decision]:
    return lambda report: answer if report.step == step else Decision.CONTINUE


def break_at(step: int) -> Callable[[Report], Decision]:
    def decide(report: Report) -> Decision:
        if report.step == step:
            raise RuntimeError("out of luck")
        return Decision.CONTINUE

    return decide


def read_tensorboard(artifact_dir: Path) -> dict[str, Found]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    runs = {}
    for folder in sorted((artifact_dir / "tensorboard").iterdir()):
        events = EventAccumulator(str(folder)).Reload()
        tags = events.Tags()
        content = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
        values = HParamsPluginData.FromString(content).session_start_info.hparams
        runs[folder.name] = Found(
            name=folder.name,
            group=folder.name.rpartition("-")[0],
            state=events.Tensors("state/text_summary")[-1].tensor_proto.string_val[0].decode(),
            configuration={name: value.number_value for name, value in values.items()},
            points={tag: [(point.step, point.value) for point in events.Scalars(tag)] for tag in tags["scalars"]},
        )
    return runs


def read_mlflow(artifact_dir: Path) -> dict[str, Found]:
    from mlflow import MlflowClient

    client = MlflowClient()
    [experiment] = [one for one in client.search_experiments() if one.name != "Default"]
    runs = {}
    for run in client.search_runs([experiment.experiment_id]):
        metrics = {name: client.get_metric_history(run.info.run_id, name) for name in run.data.metrics}
        runs[run.info.run_name] = Found(
            name=run.info.run_name,
            group=experiment.name,
            state=f"{run.data.tags['state']} {run.info.status}",
            configuration={name: float(value) for name, value in run.data.params.items()},
            points={name: [(one.step, one.value) for one in history] for name, history in metrics.items()},
        )
    return runs


def read_wandb(artifact_dir: Path) -> dict[str, Found]:
    """Read what an offline run leaves for `wandb sync`: the parts of a run share its id."""
    by_id: dict[str, Found] = {}
    for path in sorted((artifact_dir / "wandb").glob("offline-run-*/run-*.wandb")):
        for record in finished_wandb_records(path):
            match record.WhichOneof("record_type"):
                case "run":
                    run = record.run
                    known = by_id.setdefault(run.run_id, Found(run.display_name, run.run_group, "", {}))
                    assert (run.display_name, run.run_group) == (known.name, known.group)
                    config = {update.key: json.loads(update.value_json) for update in run.config.update}
                    known.configuration = {name: config[name] for name in TRIAL if name in config}
                    known.state = " ".join(run.tags) or known.state
                case "history":
                    row = {"".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
                    for name, value in row.items():
                        if name != "step" and not name.startswith("_"):
                            known.points.setdefault(name, []).append((row["step"], value))
    return {run.name: run for run in by_id.values()}


def finished_wandb_records(path: Path) -> list[Any]:
    """Wait for the end of a run: a process of W&B's own writes it."""
    deadline_s = time.monotonic() + 30
    while time.monotonic() < deadline_s:
        records = list(wandb_records(path))
        if records and records[-1].WhichOneof("record_type") == "exit":
            return records
        time.sleep(0.05)
    raise TimeoutError(f"{path} has no end")


def wandb_records(path: Path) -> Iterator[Any]:
    """Read a log in blocks of 32 KiB, in which a record may be split (LevelDB's format)."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, part = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        part += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            yield Record.FromString(part)
            part = b""


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep the trackers on this machine, as their users do."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")


READERS = {
    "tensorboard": (read_tensorboard, "tiny-{}", dict.fromkeys(("COMPLETE", "PRUNED", "FAILED"), "")),
    "mlflow": (read_mlflow, "tiny:{}", {"COMPLETE": " FINISHED", "PRUNED": " KILLED", "FAILED": " FAILED"}),
    "wandb": (read_wandb, "tiny:{}", dict.fromkeys(("COMPLETE", "PRUNED", "FAILED"), "")),
}


@pytest.mark.parametrize("tracker", [pytest.param(name, marks=needs[name]) for name in READERS])
def test_each_trial_is_a_run(bench: Any, recorder: Any, elsewhere: None, tracker: str) -> None:
    """Several trials in one process: one to its end, one paused and resumed elsewhere, one pruned, one that fails."""
    read, name, also = READERS[tracker]
    set_up = bench(report_to=tracker)
    _, whole = set_up.run(number=0, **TRIAL)
    _, before = set_up.run(recorder(decide=stop_at(40, Decision.PAUSE)), number=1, attempt=1, **TRIAL)
    _, pruned = set_up.run(recorder(decide=stop_at(80, Decision.STOP)), number=2, **TRIAL)
    failed = recorder(decide=break_at(80))
    with pytest.raises(RuntimeError):
        set_up.run(failed, number=3, **TRIAL)
    _, after = bench(report_to=tracker).run(number=1, attempt=2, **TRIAL)

    runs = read(set_up.artifact_dir)
    told = {
        0: ("COMPLETE", whole.reports),
        1: ("COMPLETE", [*before.reports, *after.reports]),
        2: ("PRUNED", pruned.reports),
        3: ("FAILED", failed.reports[:-1]),
    }
    assert sorted(runs) == [name.format(number) for number in told]
    for number, (state, reports) in told.items():
        run = runs[name.format(number)]
        assert (run.group, run.state) == ("tiny", state + also[state])
        assert run.configuration == TRIAL
        assert set(run.points) == set(whole.reports[0].metrics)
        for metric, points in run.points.items():
            assert [step for step, _ in points] == [report.step for report in reports]
            assert [value for _, value in points] == pytest.approx([report.metrics[metric] for report in reports])


TWO_WORKERS = """
import sys
from pathlib import Path
from finesweep.events import TrialSpec
from finesweep.spec.sweep import FunctionSweep
from finesweep.training.trackers import ShownTrial, open_run

study = {
    "objective": {"metric": "loss", "direction": "minimize"},
    "parameters": {"rate": {"type": "float", "low": 0, "high": 1}},
}
spec = FunctionSweep.model_validate({"name": "two", "study": study, "trainer": "my:trainer", "budget": {"trials": 2}})
print("ready", flush=True)
sys.stdin.readline()
open_run("mlflow", ShownTrial(spec, TrialSpec(int(sys.argv[1]), 1, {"rate": 0.5}), Path(sys.argv[2])), None)
"""


@needs["mlflow"]
def test_workers_that_begin_at_once_make_one_experiment(elsewhere: None, tmp_path: Path) -> None:
    """The tables of a new database, too: mlflow itself has each process make them, and all but one fail."""
    workers = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", TWO_WORKERS, str(number), str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    for worker in workers:
        _, said = worker.communicate(timeout=120)
        assert worker.returncode == 0, said

    from mlflow import MlflowClient

    [experiment] = [one for one in MlflowClient().search_experiments() if one.name != "Default"]
    assert experiment.name == "two"
    runs = MlflowClient().search_runs([experiment.experiment_id])
    assert sorted(run.info.run_name for run in runs) == ["two:0", "two:1"]


@needs["tensorboard"]
def test_what_an_earlier_attempt_has_shown_is_not_shown_twice(bench: Any, recorder: Any) -> None:
    """A worker died after a report and before its checkpoint: the report is made again."""
    set_up = bench(report_to="tensorboard", checkpoint_minutes=60)
    with pytest.raises(RuntimeError):
        set_up.run(recorder(decide=break_at(80)), attempt=1, **TRIAL)
    _, after = set_up.run(attempt=2, **TRIAL)
    assert after.steps[0] == 40
    [run] = read_tensorboard(set_up.artifact_dir).values()
    assert [step for step, _ in run.points["accuracy"]] == after.steps


def test_a_tracker_that_cannot_be_reached_costs_a_trial_nothing(
    bench: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "no-such-place://x")
    _, plain = bench().run(number=1, **TRIAL)
    _, told = bench(report_to=["mlflow", "tensorboard"]).run(number=2, **TRIAL)
    assert told.reports == plain.reports
    assert list(told.facts["tracker_problems"]) == ["mlflow"]
    assert caplog.text.count("mlflow does not show the rest of this attempt") == 1


def test_a_tracker_that_is_not_installed_is_told_before_anything_is_trained(
    make_spec: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(TrackerError, match=r'report_to: wandb is not installed. .*pip install "finesweep\[wandb\]"'):
        prepare(make_spec(report_to=["wandb"]), cache_dir=tmp_path)
