"""Who may import whom, and what the light commands do not import."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import finesweep

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "ray", "transformers", "peft", "optuna", "datasets", "pandas", "sqlalchemy", "numpy")


def modules_after(code: str, cwd: Path) -> list[str]:
    """List what is imported when `code` has run in a fresh interpreter."""
    program = f"import json, sys\ntry:\n    {code}\nexcept SystemExit: pass\nprint(json.dumps(sorted(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=cwd, check=True)
    return list(json.loads(ran.stdout.splitlines()[-1]))


def test_imports_go_one_way() -> None:
    ran = subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"], cwd=ROOT, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stdout


@pytest.mark.parametrize(
    "code",
    [
        "import finesweep",
        "from finesweep.cli import main; main(['--help'])",
        "from finesweep.cli import main; main(['run', '--help'])",
    ],
)
def test_what_is_light_imports_nothing_heavy(code: str) -> None:
    assert not set(HEAVY) & set(modules_after(code, ROOT))


def test_check_imports_nothing_heavy(tmp_path: Path) -> None:
    """On a sweep without faults, so that everything `check` does has run."""
    (tmp_path / "rows.csv").write_text("text,label\na,x\n")
    (tmp_path / "sweep.yaml").write_text(
        "name: s\nmodel: org/model\ntask: classification\ndata: {train: rows.csv, validation: rows.csv}\n"
        "budget: {trials: 2}\nstudy:\n  objective: {metric: accuracy, direction: maximize}\n"
        "  parameters: {learning_rate: {type: float, low: 1e-5, high: 1e-3, log: true}}\n"
    )
    modules = modules_after("from finesweep.cli import main; main(['check', 'sweep.yaml'])", tmp_path)
    assert "finesweep.spec.files" in modules
    assert not set(HEAVY) & set(modules)


def test_public_names_are_there() -> None:
    assert [name for name in finesweep.__all__ if not hasattr(finesweep, name)] == []
    assert sorted(finesweep.__all__) == finesweep.__all__


def test_an_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'sweeep'"):
        _ = finesweep.sweeep  # type: ignore[attr-defined]
