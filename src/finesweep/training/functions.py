"""Import functions of the user's own: `package.module:function`, installed or in the sweep's `code_dir`.

What goes wrong is told with the key that names the function. Other than `check`, this runs the module.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from finesweep.errors import FunctionError
from finesweep.spec.functions import missing_function, missing_module


def load_function(path: str, *, code_dir: str | None, key: str) -> Callable[..., Any]:
    """Import the function that `key` of a sweep names. Raises FunctionError."""
    module_name, _, name = path.partition(":")
    if code_dir is not None and code_dir not in sys.path:
        sys.path.append(code_dir)  # last: a module of the user's must not hide one that is installed
    folder = Path(code_dir or Path.cwd())
    importlib.invalidate_caches()
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        if isinstance(error, ModuleNotFoundError) and _is_within(module_name, error.name):
            raise FunctionError(f"{key}: {missing_module(module_name, folder)}") from None
        reason = f"{type(error).__name__}: {error}".rstrip(".: ")
        raise FunctionError(
            f"{key}: importing {module_name} raised {reason}. Try it: python -c 'import {module_name}' in {folder}."
        ) from error
    function = getattr(module, name, None)
    if function is None:
        origin = getattr(module, "__file__", None)
        problem = missing_function(module_name, name, _callables(module), origin=origin, code_dir=folder)
        raise FunctionError(f"{key}: {problem}")
    if not callable(function):
        raise FunctionError(
            f"{key}: {path} is no function but a {type(function).__name__}. Name something that can be called."
        )
    return function  # type: ignore[no-any-return]  # callable, of whatever arguments


def _is_within(module: str, missing: str | None) -> bool:
    """Tell whether what was not found is the module itself or a package around it, not something it imports."""
    return missing is not None and f"{module}.".startswith(f"{missing}.")


def _callables(module: Any) -> list[str]:
    return [name for name, value in vars(module).items() if callable(value)]
