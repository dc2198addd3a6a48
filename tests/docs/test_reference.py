"""docs/files.md is whole and true: every key of sweep and study files is in it, with its default."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from finesweep.spec import study, sweep

PAGE = (Path(__file__).parents[2] / "docs" / "files.md").read_text(encoding="utf-8")
SECTIONS: dict[str, type[BaseModel]] = {
    "## Sweep": sweep.SweepSpec,
    "### `model`": sweep.ModelSpec,
    "### `data`": sweep.DataSpec,
    "### `training`": sweep.TrainingSpec,
    "### `training` of a trainer of your own": sweep.FunctionSettings,
    "### `remote`": sweep.Remote,
    "### `training` of trainer `remote`": sweep.RemoteTraining,
}
PRUNERS = [getattr(study, name) for name in vars(study) if name.endswith("Pruner")]
PREFIXED: dict[str, list[type[BaseModel]]] = {
    "": [sweep.Evaluation],
    "generation.": [sweep.Generation],
    "budget.": [sweep.Budget],
    "resources.": [sweep.Resources],
    "artifacts.": [sweep.Artifacts],
    "objective.": [study.Objective],
    "sampler.": [study.SamplerSpec],
    "pruner.": PRUNERS,
}


def rows_under(heading: str) -> list[list[str]]:
    text = PAGE.partition(f"\n{heading}\n")[2]
    end = re.search(r"^#", text, flags=re.MULTILINE)
    lines = text[: end.start() if end else None].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| `")]


@pytest.mark.parametrize("heading", SECTIONS)
def test_a_section_lists_its_keys_and_no_others(heading: str) -> None:
    listed = [key for row in rows_under(heading) for key in re.findall(r"`([^`]+)`", row[0])]
    assert sorted(listed) == sorted(SECTIONS[heading].model_fields)


@pytest.mark.parametrize("prefix", PREFIXED)
def test_every_other_key_is_listed(prefix: str) -> None:
    for model in PREFIXED[prefix]:
        missing = [name for name in model.model_fields if f"`{prefix}{name}`" not in PAGE]
        assert missing == []


@pytest.mark.parametrize("heading", SECTIONS)
def test_defaults_are_those_of_the_code(heading: str) -> None:
    """Where a row tells one value for each of its keys, they are the defaults."""
    for row in rows_under(heading):
        keys = re.findall(r"`([^`]+)`", row[0])
        told = [item.strip(" `") for item in row[1].split(",")]
        if len(told) != len(keys):
            continue
        for key, text in zip(keys, told, strict=True):
            default = SECTIONS[heading].model_fields[key].default
            if re.fullmatch(r"[\d.e-]+", text):
                assert float(text) == default, key
            elif isinstance(default, str):
                assert text == default, key
