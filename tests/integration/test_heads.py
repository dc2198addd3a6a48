"""Sweeps of heads: trained together on stored features, from the file to the database, and through a worker's death."""

from __future__ import annotations

import os
import signal

import pandas as pd
import pytest

from finesweep.results.frames import Results
from tests.integration.conftest import Workplace

NUMBERS = ["number", "state", "value", "value_step", "examples_seen"]


@pytest.fixture
def heads(workplace: Workplace) -> Workplace:
    """Eight heads, not pruned, that two slots share as four and four."""
    workplace.write(
        {"training": {"method": "feature-extraction"}, "budget": {"trials": 8}, "resources": {"max_parallel": 2}},
        study={"pruner": {"type": "none"}},
    )
    return workplace


def facts_of(results: Results, sweep: str) -> list[dict[str, object]]:
    return list(results.attempts(sweep)["facts"])


def test_heads_come_to_the_same_together_and_one_by_one(heads: Workplace) -> None:
    heads.run("run", "sweep.yaml", "--name", "together")
    heads.run("run", "sweep.yaml", "--name", "single", "--set", "resources.stack=1", "--backend", "inline")
    heads.run("run", "sweep.yaml", "--name", "whole", "--set", "resources.feature_cache_gib=0", "--backend", "inline")
    results = heads.results
    assert [fact["stacked_with"] for fact in facts_of(results, "together")] == [3] * 8
    assert [fact["stacked_with"] for fact in facts_of(results, "single")] == [0] * 8
    assert {str(fact["features"])[:10] for fact in facts_of(results, "whole")} == {"not cached"}
    expected = results.trials("whole")[NUMBERS].sort_values("number").reset_index(drop=True)
    for sweep in ("together", "single"):
        got = results.trials(sweep)[NUMBERS].sort_values("number").reset_index(drop=True)
        pd.testing.assert_frame_equal(got, expected, rtol=1e-5)
    # the sweep before has stored what frozen layers compute
    assert not any("feature_seconds" in fact for fact in facts_of(results, "single"))


def test_a_worker_that_dies_with_a_stack_costs_no_lane_its_number_or_its_reports(heads: Workplace) -> None:
    heads.write({"training": {"epochs": 60, "eval_every": 240, "checkpoint_minutes": 0}})
    process = heads.start("run", "sweep.yaml")

    def is_under_way(results: Results) -> bool:
        points = results.points("tiny")
        return bool((points.groupby("number")["step"].nunique() >= 3).any())

    heads.wait_for(is_under_way)
    before = heads.results.points("tiny")
    victim = int(before.groupby("number")["step"].max().idxmax())
    pid = heads.results.attempts("tiny").set_index("number").loc[victim, "facts"]["pid"]
    os.kill(pid, signal.SIGKILL)
    _, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    results = heads.results
    trials = results.trials("tiny")
    assert sorted(trials["number"]) == list(range(8))
    assert set(trials["state"]) == {"COMPLETE"}
    tried = results.attempts("tiny")
    lost = tried[tried["ending"] == "lost"]
    assert victim in list(lost["number"])
    assert len(lost) == 4, "the lanes of its stack"
    again = tried[tried["number"].isin(lost["number"]) & (tried["attempt"] == 2)]
    assert list(again["ending"]) == ["done"] * len(lost)
    assert all(facts["resumed_from"] for facts in again["facts"])
    kept = results.points("tiny").merge(before, on=["number", "step", "metric"], suffixes=("", "_before"))
    assert len(kept) == len(before)
    assert (kept["value"] == kept["value_before"]).all()
