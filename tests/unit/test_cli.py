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

from finesweep.events import AttemptEnded, AttemptResult, AttemptStarted, Ending, Event, Grid, TrialInterrupted
from finesweep.results.frames import open_results
from finesweep.results.lease import Holder
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


FREE = ("artifacts", "--free", "--yes")


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
        (("artifacts", "nobody"), "nobody"),
        (("artifacts", "tickets", "--keep", "some"), "'some' is no policy"),
    ],
)
def test_bad_input_is_a_message_and_exit_2(stored: Path, arguments: tuple[str, ...], words: str) -> None:
    result = invoke(*arguments, "--results", str(stored))
    assert result.exit_code == 2, result.output
    assert words in result.stderr
    assert "Traceback" not in result.stderr


def test_a_database_that_is_not_there_is_not_created(tmp_path: Path) -> None:
    for arguments in (
        ("status",),
        ("stop", "x"),
        ("extend", "x", "--trials", "3"),
        ("delete", "x", "--yes"),
        (*FREE, "x"),
    ):
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


@pytest.fixture
def shelf(tmp_path: Path, stored: Path, trial_events: Callable[..., Sequence[Event]]) -> Path:
    """The artifact folder of that sweep: weights of both trials, leftovers, and a third trial that was interrupted."""
    with open_writer(stored) as writer:
        writer.listener("tickets")([*trial_events(2, state=None), TrialInterrupted(2)])
    folder = tmp_path / "artifacts/tickets"
    for name in ("0000/attempt-1/best-200", "0000/attempt-1/checkpoint-9", "0001/attempt-1/best-100"):
        write_kib(folder / f"trial-{name}")
    for name in ("0002/attempt-1/checkpoint-9", "0002/attempt-1/.best-200.77", "0007/attempt-1/best-100"):
        write_kib(folder / f"trial-{name}")
    return folder


def write_kib(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "weights").write_bytes(bytes(1024))


def kept(folder: Path) -> set[str]:
    return {path.parent.relative_to(folder).as_posix() for path in folder.rglob("weights")}


def test_artifacts_tell_what_trials_hold_and_what_may_go_and_why(stored: Path, shelf: Path) -> None:
    told = json.loads(say("artifacts", "tickets", "--json", "--results", str(stored)))
    assert (told["keep"], told["quota_bytes"], told["free_bytes"]) == ("best", None, 4096)
    assert (told["weights_bytes"], told["checkpoint_bytes"], told["other_bytes"]) == (3072, 2048, 1024)
    assert [(row["number"], row["free_bytes"], row["why"]) for row in told["trials"]] == [
        (0, 1024, "the trial is COMPLETE"),
        (1, 1024, "others are kept"),
        (2, 1024, "never finished"),
        (7, 1024, "the database does not know the trial"),
    ]
    text = say("artifacts", "tickets", "--results", str(stored))
    assert "4 trials hold 6.0 KiB; keep: best, no quota." in text
    assert "4.0 KiB may go: finesweep artifacts tickets --free" in text
    assert len(kept(shelf)) == 6  # to look removes nothing


@pytest.mark.parametrize(
    ("policy", "left"),
    [((), {0}), (("--keep", "best"), {0}), (("--keep", "all"), {0, 1}), (("--keep", "none"), set())],
)
def test_freeing_leaves_what_the_policy_keeps_and_what_trials_need_to_go_on(
    stored: Path, shelf: Path, policy: tuple[str, ...], left: set[int]
) -> None:
    with open_writer(stored) as writer:
        writer.acquire("tickets", Holder("here", 1, None))
        for number in (0, 1):
            result = AttemptResult(
                Ending.DONE, artifacts={"best": f"trial-000{number}/attempt-1/best-{200 - 100 * number}"}
            )
            writer.listener("tickets")([AttemptStarted(number, 2), AttemptEnded(number, 2, result)])
        writer.release("tickets")
    say("artifacts", "tickets", "--free", "--yes", *policy, "--results", str(stored))
    best = {0: "trial-0000/attempt-1/best-200", 1: "trial-0001/attempt-1/best-100"}
    assert kept(shelf) == {best[number] for number in left} | {"trial-0002/attempt-1/checkpoint-9"}
    assert (shelf / "trial-0000/log.txt").exists()
    artifacts = open_results(stored).artifacts("tickets")
    assert set(artifacts[artifacts["removed_at"].isna()]["number"]) == left
    again = json.loads(say("artifacts", "tickets", "--json", *policy, "--results", str(stored)))
    assert again["free_bytes"] == 0


def test_freeing_asks_first_and_is_refused_while_the_sweep_is_driven(stored: Path, shelf: Path) -> None:
    asked = invoke("artifacts", "tickets", "--free", "--results", str(stored), given="n\n")
    assert asked.exit_code == 130
    assert "Remove 4.0 KiB of sweep tickets" in asked.stderr
    with open_writer(stored) as writer:
        writer.acquire("tickets", Holder.this_process())
        refused = invoke("artifacts", "tickets", "--free", "--yes", "--results", str(stored))
        told = json.loads(say("artifacts", "tickets", "--json", "--results", str(stored)))
    assert refused.exit_code == 2
    assert "is driven by process" in refused.stderr
    assert told["free_bytes"] == 2048  # of trials that have ended: others may be at work
    assert len(kept(shelf)) == 6
