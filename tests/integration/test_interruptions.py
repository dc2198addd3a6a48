"""What dies is made whole: workers, the driver with all it started, and clean stops."""

from __future__ import annotations

import os
import re
import signal

import pandas as pd
import psutil
import pytest

from finesweep.results.frames import Results
from tests.integration.conftest import Workplace


@pytest.fixture
def slow(workplace: Workplace) -> Workplace:
    """Trials of some seconds, not pruned, with a checkpoint at every report."""
    workplace.write(
        {"training": {"epochs": 20, "eval_every": 240, "checkpoint_minutes": 0}, "budget": {"trials": 3}},
        study={"pruner": {"type": "none"}},
    )
    return workplace


def is_under_way(results: Results) -> bool:
    """Tell whether a running trial has reported often enough to have checkpoints."""
    points = results.points("tiny")
    running = results.trials("tiny").query("state == 'RUNNING'")["number"]
    return bool((points[points["number"].isin(running)].groupby("number")["step"].nunique() >= 3).any())


def test_a_killed_worker_costs_its_trial_nothing_but_the_way_from_its_checkpoint(slow: Workplace) -> None:
    process = slow.start("run", "sweep.yaml")
    slow.wait_for(is_under_way)
    attempts = slow.results.attempts("tiny")
    points = slow.results.points("tiny")
    victim = int(points.groupby("number")["step"].max().idxmax())
    pid = attempts.set_index("number").loc[victim, "facts"]["pid"]
    os.kill(pid, signal.SIGKILL)
    _, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert f"trial {victim} interrupted" in err
    tried = slow.results.attempts("tiny").query("number == @victim")
    assert list(tried["ending"]) == ["lost", "done"]
    assert tried.iloc[1]["facts"]["resumed_from"]
    assert list(slow.results.trials("tiny")["state"]) == ["COMPLETE"] * 3


def test_a_killed_process_group_is_resumed_to_exactly_the_trials_asked_for(slow: Workplace) -> None:
    process = slow.start("run", "sweep.yaml")
    slow.wait_for(lambda results: is_under_way(results) and bool((results.trials("tiny")["state"] == "COMPLETE").any()))
    children = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=30)
    psutil.wait_procs(children, timeout=30)
    before = slow.results.trials("tiny")
    assert "RUNNING" not in set(before["state"])  # without a live driver it is shown as what it is
    assert "INTERRUPTED" in set(before["state"])
    slow.run("resume", "tiny")
    after = slow.results.trials("tiny")
    assert list(after["number"]) == [0, 1, 2]
    assert set(after["state"]) == {"COMPLETE"}
    finished = before.loc[before["state"] == "COMPLETE", "number"]
    pd.testing.assert_frame_equal(
        before[before["number"].isin(finished)], after[after["number"].isin(finished)], check_like=True
    )
    assert slow.results.points("tiny").groupby(["number", "step", "metric"]).size().max() == 1


def test_ctrl_c_pauses_with_a_checkpoint_and_says_how_to_go_on(slow: Workplace) -> None:
    process = slow.start("run", "sweep.yaml")
    slow.wait_for(is_under_way)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert re.search(r"finesweep resume tiny", err)
    paused = slow.results.attempts("tiny").query("ending == 'paused'")
    assert not paused.empty
    slow.run("resume", "tiny")
    trials = slow.results.trials("tiny")
    assert list(trials["state"]) == ["COMPLETE"] * 3
    resumed = slow.results.attempts("tiny").query("attempt == 2")
    assert set(resumed["number"]) == set(paused["number"])
    assert all(facts["resumed_from"] for facts in resumed["facts"])


def test_a_detached_sweep_is_followed_stopped_from_elsewhere_and_not_driven_twice(slow: Workplace) -> None:
    started = slow.run("run", "sweep.yaml", "--detach")
    assert "runs in the background" in started.stdout
    held = slow.run("resume", "tiny", code=2)
    assert "is driven by process" in held.stderr
    slow.wait_for(is_under_way)
    slow.run("stop", "tiny")
    slow.wait_for(lambda results: results.sweeps()["state"].iloc[0] == "INTERRUPTED")
    slow.wait_for(lambda results: bool(results.sweeps()["driver"].isna().iloc[0]))
    slow.run("resume", "tiny")
    assert list(slow.results.trials("tiny")["state"]) == ["COMPLETE"] * 3
