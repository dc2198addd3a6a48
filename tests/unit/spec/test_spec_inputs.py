"""Files, models and databases that a sweep names."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from finesweep.spec.inputs import InputProblem, resolve_data, resolve_folder, resolve_model, resolve_results


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "rows.jsonl").write_text("{}\n")
    (tmp_path / "rows.txt").write_text("x\n")
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    (tmp_path / "model").mkdir()
    (tmp_path / "sub").mkdir()
    return tmp_path


def test_data_becomes_absolute(folder: Path) -> None:
    assert resolve_data("../rows.jsonl", folder / "sub") == str(folder / "rows.jsonl")
    assert resolve_data(str(folder / "rows.jsonl"), Path("/")) == str(folder / "rows.jsonl")


def test_data_under_the_home_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder))
    assert resolve_data("~/rows.jsonl", Path("/")) == str(folder / "rows.jsonl")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "none.jsonl",
            'there is no file "none.jsonl" ({0}/none.jsonl). Paths are relative to the file that names them.',
        ),
        ("sub", '"sub" is a folder ({0}/sub). Name the file of rows in it.'),
        ("rows.txt", 'the ending ".txt" is unknown. Known: .csv, .json, .jsonl, .parquet.'),
        ("a\0b", '"a\\u0000b" is no path.'),
        ("~nobody-of-this-name/x", '"~nobody-of-this-name/x" is no path: Could not determine home directory.'),
    ],
)
def test_data_that_is_not_there(folder: Path, text: str, message: str) -> None:
    with pytest.raises(InputProblem) as caught:
        resolve_data(text, folder)
    assert str(caught.value) == message.format(folder)


@pytest.mark.parametrize(
    ("text", "resolved"),
    [
        ("model", "{0}/model"),
        ("./model", "{0}/model"),
        ("m.gguf", "{0}/m.gguf"),
        ("roberta-base", "roberta-base"),
        ("org/some-model_1.5", "org/some-model_1.5"),
    ],
)
def test_models(folder: Path, text: str, resolved: str) -> None:
    assert resolve_model(text, folder) == resolved.format(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("./none", 'there is no model at "./none" ({0}/none).'),
        ("../none", 'there is no model at "../none"'),
        ("/none/at/all", 'there is no model at "/none/at/all"'),
        ("none.gguf", 'there is no model at "none.gguf"'),
        ("rows.txt", '"rows.txt" is a file, but no GGUF file. Name the folder of the model.'),
        ("a b", '"a b" is neither a folder here nor a hub id. Write org/name, a path that begins with ./'),
        ("org/name/extra", '"org/name/extra" is neither a folder here nor a hub id.'),
        ("package:no_such_thing/model", 'the package "no_such_thing" is not installed here. Mind its spelling'),
        ("package:a.b/model", '"package:a.b/model" must read package:NAME/folder'),
        ("package:/model", '"package:/model" must read package:NAME/folder'),
        ("package:this/model", 'the package "this" is not installed here.'),  # a module, not a package
        ("package:finesweep_test_package/x", 'the package "finesweep_test_package" is installed but holds no "x".'
         " Folders in it: model."),
    ],
)  # fmt: skip
def test_models_that_cannot_be_meant(folder: Path, package: Path, text: str, message: str) -> None:
    with pytest.raises(InputProblem) as caught:
        resolve_model(text, folder)
    assert str(caught.value).startswith(message.format(folder))


@pytest.fixture
def package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = folder / "site"
    (root / "finesweep_test_package" / "model").mkdir(parents=True)
    (root / "finesweep_test_package" / "_private").mkdir()
    (root / "finesweep_test_package" / "__init__.py").write_text("raise AssertionError('imported')\n")
    monkeypatch.syspath_prepend(str(root))
    return root


def test_a_model_in_a_package_is_found_without_importing_it(folder: Path, package: Path) -> None:
    text = "package:finesweep_test_package/model"
    assert resolve_model(text, folder) == text
    assert "finesweep_test_package" not in sys.modules


@pytest.mark.parametrize(
    ("text", "resolved"),
    [
        ("r.db", "sqlite:///{0}/r.db"),
        ("../r.db", "sqlite:///{1}/r.db"),
        ("sqlite:///r.db", "sqlite:///{0}/r.db"),
        ("sqlite:////abs/r.db", "sqlite:////abs/r.db"),
        ("postgresql://host/db", "postgresql://host/db"),
        ("postgresql+psycopg://u:p@host:5432/db?x=1", "postgresql+psycopg://u:p@host:5432/db?x=1"),
    ],
)
def test_results(folder: Path, text: str, resolved: str) -> None:
    assert resolve_results(text, folder) == resolved.format(folder, folder.parent)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sqlite:/r.db", '"sqlite:/r.db" is no database URL.'),
        ("mysql://host/db", 'database "mysql" is not supported. Known: sqlite, postgresql.'),
        ("sqlite://", '"sqlite://" names no file. Write sqlite:///results.db; a sweep needs a lasting database.'),
        ("sqlite:///:memory:", '"sqlite:///:memory:" names no file.'),
        ("sqlite://host/r.db", '"sqlite://host/r.db" names no file.'),
    ],
)
def test_results_that_cannot_be_kept(folder: Path, text: str, message: str) -> None:
    with pytest.raises(InputProblem) as caught:
        resolve_results(text, folder)
    assert str(caught.value).startswith(message)


def test_artifact_folders(folder: Path) -> None:
    assert resolve_folder("out", folder) == str(folder / "out")
    with pytest.raises(InputProblem, match="is a URI"):
        resolve_folder("s3://bucket/out", folder)
