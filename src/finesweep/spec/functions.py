"""Functions of the user's own, named `package.module:function`, looked for without running a line of them.

In: such a name and the folder where modules are that are not installed. Out: nothing, or why it cannot be meant.
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
import sys
from collections.abc import Iterator, Mapping
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

from finesweep.spec.faults import KeyPath, nearest, show, unknown
from finesweep.spec.inputs import InputProblem


def named_functions(values: Mapping[str, Any]) -> dict[KeyPath, str]:
    """Gather what the values of a sweep name as functions of the user's own, by key path."""
    evaluation = _mapping(values.get("evaluation"))
    scorers = _mapping(_mapping(evaluation.get("generation")).get("scorers"))
    named: dict[KeyPath, Any] = {
        ("trainer",): values.get("trainer"),
        **{("evaluation", "metrics", name): text for name, text in _mapping(evaluation.get("metrics")).items()},
        **{("evaluation", "generation", "scorers", name): text for name, text in scorers.items()},
    }
    return {path: text for path, text in named.items() if isinstance(text, str) and ":" in text}


def find_function(text: str, code_dir: Path) -> None:
    """Raise InputProblem unless there is such a module, and the function in it as far as reading can tell."""
    module, _, function = text.partition(":")
    found = _find_module(module, code_dir)
    if found is None:
        raise InputProblem(missing_module(module, code_dir))
    names = _names_in(found)
    if names is not None and function not in names:
        raise InputProblem(missing_function(module, function, names, origin=found.origin, code_dir=code_dir))


def missing_module(module: str, code_dir: Path) -> str:
    """Say that a module is not there, and which one may have been meant."""
    meant = nearest(module, [found.name for found in pkgutil.iter_modules([str(code_dir)])])
    question = f"; did you mean {show(meant)}?" if meant not in (None, module) else "."
    return (
        f"there is no module {show(module)}, neither installed nor in {code_dir}{question} Correct the name, or say in"
        " `code_dir` which folder it is in."
    )


def missing_function(module: str, function: str, names: list[str], *, origin: str | None, code_dir: Path) -> str:
    """Say that a module lacks a function, and whether another module of that name was meant."""
    where = f" ({origin})" if origin else ""
    public = [name for name in names if not name.startswith("_")]
    message = unknown("function", function, public, verb=f"is not in module {module}{where}")
    mine = PathFinder.find_spec(module.partition(".")[0], [str(code_dir)])
    if mine is not None and mine.origin and origin and not Path(origin).is_relative_to(Path(mine.origin).parent):
        message += f" It hides {mine.origin}, since installed packages come first: rename yours."
    return message


def _find_module(name: str, code_dir: Path) -> ModuleSpec | None:
    """Find a module through its packages without importing them, installed ones first."""
    importlib.invalidate_caches()  # files may be younger than what Python remembers of their folders
    top, *inner = name.split(".")
    found = _installed(top) or PathFinder.find_spec(top, [str(code_dir)])
    for part in inner:
        if found is None or found.submodule_search_locations is None:
            return None
        found = PathFinder.find_spec(f"{found.name}.{part}", list(found.submodule_search_locations))
    return found


def _installed(name: str) -> ModuleSpec | None:
    finders = (getattr(finder, "find_spec", None) for finder in sys.meta_path)
    specs = (find(name, None) for find in finders if find is not None)
    return next((spec for spec in specs if spec is not None), None)


def _names_in(found: ModuleSpec) -> list[str] | None:
    """List what a module defines, as far as its text tells; None where it does not, as for compiled ones."""
    if found.origin is None and found.submodule_search_locations is not None:
        return []  # a folder without __init__.py
    if found.origin is None or not found.origin.endswith(".py"):
        return None
    try:
        tree = ast.parse(Path(found.origin).read_bytes())
    except SyntaxError as error:
        raise InputProblem(f"{found.origin}:{error.lineno} is no Python: {error.msg}. Mend it.") from None
    except (OSError, ValueError) as error:
        raise InputProblem(f"{found.origin} cannot be read: {error}.") from None
    names = list(dict.fromkeys(_defined(tree.body)))
    return None if "*" in names or "__getattr__" in names else names


def _defined(statements: list[ast.stmt]) -> Iterator[str]:
    """Yield the names that statements bind, also within `if`, `try`, `with` and loops."""
    for statement in statements:
        match statement:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                yield from (alias.asname or alias.name.partition(".")[0] for alias in aliases)
            case ast.Assign() | ast.AnnAssign() | ast.AugAssign():
                yield from (node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and _is_bound(node))
            case _:
                for field in ("body", "orelse", "finalbody"):
                    yield from _defined(getattr(statement, field, []))
                for handler in getattr(statement, "handlers", []):
                    yield from _defined(handler.body)


def _is_bound(node: ast.Name) -> bool:
    return isinstance(node.ctx, ast.Store)


def _mapping(value: Any) -> Mapping[Any, Any]:
    return value if isinstance(value, Mapping) else {}
