"""Functions of the user's own are imported from the sweep's folder, and told of by the key that names them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from finesweep.errors import FunctionError
from finesweep.training.functions import load_function


@pytest.fixture
def code_dir(tmp_path: Path) -> Iterator[Path]:
    """Give a folder of modules, and leave the interpreter as it was."""
    path, modules = list(sys.path), set(sys.modules)
    yield tmp_path
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def test_a_function_is_imported_from_the_folder_last_of_all(code_dir: Path) -> None:
    (code_dir / "shop_costs.py").write_text("def cost(): return 7\n")
    (code_dir / "statistics.py").write_text("mean = None\n")
    assert load_function("shop_costs:cost", code_dir=str(code_dir), key="trainer")() == 7
    assert load_function("statistics:mean", code_dir=str(code_dir), key="trainer")([1, 3]) == 2
    assert sys.path[-1] == str(code_dir)
    assert sys.path.count(str(code_dir)) == 1


@pytest.mark.parametrize(
    ("code", "path", "told"),
    [
        ("", "shop_nothing:cost", r'trainer: there is no module "shop_nothing", neither installed nor in HERE'),
        ("", "shop_costs.part:cost", r'trainer: there is no module "shop_costs.part"'),
        (
            "import nobody_has_this",
            "shop_costs:cost",
            "trainer: importing shop_costs raised ModuleNotFoundError: No mod",
        ),
        ("1 / 0", "shop_costs:cost", "importing shop_costs raised ZeroDivisionError: division by zero. Try it: python"),
        ("raise SystemExit(3)", "shop_costs:cost", "trainer: importing shop_costs raised SystemExit: 3"),
        ("def costs(): ...", "shop_costs:cost", 'function "cost" is not in module shop_costs .*; did you mean "costs"'),
        ("cost = 3", "shop_costs:cost", "trainer: shop_costs:cost is no function but a int"),
    ],
)
def test_what_cannot_be_imported_is_told(code_dir: Path, code: str, path: str, told: str) -> None:
    (code_dir / "shop_costs.py").write_text(code)
    with pytest.raises(FunctionError, match=told.replace("HERE", str(code_dir))):
        load_function(path, code_dir=str(code_dir), key="trainer")
