"""What is said of a sweep at a glance."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from finesweep.events import Event, Grid, Source, TrialState, TrialSuggested
from finesweep.results.frames import open_results
from finesweep.results.writer import ResultsWriter, open_writer
from finesweep.spec.sweep import SweepSpec
from finesweep.views.findings import Kind, findings

Specs = Callable[..., SweepSpec]
Events = Callable[..., list[Event]]
RATE = {"type": "float", "low": 1e-5, "high": 1e-1, "log": True}
DECAY = {"type": "float", "low": 0.0, "high": 0.1}
NOTHING = pd.DataFrame({"parameter": []})


class Sweep:
    """A sweep that trials are put into, one second after another."""

    def __init__(self, writer: ResultsWriter, spec: SweepSpec, trial_events: Events) -> None:
        self._writer, self._name, self._trial_events = writer, spec.name, trial_events
        writer.create_sweep(spec, grid=Grid("examples", 100, 400), provenance={"devices": {"n_slots": 2}})
        self._n = 0

    def add(self, value: float, *, source: Source = Source.SAMPLER, **options: Any) -> None:
        rate = options.pop("learning_rate", 1e-3)
        settings = {"learning_rate": rate, "weight_decay": options.pop("weight_decay", 0.05)}
        suggested, *rest = self._trial_events(self._n, [value], configuration=settings, **options)
        assert isinstance(suggested, TrialSuggested)
        self._writer.listener(self._name)([replace(suggested, source=source), *rest])
        self._n += 1

    def said(self, kind: Kind, importances: pd.DataFrame = NOTHING) -> list[tuple[str, str | None]]:
        found = findings(open_results(self._writer.url), self._name, importances)
        return [(one.text, one.advice) for one in found if one.kind is kind]


@pytest.fixture
def sweep(tmp_path: Path, make_spec: Specs, trial_events: Events) -> Iterator[Sweep]:
    now_s = iter(range(1000, 10**6))
    study = {
        "objective": {"metric": "accuracy", "direction": "maximize"},
        "parameters": {"learning_rate": RATE, "weight_decay": DECAY},
    }
    with open_writer(tmp_path / "r.db", clock=lambda: float(next(now_s))) as writer:
        yield Sweep(writer, make_spec(study=study, budget={"trials": 8}), trial_events)


def test_the_best_is_held_against_the_librarys_defaults(sweep: Sweep) -> None:
    assert sweep.said(Kind.RESULT) == [("No trial is complete yet.", None)]
    sweep.add(0.5, source=Source.DEFAULT)
    [(text, _)] = sweep.said(Kind.RESULT)
    assert text.endswith("It is the library's default configuration: nothing that was tried beats it.")
    sweep.add(0.75)
    sweep.add(0.99, state=TrialState.PRUNED)
    sweep.add(0.99, state=TrialState.FAILED)
    [(text, _)] = sweep.said(Kind.RESULT)
    assert text == (
        "The best accuracy is 0.75, of trial 1 at step 100: learning_rate=0.001 weight_decay=0.05. "
        "The library's defaults came to 0.5, 0.25 worse."
    )


def test_an_incumbent_that_came_late_may_be_beaten_and_one_that_came_early_has_held(sweep: Sweep) -> None:
    for number in range(8):
        sweep.add(0.1 * number)
    assert sweep.said(Kind.PROGRESS) == [
        ("The best came late, 0 trials before the last of 8: it may still be beaten.",
         "finesweep extend tickets --trials 12"),
    ]  # fmt: skip
    for _ in range(4):
        sweep.add(0.0)
    assert sweep.said(Kind.PROGRESS) == [("The last 4 of 12 trials brought nothing better.", None)]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"learning_rate": 0.09}, "The best learning_rate, 0.09, lies at the upper end of its range, 1e-05 to 0.1."),
        (
            {"learning_rate": 1.1e-5},
            "The best learning_rate, 1.1e-05, lies at the lower end of its range, 1e-05 to 0.1.",
        ),
        ({"learning_rate": 0.01}, None),  # far from the edge on the scale it is searched in
        ({"weight_decay": 0.001}, None),  # there is nothing below none
        ({"weight_decay": 0.099}, "The best weight_decay, 0.099, lies at the upper end of its range, 0 to 0.1."),
    ],
)
def test_a_best_value_at_the_edge_of_its_range_is_told(
    sweep: Sweep, settings: dict[str, float], said: str | None
) -> None:
    sweep.add(0.5, **settings)
    sweep.add(0.9, state=TrialState.PRUNED, learning_rate=1e-5)
    assert [text for text, _ in sweep.said(Kind.RANGE)] == ([] if said is None else [said])


def test_importance_is_told_as_sure_only_where_its_interval_is(sweep: Sweep) -> None:
    def frame(low: float) -> pd.DataFrame:
        row = {"parameter": "learning_rate", "importance": 0.8, "low": low, "high": 0.9, "n_trials": 40}
        return pd.DataFrame([row])

    [(sure, _)] = sweep.said(Kind.IMPORTANCE, frame(0.7))
    assert sure == "learning_rate decides most: 80% (90 % interval 70% to 90%), over 40 trials."
    [(unsure, _)] = sweep.said(Kind.IMPORTANCE, frame(0.1))
    assert unsure.startswith("Which parameter decides is not certain yet")


def test_failures_are_counted_by_reason_and_lead_to_a_log(sweep: Sweep) -> None:
    sweep.add(0.5)
    for reason in ("out of luck", "out of memory", "out of memory"):
        sweep.add(0.1, state=TrialState.FAILED, reason=reason)
    assert sweep.said(Kind.FAILURES) == [
        ("3 of 4 trials failed, 2 of them by: out of memory, and 1 other reason.", "finesweep logs tickets:2")
    ]
