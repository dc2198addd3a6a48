"""The wheel holds all that the package needs, away from the repository."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.integration.conftest import Workplace

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_alone_says_help_and_checks_files(wheel: Path, workplace: Workplace, tmp_path: Path) -> None:
    """Unpacked first on the path of an interpreter in which the repository cannot be imported."""
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    environment = {**os.environ, "PYTHONPATH": str(site)}

    def python(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments], cwd=workplace.folder, env=environment, capture_output=True, text=True
        )

    assert python("-c", "import finesweep; print(finesweep.__file__)").stdout.startswith(str(site))
    assert "check" in python("-m", "finesweep", "--help").stdout
    checked = python("-m", "finesweep", "check", "sweep.yaml")
    assert (checked.returncode, checked.stdout) == (0, "sweep.yaml: no faults.\n"), checked.stderr
    broken = python("-m", "finesweep", "check", "sweep.yaml", "--set", "training.adam_betta1=0.8")
    assert broken.returncode == 2 and "adam_beta1" in broken.stderr


def test_the_wheel_has_the_package_and_its_data_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    own = ("py.typed", "spec/training_arguments.json", "export/record.schema.json", "results/migrations/version_2.py")
    own += ("dashboard/templates/base.html", "dashboard/assets/dashboard.js", "dashboard/assets/style.css")
    assert {f"finesweep/{name}" for name in own} <= set(names)
    assert {name.split("/")[0].split("-")[0] for name in names} == {"finesweep"}
