"""What differs between two trials."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from finesweep.errors import ResultsError
from finesweep.events import Event, Grid, TrialState
from finesweep.results.frames import Results, open_results
from finesweep.results.writer import open_writer
from finesweep.spec.sweep import SweepSpec
from finesweep.views.diff import diff, incumbent_of

Specs = Callable[..., SweepSpec]
Events = Callable[..., list[Event]]


@pytest.fixture
def results(tmp_path: Path, make_spec: Specs, trial_events: Events) -> Iterator[Results]:
    """Keep two sweeps of other data; the second trial of the first was pruned after one report."""
    with open_writer(tmp_path / "r.db") as writer:
        for name, fingerprint in (("a", "one"), ("b", "two")):
            provenance = {"data_fingerprint": fingerprint, "versions": {"torch": "2.13", "ray": name}}
            writer.create_sweep(make_spec(name), grid=Grid("examples", 100, 1000), provenance=provenance)
        settings = [{"learning_rate": 1e-3, "batch_size": 8}, {"learning_rate": 1e-4, "batch_size": 8}]
        writer.listener("a")(trial_events(0, [0.5, 0.9], configuration=settings[0]))
        writer.listener("a")(trial_events(1, [0.4], configuration=settings[1], state=TrialState.PRUNED, reason="rung"))
        writer.listener("b")(trial_events(0, [0.5, 0.9], configuration=settings[0]))
        yield open_results(writer.url)


def rows_of(results: Results, one: tuple[str, int], other: tuple[str, int]) -> dict[tuple[str, str], tuple[Any, Any]]:
    names = [f"{sweep}:{number}" for sweep, number in (one, other)]
    return {(row["kind"], row["what"]): (row[names[0]], row[names[1]]) for row in diff(results, one, other).rows}


def test_only_what_differs_of_settings_and_all_of_the_results_is_listed(results: Results) -> None:
    rows = rows_of(results, ("a", 1), ("a", 0))
    assert [what for kind, what in rows if kind == "from"] == []
    assert {what: pair for (kind, what), pair in rows.items() if kind == "setting"} == {"learning_rate": (1e-4, 1e-3)}
    assert rows["result", "state"] == ("PRUNED", "COMPLETE")
    assert rows["result", "reason"] == ("rung", None)
    assert rows["result", "accuracy"] == (None, "0.9")


def test_trials_are_held_against_each_other_at_the_last_step_that_both_have_reported(results: Results) -> None:
    assert rows_of(results, ("a", 1), ("a", 0))["result", "accuracy at step 100"] == ("0.4", "0.5")


def test_trials_of_two_sweeps_differ_by_where_they_come_from(results: Results) -> None:
    rows = rows_of(results, ("a", 0), ("b", 0))
    assert {what: pair for (kind, what), pair in rows.items() if kind == "from"} == {
        "data_fingerprint": ("one", "two"),
        "versions.ray": ("a", "b"),
    }
    assert [what for kind, what in rows if kind == "setting"] == []


def test_a_trial_is_held_against_the_incumbent_if_there_is_one(
    tmp_path: Path, results: Results, make_spec: Specs
) -> None:
    assert incumbent_of(results, "a") == ("a", 0)
    with open_writer(results.url) as writer:
        writer.create_sweep(make_spec("c"), grid=Grid("examples", 100, 1000), provenance={})
    with pytest.raises(ResultsError, match="no COMPLETE trial to compare with"):
        incumbent_of(results, "c")


def test_a_trial_that_is_not_there_is_named(results: Results) -> None:
    with pytest.raises(ResultsError, match="trial a:7 does not exist"):
        diff(results, ("a", 7), ("a", 0))
