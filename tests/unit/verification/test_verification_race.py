"""What a verification trains, in which order, and what it leaves out."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
from tests.unit.verification.conftest import Plans

from finesweep.errors import ResultsError
from finesweep.spec.study import Objective
from finesweep.verification.plan import VerificationPlan, key_of
from finesweep.verification.race import Race, standing_of

UP = Objective(metric="accuracy", direction="maximize")
DOWN = Objective(metric="loss", direction="minimize")
LEVELS: Mapping[str, float] = {"a": 0.90, "b": 0.90, "c": 0.10, "z": 0.5}
Train = Callable[[str, int], float | None]


def by_level(letter: str, seed: int) -> float:
    """Repeats differ by little, and not by the same for all."""
    return LEVELS[letter] + (ord(letter) * 7 + seed * 5) % 11 / 1000


def take_all(race: Race) -> list[str]:
    """Take what may be trained now: letter and seed."""
    taken = []
    while (found := race.take()) is not None:
        taken.append(f"{found['arm']}{found['seed']}")
    return taken


def note(race: Race, taken: list[str], train: Train) -> None:
    for text in taken:
        race.note_ended({"arm": text[0], "seed": int(text[1:])}, train(text[0], int(text[1:])))


def run(race: Race, train: Train) -> list[str]:
    """Train all at once that may be, again and again."""
    everything = []
    while taken := take_all(race):
        everything += taken
        note(race, taken, train)
    return everything


def test_arms_are_trained_round_by_round_and_the_baseline_while_a_look_waits(make_plan: Plans) -> None:
    race = Race(make_plan("ab"), UP)
    assert take_all(race) == ["a10", "b10", "a11", "b11", "z20", "z21"]
    note(race, ["a10", "b10", "a11"], by_level)
    assert take_all(race) == []  # the second round is not over
    note(race, ["b11"], by_level)
    assert take_all(race) == ["a12", "b12"]
    assert race.n_left > 0
    note(race, ["b12"], lambda letter, seed: 0.5)
    note(race, ["a12"], by_level)
    assert take_all(race) == ["a20", "a21"]
    assert race.n_left == 0


def test_a_clear_loser_is_left_out_of_the_next_round(make_plan: Plans) -> None:
    plan = make_plan("abc", race_seeds=4)
    trained = run(Race(plan, UP), by_level)
    assert [text for text in trained if text[0] == "c"] == ["c10", "c11"]
    assert [text for text in trained if text[0] == "a" and int(text[1:]) < 20] == ["a10", "a11", "a12", "a13"]


def test_lower_is_better_where_the_objective_says_so(make_plan: Plans) -> None:
    plan = make_plan("abc", race_seeds=3)
    ended = cells(plan, "abc", 10, 11, 12, train=by_level)
    assert standing_of(plan, ended, UP).winner in (0, 1)
    assert standing_of(plan, ended, DOWN).winner == 2


def cells(plan: VerificationPlan, letters: str, *seeds: int, train: Train) -> dict[tuple[str, int], float | None]:
    return {(key_of({"arm": letter}), seed): train(letter, seed) for letter in letters for seed in seeds}


def test_a_race_that_only_one_arm_is_left_in_is_over(make_plan: Plans) -> None:
    race = Race(make_plan("ac", race_seeds=5), UP)
    assert run(race, lambda letter, seed: LEVELS[letter] + seed / 1e6) == [
        *("a10", "c10", "a11", "c11", "z20", "z21"),
        *("a20", "a21"),
    ]
    assert race.n_left == 0


@pytest.mark.parametrize("objective", [UP, DOWN])
def test_an_arm_with_a_training_that_came_to_nothing_loses_to_one_without(
    make_plan: Plans, objective: Objective
) -> None:
    plan = make_plan("ab", race_seeds=3)
    ended = cells(plan, "ab", 10, 11, train=by_level)
    ended[key_of({"arm": "a"}), 11] = None
    standing = standing_of(plan, ended, objective)
    assert (standing.winner, dict(standing.dropped), standing.is_over) == (1, {0: 2}, True)


def test_where_all_arms_lost_as_many_trainings_their_means_decide(make_plan: Plans) -> None:
    plan = make_plan("abc", race_seeds=3)
    ended = cells(plan, "abc", 10, 11, 12, train=lambda letter, seed: None if seed == 11 else by_level(letter, seed))
    standing = standing_of(plan, ended, DOWN)
    assert (standing.winner, dict(standing.dropped)) == (2, {})  # one whole round is no spread to judge by


def test_a_race_in_which_nothing_came_to_anything_has_no_winner_and_trains_no_more(make_plan: Plans) -> None:
    race = Race(make_plan("abc", baseline=None), UP)
    assert len(run(race, lambda letter, seed: None)) == 3 * 3
    assert race.n_left == 0
    assert standing_of(make_plan("abc"), cells(make_plan("abc"), "abc", 10, 11, 12, train=lambda *_: None), UP).is_over


def test_one_configuration_does_not_race(make_plan: Plans) -> None:
    race = Race(make_plan("a"), UP)
    assert race.n_left == 4
    assert take_all(race) == ["a20", "z20", "a21", "z21"]
    assert race.n_left == 0


def test_one_round_decides_by_its_values_alone(make_plan: Plans) -> None:
    trained = run(Race(make_plan("ac", race_seeds=1), UP), by_level)
    assert trained == ["a10", "c10", "z20", "z21", "a20", "a21"]


def test_a_baseline_that_depends_on_the_winner_waits_for_it(make_plan: Plans) -> None:
    race = Race(make_plan("ac", race_seeds=2, baseline="yz"), UP)
    assert take_all(race) == ["a10", "c10", "a11", "c11"]
    note(race, ["a10", "c10", "a11", "c11"], by_level)
    assert take_all(race) == ["a20", "y20", "a21", "y21"]


def test_a_baseline_that_wins_is_not_trained_twice(make_plan: Plans) -> None:
    trained = run(Race(make_plan("ac", race_seeds=2, baseline="a"), UP), by_level)
    assert sorted(trained) == sorted(["a10", "c10", "a11", "c11", "a20", "a21"])


def test_a_race_that_was_told_of_its_past_goes_on_where_it_was(make_plan: Plans) -> None:
    plan = make_plan("abc", race_seeds=4)
    whole = run(Race(plan, UP), by_level)
    for n in range(len(whole) + 1):
        again = Race(plan, UP)
        for text in whole[:n]:
            again.note_given({"arm": text[0], "seed": int(text[1:])})
        note(again, whole[:n], by_level)
        assert set(run(again, by_level)) == set(whole[n:])


def test_a_training_that_no_plan_holds_is_refused(make_plan: Plans) -> None:
    for unknown in ({"arm": "q", "seed": 10}, {"arm": "a"}):
        with pytest.raises(ResultsError, match="its plan does not hold"):
            Race(make_plan(), UP).note_given(unknown)
