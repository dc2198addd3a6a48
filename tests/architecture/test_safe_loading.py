"""Nothing in the package can run code that comes as data: no pickles, no eval, no YAML but by the safe reader."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import finesweep

SOURCES = sorted(Path(finesweep.__file__).parent.rglob("*.py"))
MODULES = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal", "jsonpickle"}
CALLS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "torch.load", "torch.jit.load", "np.load",
         "numpy.load", "pd.read_pickle", "yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load",
         "yaml.unsafe_load_all", "yaml.full_load_all"}  # fmt: skip
METHODS = {"read_pickle", "to_pickle"}
NAMES = {"UnsafeLoader", "FullLoader", "CLoader", "CUnsafeLoader"}  # of yaml


def unsafe(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names if alias.name.partition(".")[0] in MODULES)
            case ast.ImportFrom(module=str(module), names=names):
                if module.partition(".")[0] in MODULES:
                    yield module
                yield from (name for alias in names if (name := f"{module}.{alias.name}") in CALLS)
                yield from (alias.name for alias in names if alias.name in NAMES)
            case ast.Call(func=func, keywords=keywords):
                called = ast.unparse(func)
                if called in CALLS or called.rpartition(".")[2] in METHODS:
                    yield called
                for keyword in keywords:
                    if keyword.arg in ("allow_pickle", "shell") and ast.unparse(keyword.value) == "True":
                        yield f"{called}({keyword.arg}=…)"
            case ast.Attribute(attr=attr) if attr in NAMES:
                yield attr


def test_no_module_loads_what_could_run() -> None:
    found = {str(path): list(unsafe(ast.parse(path.read_text(encoding="utf-8")))) for path in SOURCES}
    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from pickle import loads",
        "import joblib.memory",
        "torch.load(path, weights_only=True)",
        "from torch import load",
        "eval('1')",
        "yaml.load(text, Loader=yaml.SafeLoader)",
        "yaml.compose(text, Loader=yaml.FullLoader)",
        "np.load(path)",
        "pd.read_pickle(path)",
        "numpy.lib.npyio.load(path, allow_pickle=True)",
        "subprocess.run('x', shell=True)",
    ],
)
def test_the_rule_finds(line: str) -> None:
    assert list(unsafe(ast.parse(line)))
