from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.commandline import invoke

from finesweep.cli import cli
from finesweep.events import Event
from finesweep.export.targets import FORMATS, ending_of
from finesweep.results.frames import Results

STUDY = {
    "objective": {"metric": "accuracy", "direction": "maximize"},
    "parameters": {"batch_size": {"type": "categorical", "choices": [8, 16]}},
}


@pytest.fixture
def url(launch: Callable[..., Results], trial_events: Callable[..., list[Event]]) -> str:
    """A database with a sweep of two COMPLETE trials, of which the second is the best."""
    trials = [trial_events(n, [0.5 + 0.1 * n], configuration={"batch_size": 8 * (n + 1)}) for n in range(2)]
    return launch(*trials, study=STUDY).url


def test_the_formats_of_the_command_line_are_those_there_are() -> None:
    (option,) = (option for option in cli.commands["export"].params if option.name == "target")
    assert tuple(option.type.choices) == FORMATS


@pytest.mark.parametrize("target", FORMATS)
def test_a_file_is_written_or_the_reason_is_said(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    monkeypatch.chdir(tmp_path)
    said = invoke("export", "tickets", "--to", target, "--results", url)
    path = Path(f"tickets-best.{ending_of(target)}")
    if target in ("axolotl", "llamafactory", "trl", "openai"):
        assert said.exit_code == 2
        assert "task: classification" in said.stderr
        assert list(tmp_path.glob("tickets-best*")) == []
        return
    assert said.exit_code == 0, said.output
    assert said.stdout.splitlines()[0] == str(path)
    assert all(Path(line).is_file() for line in said.stdout.splitlines())
    again = invoke("export", "tickets", "--to", target, "--results", url)
    assert again.exit_code == 2
    assert "is already there. Name another file, or replace it with --force." in again.stderr
    assert invoke("export", "tickets", "--to", target, "--results", url, "--force").exit_code == 0


def test_devices_and_warnings(url: str, tmp_path: Path) -> None:
    path = tmp_path / "arguments.json"
    said = invoke("export", "tickets:1", "--to", "trainer", "--devices", "4", "-o", str(path), "--results", url)
    assert said.exit_code == 0
    assert json.loads(path.read_text())["per_device_train_batch_size"] == 4
    assert "note: model: " in said.stderr and "note" not in said.stdout
    refused = invoke("export", "tickets", "--devices", "6", "--results", url)
    assert refused.exit_code == 2
    assert "16 examples of an optimizer step cannot be shared alike by 6 devices" in refused.stderr


def test_best_is_the_default_and_contradicts_a_number(url: str, tmp_path: Path) -> None:
    path = tmp_path / "best.json"
    assert invoke("export", "tickets", "--best", "-o", str(path), "--results", url).exit_code == 0
    assert json.loads(path.read_text())["trial"] == 1
    refused = invoke("export", "tickets:0", "--best", "--results", url)
    assert refused.exit_code == 2
    assert "--best and tickets:0 each choose a trial" in refused.stderr
    refused = invoke("export", "tickets", "--verified", "--results", url)
    assert refused.exit_code == 2
    assert "has no verification that is over and found a trial. Make one: finesweep verify tickets" in refused.stderr
