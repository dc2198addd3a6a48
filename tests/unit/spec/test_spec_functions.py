"""Functions of the user's own: found where they are, without running what stands beside them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from finesweep.spec.functions import find_function
from finesweep.spec.inputs import InputProblem

if TYPE_CHECKING:
    from conftest import Files

CODE = """\
raise SystemExit("nobody imports this")
import json as notation
try:
    from somewhere import borrowed
except ImportError:
    borrowed = None
if True:
    def cost(predictions, labels): ...
class Score: ...
first, second = max, min
"""


@pytest.fixture
def code_dir(tmp_path: Path) -> Path:
    (tmp_path / "shop_rules.py").write_text(CODE)
    package = tmp_path / "shop" / "inner"
    package.mkdir(parents=True)
    (tmp_path / "shop" / "__init__.py").write_text("raise SystemExit\n")
    (package / "__init__.py").write_text("def within(): ...\n")
    (tmp_path / "loose").mkdir()
    (tmp_path / "loose" / "part.py").write_text("from math import *\n")
    (tmp_path / "broken.py").write_text("x = 1\ndef f(:\n")
    return tmp_path


@pytest.mark.parametrize(
    "text",
    [
        *(f"shop_rules:{name}" for name in ("cost", "Score", "borrowed", "notation", "first", "second")),
        "shop.inner:within",
        "loose.part:sqrt",  # a star import may bring anything
        "statistics:mean",
        "math:sqrt",  # compiled: nothing to read
    ],
)
def test_what_is_there_is_found_without_running_it(code_dir: Path, text: str) -> None:
    before = set(sys.modules)
    find_function(text, code_dir)
    assert not {"shop_rules", "shop", "shop.inner", "loose", "loose.part"} & (set(sys.modules) - before)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("shop_rule:cost", 'there is no module "shop_rule", neither installed nor in HERE; did you mean "shop_rules"?'),
        ("shop.outer:within", 'there is no module "shop.outer"'),
        ("statistics.deep:mean", 'there is no module "statistics.deep"'),
        ("shop_rules:costs", 'function "costs" is not in module shop_rules (HERE/shop_rules.py); did you mean "cost"?'),
        ("shop.inner:without", 'function "without" is not in module shop.inner'),
        ("loose:part", 'function "part" is not in module loose'),
        ("broken:f", "HERE/broken.py:2 is no Python"),
    ],
)
def test_what_is_not_there_is_told_with_the_nearest(code_dir: Path, text: str, told: str) -> None:
    with pytest.raises(InputProblem) as problem:
        find_function(text, code_dir)
    assert told.replace("HERE", str(code_dir)) in str(problem.value)


def test_a_module_that_an_installed_one_hides_is_named(code_dir: Path) -> None:
    (code_dir / "statistics.py").write_text("def cost(): ...\n")
    with pytest.raises(InputProblem, match=r"It hides .*statistics.py, since installed packages come first: rename"):
        find_function("statistics:cost", code_dir)


def test_the_folder_of_the_code_is_kept_with_the_sweep(files: Files) -> None:
    (files.root / "code").mkdir()
    (files.root / "code" / "shop_rules.py").write_text(CODE)
    (files.root / "sweeps" / "shop_rules.py").write_text(CODE)
    own = "evaluation.metrics={cost: shop_rules:cost}"
    assert files.load().code_dir is None
    assert files.load(own).code_dir == str(files.root / "sweeps")
    files.edit("sweep", "name: tickets", "name: tickets\ncode_dir: ../code")
    assert files.load(own).code_dir == str(files.root / "code")
    assert files.load("trainer=shop_rules:cost", "training={eval_every: 20}").code_dir == str(files.root / "code")


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("trainer=shop_rules:train", '--set: trainer: there is no module "shop_rules"'),
        (
            "trainer=transformer",
            '--set: trainer: "transformer" is neither transformers nor the name of a function of yours',
        ),
        ("trainer=3", "--set: trainer: 3 is neither"),
        ("evaluation.metrics={cost: rules}", '--set: evaluation.metrics.cost: "rules" is not the name of a function'),
        ("code_dir=nowhere", '--set: code_dir: there is no folder "nowhere"'),
        ("code_dir=3", "--set: code_dir: 3 is not"),
    ],
)
def test_a_name_that_cannot_be_used_is_a_fault_of_its_key(files: Files, override: str, told: str) -> None:
    faults = [fault for fault in files.faults(override) if not fault.startswith("studies") and "training" not in fault]
    assert len(faults) == 1
    assert faults[0].startswith(told)
