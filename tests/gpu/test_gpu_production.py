"""From a sweep on a GPU to a model for production: exported, trained, tried, launched by torchrun, reproduced."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.gpu.conftest import CLASSES, note
from tests.integration.conftest import Workplace
from tests.training.conftest import write_rows

REPEATS = 3
FEW = {"max_train_rows": 256, "max_validation_rows": 64}


def run_inline(workplace: Callable[..., Workplace], **options: Any) -> Workplace:
    """Run a sweep of one trial in this process."""
    place = workplace(start_with=[{"learning_rate": 2e-4}], **options)
    place.say("run", "sweep.yaml", "--backend", "inline")
    return place


def test_from_the_sweep_to_predictions(workplace: Callable[..., Workplace], tmp_path: Path) -> None:
    place = run_inline(workplace, dropout=0.1, training={"epochs": 2})
    place.say("export", "gpu", "--best", "--to", "yaml", "-o", "best.yaml")
    trained = place.say("train", "best.yaml", "-o", "model")
    told = json.loads((tmp_path / "model" / "metrics.json").read_text())
    assert told["facts"]["device"] == torch.cuda.get_device_name(0)
    assert "Not as it was" not in trained.stderr
    best = place.results.best("gpu")
    assert best is not None
    now = told["splits"]["validation"]["loss"]
    note("trained again", then=best.value, now=now)
    assert now == pytest.approx(best.value, abs=0.02)

    texts = [{"text": " ".join(f"w{i}" for i in range(kind, 60, 4))} for kind in range(len(CLASSES))]
    write_rows(tmp_path / "asked.jsonl", texts)
    said = place.say("predict", "model", "--data", "asked.jsonl").stdout
    assert [json.loads(line)["label"] for line in said.splitlines()] == list(CLASSES)


def test_a_process_under_torchrun_trains_the_same(workplace: Callable[..., Workplace], tmp_path: Path) -> None:
    place = run_inline(workplace, training={"epochs": 1})
    place.say("export", "gpu", "--best", "--to", "yaml", "-o", "best.yaml")
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "1",
        "-m",
        "finesweep",
    ]
    environment = {**os.environ, "FINESWEEP_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    launched = subprocess.run(
        [*command, "train", "best.yaml", "-o", "model"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert launched.returncode == 0, launched.stderr
    told = json.loads((tmp_path / "model" / "metrics.json").read_text())
    assert told["n_processes"] == 1
    best = place.results.best("gpu")
    assert best is not None
    assert told["splits"]["validation"]["loss"] == pytest.approx(best.value, abs=0.02)


WAYS: Mapping[str, Mapping[str, Any]] = {
    "encoder, full": {"dropout": 0.1, "training": {"epochs": 3}},
    "encoder, full, bf16": {"dropout": 0.1, "training": {"epochs": 3, "bf16": True}},
    "encoder, head": {"training": {"epochs": 3, "method": "feature-extraction"}},
    "decoder, lora": {"kind": "decoder", "data": FEW, "training": {"epochs": 2, "method": "lora"}},
    "decoder, full, bf16": {"kind": "decoder", "data": FEW, "training": {"epochs": 2, "bf16": True}},
}


@pytest.mark.parametrize("way", WAYS)
def test_reproduced_within_the_tolerance_of_a_gpu(workplace: Callable[..., Workplace], way: str) -> None:
    place = run_inline(workplace, **WAYS[way])
    gaps: dict[str, float] = {}
    for _ in range(REPEATS):
        said = json.loads(place.say("reproduce", "gpu:0", "--json").stdout)
        assert said["is_met"], said
        assert said["tolerance"] == 0.02
        for row in said["reports"]:
            gaps[row["metric"]] = max(row["gap"], gaps.get(row["metric"], 0.0))
    note("reproduced", way=way, repeats=REPEATS, largest_gaps=gaps)
    assert max(gaps.values()) <= 0.02
