"""The command line without a sweep to run: faults, exit codes, where text goes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.commandline import invoke

from finesweep.events import Event, Grid
from finesweep.results.schema import SweepState
from finesweep.results.writer import open_writer

SIX_FAULTS = """\
name: bad
study: study.yaml
model: ./no-such-model
task: classification
data: {train: rows.csv, validation: rows.csv, lable: queue}
training: {batch_sise: 8}
budget: {trials: 0}
"""
STUDY = """\
objective: {metric: accuracy, direction: maximize}
sampler: {type: tpee}
parameters:
  learning_rate: {type: float, low: 1e-3, high: 1e-5, log: true}
"""


def finesweep(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "finesweep", *arguments], cwd=cwd, capture_output=True, text=True)


def test_six_faults_are_six_messages_with_their_places_and_exit_2(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text,label\na,x\n")
    (tmp_path / "sweep.yaml").write_text(SIX_FAULTS)
    (tmp_path / "study.yaml").write_text(STUDY)
    ran = finesweep("check", "sweep.yaml", cwd=tmp_path)
    assert ran.returncode == 2
    assert ran.stdout == ""
    assert "Traceback" not in ran.stderr
    *faults, count = ran.stderr.splitlines()
    assert count == "6 faults."
    places = [fault.split(" ")[0] for fault in faults]
    assert places == [
        "study.yaml:2:",
        "study.yaml:4:",
        "sweep.yaml:3:",
        "sweep.yaml:5:",
        "sweep.yaml:6:",
        "sweep.yaml:7:",
    ]
    for words in ('did you mean "tpe"', "must be below", "no-such-model", "did you mean", "batch_size", "trials"):
        assert words in ran.stderr


@pytest.fixture
def stored(tmp_path: Path, make_spec: Callable[..., Any], trial_events: Callable[..., Sequence[Event]]) -> Path:
    """A database with a finished sweep of two trials."""
    path = tmp_path / "finesweep.db"
    artifact_dir = tmp_path / "artifacts/tickets"
    (artifact_dir / "trial-0000").mkdir(parents=True)
    (artifact_dir / "trial-0000/log.txt").write_text("hello from trial 0\n")
    with open_writer(path) as writer:
        writer.create_sweep(
            make_spec(), grid=Grid("examples", 100, 200), provenance={"artifact_dir": str(artifact_dir)}
        )
        listen = writer.listener("tickets")
        listen(trial_events(0))
        listen(trial_events(1, (0.25, 0.5)))
        writer.set_state("tickets", SweepState.FINISHED)
    return path


def say(*arguments: str) -> str:
    result = invoke(*arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


def test_status_as_json_is_data_on_stdout(stored: Path) -> None:
    sweeps = json.loads(say("status", "--results", str(stored), "--json"))
    assert [(row["sweep"], row["best_value"]) for row in sweeps] == [("tickets", 0.75)]
    trials = json.loads(say("status", "tickets", "--results", str(stored), "--json", "--top", "1"))
    assert [(row["number"], row["value"]) for row in trials] == [(0, 0.75)]


def test_no_colour_codes_in_a_pipe(stored: Path) -> None:
    ran = finesweep("compare", "tickets", "--results", str(stored), cwd=stored.parent)
    assert "tickets" in ran.stdout and "0.75" in ran.stdout
    assert "\x1b" not in ran.stdout + ran.stderr


def test_compare_as_json_has_the_best_and_the_trials(stored: Path) -> None:
    both = json.loads(say("compare", "tickets", "--results", str(stored), "--json"))
    assert both["best"][0]["best_trial"] == 0
    assert [row["number"] for row in both["trials"]] == [0, 1]


def test_logs_of_a_trial_that_has_ended(stored: Path) -> None:
    assert say("logs", "tickets:0", "-f", "--results", str(stored)) == "hello from trial 0\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("logs", "tickets:1"), "has no log"),
        (("logs", "tickets"), "names no trial"),
        (("logs", "tickets:77"), "77"),
        (("status", "nobody"), "nobody"),
        (("resume", "nobody"), "nobody"),
        (("stop", "nobody"), "nobody"),
        (("delete", "nobody", "--yes"), "nobody"),
        (("extend", "tickets", "--trials", "5"), "total"),
        (("export", "tickets:77"), "77"),
        (("compare", "tickets", "-o", "/no/such/folder/x.csv"), "/no/such/folder"),
        (("compare", "tickets", "-o", "x.docx"), ".docx"),
    ],
)
def test_bad_input_is_a_message_and_exit_2(stored: Path, arguments: tuple[str, ...], words: str) -> None:
    result = invoke(*arguments, "--results", str(stored))
    assert result.exit_code == 2, result.output
    assert words in result.stderr
    assert "Traceback" not in result.stderr


def test_a_database_that_is_not_there_is_not_created(tmp_path: Path) -> None:
    for arguments in (("status",), ("stop", "x"), ("extend", "x", "--trials", "3"), ("delete", "x", "--yes")):
        result = invoke(*arguments, "--results", str(tmp_path / "finesweep.db"))
        assert result.exit_code == 2, arguments
        assert "finesweep.db" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_delete_asks_first(stored: Path) -> None:
    result = invoke("delete", "tickets", "--results", str(stored), given="n\n")
    assert result.exit_code == 130
    assert "2 trials" in result.stderr
    assert json.loads(say("status", "--results", str(stored), "--json"))


def test_stop_of_a_sweep_that_nobody_drives_says_so(stored: Path) -> None:
    assert "is not running" in say("stop", "tickets", "--results", str(stored))
