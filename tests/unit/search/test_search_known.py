from __future__ import annotations

from pydantic import TypeAdapter

from finesweep.search.known import REPEATS_BEFORE_HELP, KnownConfigurations
from finesweep.spec.parameters import Parameter

COIN = {"batch_size": TypeAdapter(Parameter).validate_python({"type": "categorical", "choices": [8, 16]})}


def known_coin() -> KnownConfigurations:
    return KnownConfigurations(COIN, fixed={})


def test_an_equal_configuration_has_the_earlier_trial() -> None:
    known = known_coin()
    assert known.propose({"batch_size": 8}, 0) is None
    assert known.propose({"batch_size": 8}, 1) == 0
    assert known.propose({"batch_size": 8.0}, 2) is None  # spelt otherwise: not equal
    assert known.find({"batch_size": 16}) is None


def test_a_failed_trials_configuration_can_be_tried_again() -> None:
    known = known_coin()
    known.propose({"batch_size": 8}, 0)
    known.forget({"batch_size": 8})
    assert known.propose({"batch_size": 8}, 1) is None


def test_help_is_needed_after_repeats_in_a_row_and_finds_what_is_left() -> None:
    known = known_coin()
    for number in range(REPEATS_BEFORE_HELP):
        known.propose({"batch_size": 8}, number)
        assert not known.needs_help
    known.propose({"batch_size": 8}, REPEATS_BEFORE_HELP)
    assert known.needs_help
    assert known.next_unseen() == {"batch_size": 16}
    known.propose({"batch_size": 16}, 99)
    assert not known.needs_help
    assert known.next_unseen() is None
    assert known.used_up == "the search space is used up: every configuration has been tried"


def test_a_sweep_that_goes_on_knows_at_once_that_its_space_is_used_up() -> None:
    known = known_coin()
    known.keep({"batch_size": 8}, 0)
    known.go_on(n_repeats=REPEATS_BEFORE_HELP, may_propose=True)
    assert known.used_up is None
    assert known.next_unseen() == {"batch_size": 16}  # looking ahead has used up nothing
    known.keep({"batch_size": 16}, 1)
    known.go_on(n_repeats=REPEATS_BEFORE_HELP, may_propose=False)
    assert known.used_up is None
    known.go_on(n_repeats=REPEATS_BEFORE_HELP, may_propose=True)
    assert known.used_up is not None
