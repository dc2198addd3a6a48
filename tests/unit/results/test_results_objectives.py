"""Several objectives: what is read back of their values, and who is on the front."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from finesweep.events import Event, Grid, Source, TrialFinished, TrialState, TrialSuggested
from finesweep.results.columns import ON_FRONT, TRIAL_COLUMNS
from finesweep.results.frames import Results, open_results
from finesweep.results.objectives import value_text
from finesweep.results.writer import open_writer
from finesweep.spec.sweep import SweepSpec

GRID = Grid("examples", 100, 1000)
VALUES = {0: (0.5, 10.0), 1: (0.9, 40.0), 2: (0.7, 10.0), 4: (0.6, 50.0), 5: (0.9, 30.0)}
FRONT = [5, 2]  # 1 is as accurate as 5 and larger


@pytest.fixture
def results(tmp_path: Path, make_spec: Callable[..., SweepSpec], trial_events: Callable[..., list[Event]]) -> Results:
    """Two sweeps: one of two objectives whose trials report twice and are worse at the end, and one of one."""
    with open_writer(tmp_path / "r.db") as writer:
        writer.create_sweep(make_spec("two", others={"size": "minimize"}), grid=GRID, provenance={})
        listen = writer.listener("two")
        for number, (accuracy, size) in VALUES.items():
            listen(trial_events(number, (accuracy, 0.1), others={"size": (size, 1.0)}))
        listen(trial_events(3, (0.95,), state=TrialState.PRUNED, reason="rung", others={"size": (1.0,)}))
        listen([TrialSuggested(6, {}, {}, {}, Source.SAMPLER, {}, {}, twin_of=5)])
        listen([TrialFinished(6, TrialState.COMPLETE, None, 0.9, 100, reused_from=5, other_values=(30.0,))])
        writer.create_sweep(make_spec("one"), grid=GRID, provenance={})
        for number, accuracy in enumerate((0.3, 0.8)):
            writer.listener("one")(trial_events(number, (accuracy,)))
    return open_results(tmp_path / "r.db")


def test_the_front_is_read_best_first_and_leads_with_the_best(results: Results) -> None:
    front = results.front("two")
    assert [trial.number for trial in front] == FRONT
    assert [dict(trial.values) for trial in front] == [{"accuracy": 0.9, "size": 30.0}, {"accuracy": 0.7, "size": 10.0}]
    best = results.best("two")
    assert best == front[0]
    assert [trial.number for trial in results.front("one")] == [1]


def test_a_trial_has_its_values_also_where_it_took_them_over(results: Results) -> None:
    assert results.trial("two", 6).values == {"accuracy": 0.9, "size": 30.0}
    assert results.trial("two", 3).values == {}
    assert results.trial("one", 0).values == {"accuracy": 0.3}


def test_trials_have_a_column_for_each_further_objective(results: Results) -> None:
    frame = results.trials("two")
    assert list(frame.columns)[len(TRIAL_COLUMNS) :][:2] == ["objective.size", ON_FRONT]
    sizes = frame["objective.size"]
    assert {n: sizes[n] for n in VALUES} == {n: size for n, (_, size) in VALUES.items()}
    assert (sizes[6], sizes.isna()[3]) == (30.0, True)
    assert frame["number"][frame[ON_FRONT]].tolist() == sorted(FRONT)
    assert str(frame[ON_FRONT].dtype) == "boolean"


def test_one_objective_has_no_such_columns_unless_beside_several(results: Results) -> None:
    assert ON_FRONT not in results.trials("one")
    both = results.trials()
    marked = both[both[ON_FRONT]]
    assert list(zip(marked["sweep"], marked["number"], strict=True)) == [("two", 2), ("two", 5), ("one", 1)]
    assert both["objective.size"][both["sweep"] == "one"].isna().all()


def test_sweeps_show_the_leading_objective(results: Results) -> None:
    rows = results.sweeps().set_index("sweep")
    assert rows.loc["two", ["metric", "direction", "best_value", "best_trial"]].tolist() == [
        "accuracy",
        "maximize",
        0.9,
        5,
    ]


@pytest.mark.parametrize(("direction", "best"), [("maximize", 2), ("minimize", 1)])
def test_the_best_of_one_objective_is_the_earliest_of_equals_among_those_complete(
    tmp_path: Path,
    make_spec: Callable[..., SweepSpec],
    trial_events: Callable[..., Sequence[Event]],
    direction: str,
    best: int,
) -> None:
    with open_writer(tmp_path / "r.db") as writer:
        for name in ("other", "one"):
            writer.create_sweep(make_spec(name, direction=direction), grid=GRID, provenance={})
        writer.listener("other")(trial_events(0, (0.0, 1.0)))
        listen = writer.listener("one")
        listen(trial_events(0, (0.99, 0.01), state=TrialState.PRUNED))
        for number, value in enumerate((0.2, 0.8, 0.2, 0.8, 0.5), 1):
            listen(trial_events(number, (value,)))
    results = open_results(tmp_path / "r.db")
    found = results.best("one")
    assert found is not None
    assert (found.number, found.value) == (best, {1: 0.2, 2: 0.8}[best])
    assert results.sweeps().set_index("sweep").loc["one", ["best_trial", "best_value"]].tolist() == [best, found.value]


def test_the_front_of_a_sweep_without_results_is_empty(tmp_path: Path, make_spec: Callable[..., SweepSpec]) -> None:
    with open_writer(tmp_path / "r.db") as writer:
        writer.create_sweep(make_spec("new", others={"size": "minimize"}), grid=GRID, provenance={})
    results = open_results(tmp_path / "r.db")
    assert (results.front("new"), results.best("new")) == ((), None)
    assert results.trials("new")[ON_FRONT].tolist() == []


@pytest.mark.parametrize(
    ("value", "text"), [(0.91666, "0.9167"), (12.345, "12.35"), (66_362_880.0, "66,362,880"), (-1234.5, "-1,234")]
)
def test_values_are_written_for_people(value: float, text: str) -> None:
    assert value_text(value) == text
