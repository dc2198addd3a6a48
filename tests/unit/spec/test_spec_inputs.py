"""Files, models and databases that a sweep names."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from finesweep.spec.inputs import (
    InputProblem,
    resolve_data,
    resolve_dataset,
    resolve_folder,
    resolve_model,
    resolve_results,
    resolve_split,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "rows.jsonl").write_text("{}\n")
    (tmp_path / "rows.xlsx").write_text("x\n")
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    (tmp_path / "model").mkdir()
    (tmp_path / "sub").mkdir()
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "dataset_dict.json").write_text('{"splits": ["train", "unseen"]}')
    for name, split in (("one", '"unseen"'), ("nameless", "null"), ("damaged", "")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "state.json").write_text(f'{{"_split": {split}}}')
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
        ("rows.xlsx", 'the ending ".xlsx" is unknown. Known: .arrow, .csv, .json, .jsonl, .parquet, .txt.'),
        ("saved", '"saved" is a folder of `save_to_disk`. Name it as data.dataset, and its split here.'),
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
    [("saved", "{0}/saved"), ("./one", "{0}/one"), ("imdb", "imdb"), ("stanfordnlp/imdb", "stanfordnlp/imdb")],
)
def test_data_sets(folder: Path, text: str, resolved: str) -> None:
    assert resolve_dataset(text, folder) == resolved.format(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rows.jsonl", '"rows.jsonl" is a file. Name it as data.train, and leave data.dataset out.'),
        ("sub", '"sub" is a folder ({0}/sub), but none that `save_to_disk` of datasets has written: it holds neither'),
        ("damaged", "{0}/damaged was written by `save_to_disk`, but its list of splits is damaged."),
        ("./none", 'there is no folder "./none" ({0}/none).'),
        ("a/b/c", 'there is no folder "a/b/c" ({0}/a/b/c). Paths are relative to the file that names them; a data set'),
    ],
)
def test_data_sets_that_are_not_there(folder: Path, text: str, message: str) -> None:
    with pytest.raises(InputProblem) as caught:
        resolve_dataset(text, folder)
    assert str(caught.value).startswith(message.format(folder))


@pytest.mark.parametrize(
    ("split", "dataset"),
    [
        ("train[:1000]+unseen[80%:]", "saved"),
        ("train[10:20%](pct1_dropremainder)", "saved"),
        ("unseen", "one"),
        ("train", "nameless"),
        ("whatever[:-5]", "org/name"),  # only the hub knows its splits
    ],
)
def test_splits(folder: Path, split: str, dataset: str) -> None:
    assert resolve_split(split, resolve_dataset(dataset, folder)) == split


@pytest.mark.parametrize(
    ("split", "dataset", "message"),
    [
        (
            "unsen",
            "saved",
            'saved holds no such split: "unsen" is unknown; did you mean "unseen"? Known: train, unseen.',
        ),
        ("train", "one", 'one holds no such split: "train" is unknown. Known: unseen.'),
        ("v.jsonl/x", "saved", '"v.jsonl/x" names no split. Write train, train[:1000], train[80%:] or train+test.'),
        ("train[:10", "org/name", '"train[:10" names no split.'),
    ],
)
def test_splits_that_are_not_there(folder: Path, split: str, dataset: str, message: str) -> None:
    with pytest.raises(InputProblem) as caught:
        resolve_split(split, resolve_dataset(dataset, folder))
    assert message in str(caught.value)


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
        ("rows.xlsx", '"rows.xlsx" is a file, but no GGUF file. Name the folder of the model.'),
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
