from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import yaml

from finesweep.errors import ExportError, SpecError
from finesweep.export.reading import read_record
from finesweep.export.record import ExportRecord
from finesweep.export.record_file import FORMAT, FunctionRecord, RemoteRecord, TransformersRecord, json_schema
from finesweep.export.record_text import export_text, export_yaml

MakeRecord = Callable[..., ExportRecord]
ROOT = Path(__file__).parents[3]
SCHEMA = ROOT / "src" / "finesweep" / "export" / "record.schema.json"
WRITERS = {"json": export_text, "yaml": export_yaml}


@pytest.fixture(params=["transformers", "own", "several"])
def record(request: pytest.FixtureRequest, make_record: MakeRecord) -> ExportRecord:
    if request.param == "own":
        return make_record(
            configuration={"width": 3, "deep": True, "name": None},
            trainer="mine:train",
            model=None,
            task=None,
            data=None,
            training={"seed": 4, "anything": [1, {"a": 0.5}]},
        )
    made = make_record(
        training={"seed": 7, "lr_scheduler_type": "cosine", "optim_args": None, "eval_every": 100},
        evaluation={"metrics": {"mine": "scores:own"}},
        facts={"note": "yes", "date": "2026-01-01", "empty": None, "é": "\u0085 and \x7f"},
    )
    if request.param == "transformers":
        return made
    objective = {"metric": "f1", "direction": "maximize", "value": "best"}
    return replace(
        made,
        objective=[objective, objective | {"metric": "size"}],
        metrics={"accuracy": float("nan"), "f1": float("-inf"), "loss": 1e-30},
        value=float("inf"),
        value_step=None,
        verification={"mean": 0.5, "arms": [{"trial": 3}]},
    )


@pytest.mark.parametrize("target", WRITERS)
def test_a_written_record_is_read_as_it_was_and_fits_the_schema(
    record: ExportRecord, target: str, tmp_path: Path
) -> None:
    path = tmp_path / f"best.{target}"
    text = WRITERS[target](record)
    path.write_text(text, encoding="utf-8")
    read = read_record(path)
    assert WRITERS[target](read) == text
    assert export_text(read) == export_text(record)
    content = json.loads(text, parse_constant=pytest.fail) if target == "json" else yaml.safe_load(text)
    jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text())).validate(content)


def test_the_published_schema_is_the_one_of_the_code() -> None:
    where = importlib.util.spec_from_file_location("export_schema", ROOT / "tools" / "export_schema.py")
    assert where is not None and where.loader is not None
    tool = importlib.util.module_from_spec(where)
    where.loader.exec_module(tool)
    assert SCHEMA == tool.SCHEMA
    assert json.loads(SCHEMA.read_text(encoding="utf-8")) == json_schema(), "run tools/export_schema.py"
    jsonschema.Draft202012Validator.check_schema(json_schema())


@pytest.mark.parametrize("kind", [TransformersRecord, FunctionRecord, RemoteRecord])
def test_the_schema_has_the_keys_of_a_record(kind: Any) -> None:
    assert set(kind.model_fields) == {"finesweep_export", *(field.name for field in fields(ExportRecord))}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (("settings", "learning_rate"), -1),
        (("settings", "adam_betta1"), 0.9),
        (("settings", "optim"), "adamm"),
        (("settings", "weight_decay"), "0.1"),
        (("finesweep_export",), 1),
        (("metrics", "accuracy"), "high"),
        (("grid", "unit"), "steps"),
        (("extra",), 1),
        (("model", "name"), None),
    ],
)
def test_the_schema_refuses_what_reading_refuses(
    make_record: MakeRecord, tmp_path: Path, key: tuple[str, ...], value: Any
) -> None:
    content = json.loads(export_text(make_record()))
    place = content
    for part in key[:-1]:
        place = place[part]
    place[key[-1]] = value
    path = tmp_path / "best.json"
    path.write_text(json.dumps(content))
    with pytest.raises(SpecError) as raised:
        read_record(path)
    assert [fault.key for fault in raised.value.faults] == [".".join(key)]
    assert not jsonschema.Draft202012Validator(json_schema()).is_valid(content)


def test_faults_say_file_line_key_value_and_way_out(make_record: MakeRecord, tmp_path: Path) -> None:
    path = tmp_path / "best.yaml"
    text = export_yaml(make_record())
    path.write_text(text.replace("batch_size: 16\n", "batch_size: many\n").replace("task: c", "taks: c"))
    line, task = (1 + text[: text.index(found)].count("\n") for found in ("  batch_size: 16\n", "task: c"))
    with pytest.raises(SpecError) as raised:
        read_record(path)
    assert sorted(str(raised.value).splitlines()) == sorted(
        [
            f'{path}:{line}: settings.batch_size: "many" is not a whole number.',
            f'{path}:{task}: taks: key "taks" is unknown; did you mean "task"?',
        ]
    )


def test_settings_that_contradict_each_other_are_faults(make_record: MakeRecord, tmp_path: Path) -> None:
    path = tmp_path / "best.json"
    content = json.loads(export_text(make_record()))
    content["settings"]["seed"] = 3
    content["settings"]["device_batch_size"] = 5
    path.write_text(json.dumps(content))
    with pytest.raises(SpecError) as raised:
        read_record(path)
    assert "device_batch_size (5) must divide batch_size (16)" in str(raised.value)
    assert "seed: seed is 0 but settings.seed is 3. Write the same in both." in str(raised.value)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.toml", "", r'the ending "\.toml" is unknown\. Known: \.json, \.yaml, \.yml\.'),
        ("a.json", "{", r"a\.json:1: this is not JSON: .*Export it again"),
        ("a.json", '{"value": NaN}', r'NaN is no number of JSON; a record writes it as text, "nan"'),
        ("a.json", "[]", "the top level must be an object"),
        ("a.json", "[" * 100_000, "this is not JSON"),
        ("a.yaml", "a: [", r"a\.yaml:\d: this is not YAML"),
        ("a.json", "{}", "this is no record: it has no key finesweep_export"),
        ("a.yaml", "finesweep_export: 1", rf"finesweep_export: the record has format 1, of an older .* reads {FORMAT}"),
        ("a.yaml", "finesweep_export: 9", "the record has format 9, of a newer finesweep"),
        ("a.yaml", "finesweep_export: two", '"two" is no format of a record'),
    ],
)
def test_what_is_no_record_is_said(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(SpecError, match=said):
        read_record(tmp_path / name)


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    for name in ("none.json", "none.yaml"):
        with pytest.raises(SpecError, match=rf"{name}: there is no such file"):
            read_record(tmp_path / name)


def test_yaml_too_long_to_be_read_again_is_not_written(make_record: MakeRecord) -> None:
    record = replace(make_record(), facts={"text": "x" * 300_000})
    with pytest.raises(ExportError, match=r"longer than the 250 kB .* Export it --to json"):
        export_yaml(record)


@pytest.mark.parametrize("target", WRITERS)
def test_a_number_of_numpys_is_written_as_a_number(target: str, make_record: MakeRecord) -> None:
    found = {"trial": 0, "mean": np.float64(0.875), "interval": [np.float64(0.5), np.float64("nan")]}
    text = WRITERS[target](replace(make_record(), verification=found))
    written = json.loads(text) if target == "json" else yaml.safe_load(text)
    assert written["verification"] == {"trial": 0, "mean": 0.875, "interval": [0.5, "nan"]}
