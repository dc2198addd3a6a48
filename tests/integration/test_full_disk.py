"""A disk that fills under the trials' checkpoints: a real one, of two mebibytes."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from tests.integration.conftest import Workplace

DRIVE = """
import sys
from pathlib import Path

from finesweep.cli import main

def run(*arguments):
    try:
        main([*arguments, "--backend", "inline"])
    except SystemExit as end:
        print("exit code", end.code)

filler = Path("disk/filler")
filler.write_bytes(bytes(2 * 2**20 - 100_000))
run("run", "sweep.yaml")
print("left behind:", sorted(path.name for path in Path("disk").glob("tiny/trial-*/attempt-*/.*")))
taken = sum(path.stat().st_size for path in Path("disk").rglob("*") if path.is_file())
print("free again:", taken < 2 * 2**20 - 50_000)
filler.unlink()
run("resume", "tiny")
"""


def has_mounts() -> bool:
    unshare = shutil.which("unshare")
    return unshare is not None and subprocess.run([unshare, "-rm", "true"], capture_output=True).returncode == 0


@pytest.mark.skipif(not has_mounts(), reason="no disk may be mounted here")
@pytest.mark.parametrize(
    "keep",  # none: checkpoints fill it; all: weights do
    ["none", pytest.param("all", marks=pytest.mark.slow)],
)
def test_a_full_disk_pauses_the_sweep_and_it_goes_on_once_there_is_space(workplace: Workplace, keep: str) -> None:
    folder = workplace.folder
    sweep = workplace.folder / "sweep.yaml"
    sweep.write_text(sweep.read_text() + f"artifacts: {{folder: disk, keep: {keep}}}\n")
    workplace.write(
        {"budget": {"trials": 2}, "training": {"checkpoint_minutes": 0}}, study={"pruner": {"type": "none"}}
    )
    (folder / "disk").mkdir()
    (folder / "drive.py").write_text(DRIVE)
    command = f"mount -t tmpfs -o size=2m tmpfs disk && exec {sys.executable} drive.py"
    ran = subprocess.run(["unshare", "-rm", "bash", "-c", command], cwd=folder, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    said = ran.stderr
    assert f"tiny: no space left on the disk of {folder}/disk/tiny/trial-0000/attempt-1 (0." in said  # MiB free
    assert "Free some, then resume." in said
    assert "finesweep resume tiny" in said
    assert "Traceback" not in said
    told = ran.stdout.splitlines()
    assert [line for line in told if line.startswith("exit")] == ["exit code 1", "exit code 0"]
    assert "left behind: []" in told and "free again: True" in told
    attempts = workplace.results.attempts("tiny")
    assert list(attempts["ending"]) == ["blocked", "done", "done"]
    assert list(workplace.results.trials("tiny")["state"]) == ["COMPLETE", "COMPLETE"]
