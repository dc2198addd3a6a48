"""The plain PyTorch trainer under sweeps/ learns, stops where it is told to, and goes on as if it had never stopped."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from finesweep.events import AttemptResult, Decision, Ending, Grid, TrialSpec
from finesweep.spec.files import load_sweep
from finesweep.spec.sweep import FunctionSweep
from finesweep.training.function import FunctionTrainer, FunctionTrainerFactory

ROOT = Path(__file__).parents[2]
SETTINGS = {"encoder_learning_rate": 1e-2, "head_learning_rate": 1e-2, "batch_size": 8, "epochs": 4}

Run = Callable[..., AttemptResult]


@pytest.fixture
def trainer(tmp_path: Path, tiny_bert: Path, data_dir: Path) -> Iterator[FunctionTrainer]:
    """The sweep as it is shipped, on a tiny model and other rows."""
    path = list(sys.path)
    shutil.copy(ROOT / "sweeps/plain_pytorch.py", tmp_path)
    spec = load_sweep(
        ROOT / "sweeps/plain-pytorch.yaml",
        overrides=[
            f"model={tiny_bert}",
            f"data.train={data_dir / 'train.jsonl'}",
            f"data.validation={data_dir / 'validation.jsonl'}",
            "training.eval_every=50",
        ],
    )
    assert isinstance(spec, FunctionSweep)
    yield FunctionTrainerFactory(spec, Grid("examples", every=50, longest=0), tmp_path / "artifacts")()
    sys.path[:] = path
    sys.modules.pop("plain_pytorch", None)


def test_it_learns_and_leaves_its_model(trainer: FunctionTrainer, recorder: Any, tmp_path: Path) -> None:
    told = recorder()
    result = trainer.run(TrialSpec(1, 1, {**SETTINGS, "epochs": 8}), told)
    assert (result.ending, result.artifacts) == (Ending.DONE, {"folder": "trial-0001/folder"})
    assert told.steps == [*range(50, 450, 50), 424]
    assert [report.examples_seen for report in told.reports[:3]] == [53, 101, 154]  # the last batch of an epoch has 5
    assert told.reports[-1].final
    assert told.reports[-1].metrics["accuracy"] > 0.55  # of three classes in equal parts
    (left,) = (tmp_path / "artifacts/trial-0001/folder").iterdir()
    assert "head.weight" in torch.load(left, weights_only=True)


def test_stopped_at_a_report_or_between_two_it_goes_on_as_if_it_had_not(
    trainer: FunctionTrainer, recorder: Any
) -> None:
    whole = recorder()
    trainer.run(TrialSpec(1, 1, SETTINGS), whole)
    parts = [
        recorder(decide=lambda report: Decision.PAUSE if report.step == 100 else Decision.CONTINUE),
        recorder(on_poll=lambda n: Decision.PAUSE if n == 2 else Decision.CONTINUE),
        recorder(),
    ]
    endings = [trainer.run(TrialSpec(2, n, SETTINGS), part).ending for n, part in enumerate(parts, start=1)]
    assert endings == [Ending.PAUSED, Ending.PAUSED, Ending.DONE]
    assert [report for part in parts for report in part.reports] == whole.reports
    assert parts[1].facts["resumed_from"] == "trial-0002/folder"


def test_it_stops_for_good_when_told(trainer: FunctionTrainer, recorder: Any) -> None:
    told = recorder(decide=lambda report: Decision.STOP)
    assert trainer.run(TrialSpec(1, 1, SETTINGS), told).ending is Ending.STOPPED
    assert told.steps == [50]
