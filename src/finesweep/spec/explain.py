"""What pydantic found wrong, in the words of study and sweep files: key path, value, rule and way out.

In: a ValidationError, the values it is about, their model. Out: findings. Knows nothing of files and lines.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, Tag, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from finesweep.spec.faults import Finding, KeyPath, nearest, show, unknown
from finesweep.spec.remote_words import remote_name_problem

_MOST_ERRORS = 200  # of pydantic's that are told; a key may have several
_RANGES = ("categorical", "float", "int")
_PARAMETER_SHAPES = 'a "type" (float, int or categorical), a "value" (derived) or "by" (a range for each branch)'
_SHAPE_TAGS = frozenset(("derived", "branched"))
_PATTERNS: Mapping[str, str] = {
    "name": "is not a name: it must begin with a letter or digit and hold only letters, digits, dots, dashes and "
    "underscores, at most 80",
    "base_url": "is no server's address: write it from http:// or https:// on, up to /v1, without a user or password",
    "keep": "is no policy: it must be none, best, all, or a number of trials as in `top 3`",
}
_EXAMPLES: Mapping[str, str] = {  # what a section or key that is missing might look like
    "objective": "{metric: accuracy, direction: maximize}",
    "study": "../studies/my-study.yaml",
    "data": "{train: train.jsonl, validation: validation.jsonl}",
    "budget": "{trials: 20}",
    "trials": "20",
    "parameters": "{learning_rate: {type: float, low: 1e-5, high: 1e-3, log: true}}",
    "pruner": "{type: asha}",
    "sampler": "{type: tpe}",
    "training": "{seed: 1}",
    "resources": "{devices: auto}",
    "artifacts": "{keep: best}",
    "task": "classification",
    "direction": "maximize",
    "metric": "accuracy",
    "model": "roberta-base",
    "evaluation": "{generation: {rows: 32}}",
    "name": "my-sweep",
    "remote": "{base_url: https://my-server/v1, model: my-model}",
    "choices": "[8, 16, 32]",
    "start_with": "[{learning_rate: 3e-5}]",
    "when": "{method: full}",
}


def explain(error: ValidationError, values: Any, model: type[BaseModel], *, at: KeyPath = ()) -> list[Finding]:
    """Turn the errors of validating `values`, which stand at the key path `at`, into one finding per key."""
    by_path: dict[KeyPath, list[ErrorDetails]] = {}
    for details in error.errors(include_url=False)[:_MOST_ERRORS]:
        by_path.setdefault(_key_path(details, values), []).append(details)
    misspelt = {
        (*path[:-1], nearest(str(path[-1]), _known_keys(group[0]["loc"][:-1], model)))
        for path, group in by_path.items()
        if group[0]["type"] == "extra_forbidden"
    }
    outer = {path[:length] for path in by_path for length in range(len(path))}  # the fault within says more
    return [
        Finding((*at, *_pointed(path, group, values)), _message(path, group, values, model))
        for path, group in by_path.items()
        if path not in outer and not (group[0]["type"] == "missing" and path in misspelt)
    ]


def _key_path(details: ErrorDetails, values: Any) -> KeyPath:
    """Drop from pydantic's location what is not in the file: names of union members and of our `branches`."""
    path: list[str | int] = []
    here = values
    location = details["loc"]
    for position, part in enumerate(location):
        is_last = position == len(location) - 1
        if _has(here, part):
            here = here[part]
        elif is_last and details["type"] == "missing" and part != "branches":
            here = None
        else:
            continue
        path.append(part)
    return tuple(path)


def _has(values: Any, part: int | str) -> bool:
    if isinstance(part, str):
        return isinstance(values, Mapping) and part in values
    return isinstance(values, list) and part < len(values)


def _pointed(path: KeyPath, group: list[ErrorDetails], values: Any) -> KeyPath:
    """Point at the key `type` itself where that is what is wrong."""
    value = _value_at(values, path)
    is_tag = group[0]["type"] in ("union_tag_invalid", "literal_error")
    return (*path, "type") if is_tag and isinstance(value, Mapping) and "type" in value else path


def _value_at(values: Any, path: KeyPath) -> Any:
    for part in path:
        try:
            values = values[part]
        except (KeyError, IndexError, TypeError):
            return None
    return values


def _message(path: KeyPath, group: list[ErrorDetails], values: Any, model: type[BaseModel]) -> str:
    value = _value_at(values, path)
    kinds = {details["type"] for details in group}
    name = _noun(path)
    if "extra_forbidden" in kinds:
        known = [] if path == () else _known_keys(group[0]["loc"][:-1], model)
        if path[:1] == ("training",) and _is_remote(model):
            return remote_name_problem(str(path[-1]))
        return unknown("key", str(path[-1]), known)
    if "missing" in kinds:
        example = _EXAMPLES.get(name)
        return f"this key is missing. Add it{f', as in `{name}: {example}`' if example else ''}."
    tagged = next((details for details in group if details["type"].startswith("union_tag")), None)
    if tagged is not None:
        return _tag_message(name, value, tagged)
    bounds = [text for details in group if (text := _bound(details))]
    if bounds:
        return f"{name} is {show(value)} but must be {bounds[0]}."
    if path == ("trainer",) or (name not in _PATTERNS and any(":" in _pattern(details) for details in group)):
        own = "package.module:function, of a module beside the sweep file, in `code_dir` or installed"
        other = "neither transformers nor" if path == ("trainer",) else "not"
        return f"{show(value)} is {other} the name of a function of yours: write {own}."
    literals = [choice for details in group if details["type"] == "literal_error" for choice in _quoted(details)]
    if kinds == {"literal_error"}:
        if not isinstance(value, str):
            return f"{show(value)} is not one of {', '.join(sorted(literals))}."
        return unknown(name, value, literals)
    if "string_pattern_mismatch" in kinds:
        return f"{show(value)} {_PATTERNS.get(name, 'is not a name: it must match the pattern')}."
    wanted = dict.fromkeys(text for details in group if (text := _WANTED.get(details["type"])))
    if literals:
        wanted = dict.fromkeys([*(show(choice) for choice in literals), *wanted])
    if not wanted:
        return f"{show(value)} is not allowed here: {_plain(group[0]['msg'])}."
    if [*wanted] == ["text"] and isinstance(value, int | float):
        return f"{show(value)} is not text. Put it in quotes."
    hint = f" Write it as `{name}: {_EXAMPLES[name]}`." if path[-1:] == (name,) and name in _EXAMPLES else ""
    return f"{show(value)} is not {_either(list(wanted))}.{hint}"


def _is_remote(model: type[BaseModel]) -> bool:
    """Tell whether these are sweeps whose settings are those of fine-tuning servers."""
    return "remote" in model.model_fields


def _noun(path: KeyPath) -> str:
    """Name what a key path is about: the `type` of a sampler is the sampler."""
    names = [part for part in path if isinstance(part, str)]
    if len(names) > 1 and names[-1] == "type":
        return "type" if "parameters" in names else names[-2]
    return names[-1] if names else "sweep"


def _tag_message(name: str, value: Any, details: ErrorDetails) -> str:
    known = [word for word in _quoted(details, "expected_tags") if word not in _SHAPE_TAGS]
    is_parameter = "float" in known
    if not isinstance(value, Mapping):
        example = "{type: float, low: 0, high: 0.1}" if is_parameter else "{type: asha}"
        fixed = " A value that is not searched belongs under `training`." if is_parameter else ""
        return f"{show(value)} is not a mapping. Write it as `{name}: {example}`.{fixed}"
    if is_parameter and "type" not in value:
        return f"a parameter needs {_PARAMETER_SHAPES}, and this has none of them."
    if "type" not in value:
        known = known or ["asha", "hyperband", "median", "none", "patient", "percentile", "threshold"]
        return f'this key is missing "type". Add one of: {", ".join(sorted(known))}.'
    what = "type" if is_parameter else name
    return unknown(what, str(value["type"]), _RANGES if is_parameter else known)


def _quoted(details: ErrorDetails, key: str = "expected") -> list[str]:
    return re.findall(r"'([^']*)'", str(details.get("ctx", {}).get(key, "")))


_BOUNDS: Mapping[str, tuple[str, str]] = {
    "greater_than": ("gt", "above"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "below"),
    "less_than_equal": ("le", "at most"),
}
_WANTED: Mapping[str, str] = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number of ordinary size",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a mapping",
    "mapping_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "none_required": "null",
}


def _pattern(details: ErrorDetails) -> str:
    return str(details.get("ctx", {}).get("pattern", ""))


def _bound(details: ErrorDetails) -> str | None:
    context = details.get("ctx", {})
    kind = details["type"]
    if kind in _BOUNDS:
        key, words = _BOUNDS[kind]
        return f"{words} {_number(context[key])}"
    if kind in ("too_short", "string_too_short"):
        return "something: it may not be empty"
    return None


def _number(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _plain(message: str) -> str:
    return message.removeprefix("Value error, ").removeprefix("Input ").rstrip(".")


def _either(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


# --- which keys a model knows, for the place of an unknown one ---------------------------------------------------


def _known_keys(location: tuple[int | str, ...], model: type[BaseModel]) -> list[str]:
    """Follow pydantic's location through the annotations; collect the fields of the models found at its end."""
    here: list[Any] = [model]
    for part in location:
        here = [step for annotation in here for step in _step(annotation, part)]
    models = [member for annotation in here for member, _ in _members(annotation) if _is_model(member)]
    return [str(name) for found in models for name in _fields(found)]


def _step(annotation: Any, part: int | str) -> Iterator[Any]:
    for member, tags in _members(annotation):
        if _is_model(member) and part in _fields(member):
            yield _fields(member)[part].annotation
        elif part in tags:
            yield member
        elif isinstance(get_origin(member), type) and issubclass(get_origin(member), Mapping):
            yield get_args(member)[1]
        elif get_origin(member) is tuple and isinstance(part, int):
            yield get_args(member)[0]


def _members(annotation: Any, tags: frozenset[str] = frozenset()) -> Iterator[tuple[Any, frozenset[str]]]:
    """Open unions and annotations; a member comes with the tags under which pydantic's locations know it."""
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *extras = get_args(annotation)
        own = frozenset(extra.tag for extra in extras if isinstance(extra, Tag))
        yield from _members(inner, tags | own)
    elif origin in (Union, types.UnionType):
        for part in get_args(annotation):
            yield from _members(part)
    else:
        if _is_model(annotation) and "type" in annotation.model_fields:
            tags |= frozenset(typing.get_args(annotation.model_fields["type"].annotation))
        yield annotation, tags


def _fields(model: type[BaseModel]) -> dict[int | str, FieldInfo]:
    """Give a model's fields under the keys that files know."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
