"""The experiment trackers that trials can be shown in, one function each: TensorBoard, MLflow, Weights & Biases.

In: a trial, and the id of its run where an earlier attempt began one. Out: the run, to be told metrics. Where a tracker
keeps its runs, and who may write there, it knows itself, mostly from environment variables of its own.

Not transformers' callbacks: those know one run a process, all of TrainingArguments, and optimizer steps.
"""

from __future__ import annotations

import importlib.util
import os
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock

from finesweep.errors import TrackerError
from finesweep.events import TrialSpec, TrialState
from finesweep.spec.study import Objective
from finesweep.spec.sweep import SweepSpec, Tracker


def require_trackers(trackers: Sequence[Tracker]) -> None:
    """Raise TrackerError unless all of them are installed."""
    for name in trackers:
        if importlib.util.find_spec(name) is None:
            raise TrackerError(
                f'training.report_to: {name} is not installed. Install it: pip install "finesweep[{name}]", or '
                "remove it."
            )


@dataclass(frozen=True, slots=True)
class ShownTrial:
    """What a tracker is told of a trial before its first report."""

    spec: SweepSpec
    trial: TrialSpec
    artifact_dir: Path

    @property
    def name(self) -> str:
        return f"{self.spec.name}:{self.trial.number}"

    @property
    def about(self) -> dict[str, Any]:
        """Name what the trial belongs to."""
        model = self.spec.model.name if self.spec.model else None
        return {"sweep": self.spec.name, "trial": self.trial.number, "model": model, "task": self.spec.task}

    @property
    def objectives(self) -> tuple[Objective, ...]:
        return self.spec.study.objectives


class Run(Protocol):
    """A trial in one tracker."""

    def describe(self, facts: Mapping[str, Any]) -> None: ...

    def log(self, step: int, metrics: Mapping[str, float]) -> None: ...

    def close(self, state: TrialState) -> None: ...


def open_run(tracker: Tracker, shown: ShownTrial, run_id: str | None) -> tuple[Run, str]:
    """Begin the trial's run, or go on with the one that an earlier attempt has begun. Return it with its id."""
    return _OPENERS[tracker](shown, run_id)


def open_tensorboard(shown: ShownTrial, run_id: str | None) -> tuple[Run, str]:
    """Write event files below the sweep's artifact folder: `tensorboard --logdir artifacts` shows all sweeps."""
    from torch.utils.tensorboard import SummaryWriter
    from torch.utils.tensorboard.summary import hparams

    name = f"{shown.spec.name}-{shown.trial.number}"
    writer = SummaryWriter(str(shown.artifact_dir / "tensorboard" / name))
    if run_id is None:
        names = dict.fromkeys((objective.metric for objective in shown.objectives), 0.0)
        configuration = {key: "none" if value is None else value for key, value in shown.trial.configuration.items()}
        begin, description, _ = hparams(configuration, names)
        for summary in (begin, description):
            writer.file_writer.add_summary(summary)
    return _TensorBoardRun(writer), name


class _TensorBoardRun:
    def __init__(self, writer: Any) -> None:  # Any: a SummaryWriter, which is untyped
        self._writer = writer

    def describe(self, facts: Mapping[str, Any]) -> None:
        for name, value in facts.items():
            self._writer.add_text(f"facts/{name}", str(value))

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self, state: TrialState) -> None:
        self._writer.add_text("state", state)
        self._writer.close()


def open_mlflow(shown: ShownTrial, run_id: str | None) -> tuple[Run, str]:
    """Write runs of the experiment that is named after the sweep, or by MLFLOW_EXPERIMENT_NAME."""
    from mlflow import MlflowClient
    from mlflow.entities import Param

    with FileLock(shown.artifact_dir / "mlflow.lock"):  # the first worker makes tables and experiment; two at once fail
        client = MlflowClient()
        experiment_id = _experiment(client, os.environ.get("MLFLOW_EXPERIMENT_NAME", shown.spec.name))
    if run_id is None:
        tags = {name: str(value) for name, value in shown.about.items()}
        run_id = str(client.create_run(experiment_id, run_name=shown.name, tags=tags).info.run_id)
        client.log_batch(run_id, params=[Param(name, str(v)) for name, v in shown.trial.configuration.items()])
    else:
        client.update_run(run_id, status="RUNNING")
    return _MlflowRun(client, run_id), run_id


def _experiment(client: Any, name: str) -> str:  # Any: mlflow is no dependency
    known = client.get_experiment_by_name(name)
    return str(client.create_experiment(name) if known is None else known.experiment_id)


class _MlflowRun:
    def __init__(self, client: Any, run_id: str) -> None:
        self._client, self._run_id = client, run_id

    def describe(self, facts: Mapping[str, Any]) -> None:
        from mlflow.entities import RunTag

        self._client.log_batch(self._run_id, tags=[RunTag(f"facts.{name}", str(v)) for name, v in facts.items()])

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now_ms = time.time_ns() // 1_000_000
        points = [Metric(name, value, now_ms, step) for name, value in metrics.items()]
        self._client.log_batch(self._run_id, metrics=points)

    def close(self, state: TrialState) -> None:
        self._client.set_tag(self._run_id, "state", str(state))
        self._client.set_terminated(self._run_id, _MLFLOW_STATUSES[state])


_MLFLOW_STATUSES = {
    TrialState.COMPLETE: "FINISHED",
    TrialState.PRUNED: "KILLED",
    TrialState.INTERRUPTED: "SCHEDULED",
    TrialState.FAILED: "FAILED",
}


def open_wandb(shown: ShownTrial, run_id: str | None) -> tuple[Run, str]:
    """Write runs of the group that is named after the sweep, in the project "finesweep" or that of WANDB_PROJECT."""
    import wandb

    run_id = run_id or uuid.uuid4().hex
    run = wandb.init(
        id=run_id,
        resume="allow",
        reinit="create_new",  # whatever run the process may have besides
        project=os.environ.get("WANDB_PROJECT", "finesweep"),
        group=shown.spec.name,
        name=shown.name,
        job_type="trial",
        config={**shown.about, **shown.trial.configuration},
        dir=str(shown.artifact_dir),
        settings=wandb.Settings(console="off", silent=True),
    )
    run.define_metric("step")
    run.define_metric("*", step_metric="step")
    for objective in shown.objectives:
        run.define_metric(objective.metric, step_metric="step", summary=_WANDB_SUMMARIES[objective.direction])
    return _WandbRun(run), run_id


class _WandbRun:
    def __init__(self, run: Any) -> None:  # Any: wandb is no dependency
        self._run = run

    def describe(self, facts: Mapping[str, Any]) -> None:
        self._run.config.update({f"facts.{name}": value for name, value in facts.items()}, allow_val_change=True)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self._run.log({"step": step, **metrics})

    def close(self, state: TrialState) -> None:
        others = [tag for tag in self._run.tags or () if tag not in set(TrialState)]
        self._run.tags = (*others, str(state))
        self._run.summary["state"] = str(state)
        self._run.finish(exit_code=1 if state is TrialState.FAILED else 0)


_WANDB_SUMMARIES = {"maximize": "max", "minimize": "min"}

_OPENERS: Mapping[Tracker, Callable[[ShownTrial, str | None], tuple[Run, str]]] = {
    "tensorboard": open_tensorboard,
    "mlflow": open_mlflow,
    "wandb": open_wandb,
}
