from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from tests.unit.search.conftest import Desk, MakeDesk

from finesweep.events import Decision, Ending, Grid

STOP, GO = Decision.STOP, Decision.CONTINUE


def play(desk: Desk, trials: Sequence[Mapping[int, float]]) -> list[list[Decision]]:
    """Run trials one after another; give the decisions that each heard, up to its stop."""
    heard: list[list[Decision]] = []
    for values in trials:
        trial = desk.next()
        heard.append([])
        for step, value in values.items():
            heard[-1].append(desk.report(trial.number, step, value))
            if heard[-1][-1] is STOP:
                break
        desk.finish(trial.number, Ending.STOPPED if STOP in heard[-1] else Ending.DONE)
    return heard


def test_asha_follows_a_table_made_by_hand(make_desk: MakeDesk) -> None:
    """Rungs 100, 300, 900; of n at a rung the best n // 3 go on, and the best one always.

    rung 100: 0.5 first: on. 0.4 of (0.5, 0.4): not the best: stop. 0.6: the best of three: on. 0.55 of four: stop.
    0.7: on. 0.65 of six, two go on (0.7, 0.65): on.
    rung 300: 0.5: the first: on. 0.6: on. 0.55 of three: stop. 0.7 of four: the best: on.
    """
    desk = make_desk(pruner={"type": "asha", "first_rung": 100, "reduction_factor": 3})
    trials = [
        {100: 0.5, 200: 0.1, 300: 0.5, 900: 0.5},
        {100: 0.4},
        {100: 0.6, 200: 0.0, 300: 0.6},
        {100: 0.55},
        {100: 0.7, 200: 0.7, 300: 0.55},
        {100: 0.65, 200: 0.7, 300: 0.7},
    ]
    assert play(desk, trials) == [[GO] * 4, [STOP], [GO] * 3, [STOP], [GO, GO, STOP], [GO] * 3]
    rungs = [
        {key: value for key, value in trial.system_attrs.items() if key.startswith("completed_rung")}
        for trial in desk.broker.study.trials
    ]
    assert rungs == [
        {"completed_rung_0": 0.5, "completed_rung_1": 0.5, "completed_rung_2": 0.5},
        {"completed_rung_0": 0.4},
        {"completed_rung_0": 0.6, "completed_rung_1": 0.6},
        {"completed_rung_0": 0.55},
        {"completed_rung_0": 0.7, "completed_rung_1": 0.55},
        {"completed_rung_0": 0.65, "completed_rung_1": 0.7},
    ]


def test_asha_minimizes_too(make_desk: MakeDesk) -> None:
    desk = make_desk(pruner={"type": "asha", "first_rung": 100}, direction="minimize")
    assert play(desk, [{100: 0.5}, {100: 0.6}, {100: 0.4}]) == [[GO], [STOP], [GO]]


@pytest.mark.parametrize("kind", ["asha", "hyperband"])
def test_the_first_rung_is_the_first_step_of_the_grid_unless_said(make_desk: MakeDesk, kind: str) -> None:
    grid = Grid("examples", every=200, longest=200)  # one bracket
    desk = make_desk(pruner={"type": kind}, grid=grid)
    assert play(desk, [{100: 0.5, 200: 0.5}, {100: 0.1, 200: 0.1}]) == [[GO, GO], [GO, STOP]]
    later = make_desk(pruner={"type": "asha", "first_rung": 400}, grid=grid)
    assert play(later, [{200: 0.5, 400: 0.5}, {200: 0.1, 400: 0.1}]) == [[GO, GO], [GO, STOP]]


def test_hyperband_has_brackets_up_to_the_longest_trial(make_desk: MakeDesk) -> None:
    """Brackets begin to stop at 100, 300 and 900, and a trial's number tells its bracket."""
    desk = make_desk(pruner="hyperband", n_trials=60)
    falling = [dict.fromkeys((100, 300, 900), 1 - 0.01 * number) for number in range(60)]
    heard = play(desk, falling)
    stopped_at = {(100, 300, 900)[len(decisions) - 1] for decisions in heard if STOP in decisions}
    assert stopped_at == {100, 300, 900}
    assert heard.count([GO] * 3) == 3  # the first of each bracket


@pytest.mark.parametrize(
    ("pruner", "stopped"),
    [
        ({"type": "median", "startup_trials": 4}, [0.1, 0.24]),
        ({"type": "percentile", "percentile": 75.0, "startup_trials": 4}, [0.1]),
        ({"type": "threshold", "lower": 0.3}, [0.1, 0.24, 0.26]),
        ({"type": "threshold", "lower": 0.0, "upper": 0.25}, [0.26, 0.45]),
        ({"type": "none"}, []),
    ],
)
def test_a_pruner_stops_some_and_spares_others(
    make_desk: MakeDesk, pruner: dict[str, Any], stopped: list[float]
) -> None:
    for value in (0.1, 0.24, 0.26, 0.45):
        desk = make_desk(pruner=pruner)
        if pruner["type"] in ("median", "percentile"):
            play(desk, [{100: level} for level in (0.2, 0.22, 0.28, 0.3)])
            assert desk.broker.study.trials[3].state.name == "COMPLETE"
        [decisions] = play(desk, [{100: value}])
        assert decisions == [STOP if value in stopped else GO], value


@pytest.mark.parametrize("kind", ["median", "percentile", "threshold"])
def test_nothing_is_stopped_before_the_warmup(make_desk: MakeDesk, kind: str) -> None:
    limits = {"lower": 0.3} if kind == "threshold" else {"startup_trials": 1}
    desk = make_desk(pruner={"type": kind, "warmup": 200} | limits)
    assert play(desk, [{100: 0.5, 200: 0.5}, {100: 0.1, 200: 0.1}]) == [[GO, GO], [GO, STOP]]


def test_patience_waits_while_reports_are_worse_than_the_best_before(make_desk: MakeDesk) -> None:
    desk = make_desk(pruner={"type": "patient", "patience": 2, "min_delta": 0.05})
    improving = {100: 0.1, 200: 0.2, 300: 0.3, 400: 0.4, 500: 0.5}
    falling = {100: 0.1, 200: 0.5, 300: 0.4, 400: 0.4, 500: 0.4}
    within_delta = {100: 0.1, 200: 0.5, 300: 0.46, 400: 0.46, 500: 0.46}
    assert play(desk, [improving, falling, within_delta]) == [[GO] * 5, [GO, GO, GO, GO, STOP], [GO] * 5]


def test_patience_asks_the_pruner_that_it_holds_back(make_desk: MakeDesk) -> None:
    pruner = {"type": "patient", "patience": 1, "then": {"type": "threshold", "lower": 0.5}}
    desk = make_desk(pruner=pruner)
    high, low = {100: 0.9, 200: 0.8, 300: 0.7}, {100: 0.4, 200: 0.3, 300: 0.2}
    assert play(desk, [high, low]) == [[GO] * 3, [GO, GO, STOP]]
