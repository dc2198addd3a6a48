"""A disk that fills while the results database is being written: a real one, of half a mebibyte."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from finesweep.results.frames import open_results

TRAINER = """
def train(trial, reporter):
    for step in range(1, 31):
        value = step / 30 - abs(trial.configuration["learning_rate"] - 1e-3)
        if reporter.report(examples_seen=step * 100, metrics={"accuracy": value}).must_return:
            return
"""
SWEEP = """
name: tickets
trainer: my_training:train
training: {eval_every: 100, total_examples: 3000}
study:
  objective: {metric: accuracy, direction: maximize}
  sampler: {type: random, seed: 0}
  pruner: {type: none}
  parameters:
    learning_rate: {type: float, low: 1.0e-5, high: 1.0e-1, log: true}
budget: {trials: 30}
artifacts: {folder: files}
"""
SCRIPT = """
set -e
mount -t tmpfs -o size=700k tmpfs disk
cd {folder}
{finesweep} run sweep.yaml --results disk/r.db --backend inline > first.txt 2>&1 && exit 20
echo $? > first.rc
{finesweep} status tickets --results disk/r.db --json > between.json
mount -o remount,size=20m disk
{finesweep} resume tickets --results disk/r.db --backend inline > second.txt 2>&1
cp disk/r.db* .
"""


def has_mounts() -> bool:
    unshare = shutil.which("unshare")
    return unshare is not None and subprocess.run([unshare, "-rm", "true"], capture_output=True).returncode == 0


@pytest.mark.skipif(not has_mounts(), reason="no disk may be mounted here")
def test_a_full_disk_under_the_database_is_said_and_the_sweep_goes_on_once_there_is_space(tmp_path: Path) -> None:
    (tmp_path / "my_training.py").write_text(TRAINER, encoding="utf-8")
    (tmp_path / "sweep.yaml").write_text(SWEEP, encoding="utf-8")
    (tmp_path / "disk").mkdir()
    script = SCRIPT.format(folder=tmp_path, finesweep=f"{sys.executable} -m finesweep")
    ran = subprocess.run(["unshare", "-rm", "bash", "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    said = (tmp_path / "first.txt").read_text(encoding="utf-8")
    assert (tmp_path / "first.rc").read_text() == "1\n"
    assert "Free some space on that disk, then resume the sweep; nothing stored is lost." in said
    assert "finesweep resume tickets --results disk/r.db" in said
    assert "Traceback" not in said
    trials = open_results(tmp_path / "r.db").trials("tickets")
    assert list(trials["number"]) == list(range(30))
    assert set(trials["state"]) == {"COMPLETE"}
    points = open_results(tmp_path / "r.db").points("tickets")
    assert len(points[points["metric"] == "accuracy"]) == 30 * 30
