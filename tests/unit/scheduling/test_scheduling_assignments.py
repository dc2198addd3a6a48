from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, takewhile

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.scheduling.asked_sweep import Sweep

from finesweep.events import AttemptResult, Configuration, Ending, TrialSpec, TrialSuggested
from finesweep.scheduling.assignments import Assignments
from finesweep.scheduling.stacking import ALONE, Stacking
from finesweep.search.broker import NoTrial


def alike(configuration: Configuration) -> str:
    return "alike"


def all_of(assignments: Assignments) -> Iterator[list[int]]:
    while isinstance(assignment := assignments.next(), tuple):
        yield [trial.number for trial in assignment]


def test_without_stacking_each_trial_goes_alone_and_none_is_asked_for_early() -> None:
    sweep = Sweep(n_trials=3)
    assignments = Assignments(sweep.broker, ALONE, n_slots=2)
    for number in range(3):
        assert assignments.next() == (TrialSpec(number, 1, sweep.heard(TrialSuggested)[number].configuration),)
        assert len(sweep.heard(TrialSuggested)) == number + 1
    assert assignments.next() is NoTrial.WAIT


@pytest.mark.parametrize(
    ("n_trials", "n_lanes", "n_slots", "sizes"),
    [
        (16, 64, 1, [16]),
        (16, 64, 2, [8, 8]),
        (17, 64, 2, [9, 8]),
        (24, 8, 2, [8, 8, 4, 4]),
        (3, 8, 4, [1, 1, 1]),
        (5, 2, 1, [2, 2, 1]),
    ],
)
def test_slots_share_what_is_left(n_trials: int, n_lanes: int, n_slots: int, sizes: list[int]) -> None:
    sweep = Sweep(n_trials=n_trials)
    assignments = Assignments(sweep.broker, Stacking(n_lanes, alike), n_slots=n_slots)
    numbers = list(all_of(assignments))
    assert [len(lanes) for lanes in numbers] == sizes
    assert [*chain.from_iterable(numbers)] == list(range(n_trials))


@given(keys=st.lists(st.sampled_from(["a", "b", None]), min_size=1, max_size=20), n_lanes=st.integers(1, 5))
def test_as_many_as_one_slot_is_asked_for_are_sorted_by_key(keys: list[str | None], n_lanes: int) -> None:
    sweep = Sweep(n_trials=len(keys))
    expected: list[list[int]] = []
    number = 0
    while number < len(keys):
        if keys[number] is None:
            expected.append([number])
            number += 1
            continue
        asked = list(takewhile(lambda n: keys[n] is not None, range(number, min(number + n_lanes, len(keys)))))
        for key in dict.fromkeys(keys[n] for n in asked):  # in the order in which they came
            expected.append([n for n in asked if keys[n] == key])
        number += len(asked)

    def key_of(configuration: Configuration) -> str | None:
        drawn = [event.configuration for event in sweep.heard(TrialSuggested)]
        return keys[drawn.index(configuration)]

    assert list(all_of(Assignments(sweep.broker, Stacking(n_lanes, key_of), n_slots=1))) == expected


@pytest.mark.parametrize("third", ["b", None])
def test_what_no_slot_was_given_is_given_back_when_the_sweep_is_halted(third: str | None) -> None:
    sweep = Sweep(n_trials=6)
    keys = iter(["a", "a", third, *"aaa"])
    known: dict[object, str | None] = {}

    def key(configuration: Configuration) -> str | None:
        x = configuration["x"]
        return known[x] if x in known else known.setdefault(x, next(keys))

    assignments = Assignments(sweep.broker, Stacking(3, key), n_slots=1)
    first = assignments.next()
    assert isinstance(first, tuple)
    assert [trial.number for trial in first] == [0, 1]
    assert len(sweep.heard(TrialSuggested)) == 3
    sweep.broker.halt("enough", pause=False)
    assert assignments.next() is NoTrial.WAIT
    for trial in first:
        sweep.train(trial.number)
    assert assignments.next() is NoTrial.EXHAUSTED, "nothing is held back from the broker"
    assert sweep.broker.n_unfinished == 1


def test_lost_lanes_go_alone_as_one_of_them_may_be_what_kills_workers() -> None:
    sweep = Sweep(n_trials=4)
    assignments = Assignments(sweep.broker, Stacking(4, alike), n_slots=1)
    first = assignments.next()
    assert isinstance(first, tuple)
    sweep.train(1)
    for number in (3, 2, 0):
        sweep.broker.finish(number, AttemptResult(Ending.LOST))
    again = [assignments.next() for _ in range(3)]
    assert [[(trial.number, trial.attempt) for trial in one] for one in again if isinstance(one, tuple)] == [
        [(0, 2)],
        [(2, 2)],
        [(3, 2)],
    ]
