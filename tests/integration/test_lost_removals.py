"""A driver that dies between a trial's outcome and the removal of files: the next drive makes up for it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import yaml

from finesweep.results.frames import open_results

TRAINER = """
def train(trial, reporter):
    (trial.folder / "weights").write_bytes(bytes(1000))
    reporter.report(100, {"score": trial.configuration["rate"]})
"""
DRIVE = """
import os, shutil, signal, sys

from finesweep.cli import main

if sys.argv[1] == "die":  # before the first file is removed
    shutil.rmtree = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
main([*sys.argv[2:], "--backend", "inline"])
"""


def test_a_removal_that_died_with_its_driver_is_made_up_for(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(TRAINER)
    (tmp_path / "drive.py").write_text(DRIVE)
    sweep = {
        "name": "shop",
        "trainer": "shop:train",
        "study": {
            "objective": {"metric": "score", "direction": "maximize"},
            "sampler": {"type": "grid"},
            "parameters": {"rate": {"type": "categorical", "choices": [0.1, 0.2, 0.3]}},
        },
        "training": {"eval_every": 100, "total_examples": 100},
        "start_with": [{"rate": rate} for rate in (0.1, 0.2, 0.3)],
        "budget": {"trials": 3},
        "artifacts": {"folder": "files", "keep": "best 1"},
    }
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(sweep, sort_keys=False))

    killed = subprocess.run([sys.executable, "drive.py", "die", "run", "sweep.yaml"], cwd=tmp_path, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    results = open_results(tmp_path / "finesweep.db")
    assert list(results.trials("shop")["state"]) == ["COMPLETE", "COMPLETE"]
    assert holding_weights(tmp_path) == ["trial-0000", "trial-0001"]

    resumed = [sys.executable, "drive.py", "live", "resume", "shop"]
    subprocess.run(resumed, cwd=tmp_path, check=True, capture_output=True)
    assert holding_weights(tmp_path) == ["trial-0002"]
    artifacts = results.artifacts("shop")
    assert list(artifacts[artifacts["removed_at"].isna()]["number"]) == [2]


def holding_weights(folder: Path) -> list[str]:
    return sorted(path.parts[-3] for path in folder.glob("files/shop/trial-*/folder/weights"))
