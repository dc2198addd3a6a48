"""A broker with an agenda tries what that says, waits where it waits, and tells it how trials end."""

from __future__ import annotations

import pytest
from tests.unit.search.conftest import RATE, Desk, MakeDesk

from finesweep.events import Configuration, Ending, Source, TrialSuggested
from finesweep.search.broker import NoTrial

RATES = (0.001, 0.002, 0.004)


class TwoThenTheBetter:
    """Two configurations; once both have ended, one more if either came to anything."""

    def __init__(self) -> None:
        self.ended: dict[float, float | None] = {}
        self._given: set[float] = set()

    def take(self) -> Configuration | None:
        due = [rate for rate in self._due() if rate not in self._given]
        self._given.update(due[:1])
        return {"learning_rate": due[0]} if due else None

    def note_given(self, configuration: Configuration) -> None:
        self._given.add(float(str(configuration["learning_rate"])))

    def note_ended(self, configuration: Configuration, value: float | None) -> None:
        self.ended[float(str(configuration["learning_rate"]))] = value

    @property
    def n_left(self) -> int:
        return len({*(RATES if len(self.ended) < 2 else self._due())} - self._given)

    def _due(self) -> tuple[float, ...]:
        return RATES if len(self.ended) >= 2 and any(self.ended.values()) else RATES[:2]


def end(desk: Desk, number: int, value: float | None) -> None:
    if value is not None:
        desk.report(number, 900, value, final=True)
    desk.finish(number, Ending.DONE if value is not None else Ending.FAILED)


def test_nothing_is_tried_but_what_the_agenda_says_and_it_may_wait(make_desk: MakeDesk) -> None:
    agenda = TwoThenTheBetter()
    desk = make_desk(agenda=agenda, n_trials=9)
    assert (desk.broker.n_left, desk.broker.can_grow) == (3, False)
    first, second = desk.next(), desk.next()
    assert desk.broker.suggest() is NoTrial.WAIT
    end(desk, first.number, 0.5)
    assert desk.broker.suggest() is NoTrial.WAIT
    end(desk, second.number, None)
    assert agenda.ended == {0.001: 0.5, 0.002: None}
    third = desk.next()
    end(desk, third.number, 0.75)
    assert desk.broker.suggest() is NoTrial.EXHAUSTED
    assert desk.broker.n_left == 0
    assert [trial.configuration["learning_rate"] for trial in (first, second, third)] == list(RATES)
    assert {event.source for event in desk.heard(TrialSuggested)} == {Source.START_WITH}


def test_an_agenda_that_has_nothing_more_ends_the_sweep_before_its_budget(make_desk: MakeDesk) -> None:
    desk = make_desk(agenda=TwoThenTheBetter(), n_trials=9)
    for _ in range(2):
        end(desk, desk.next().number, None)
    assert desk.broker.suggest() is NoTrial.EXHAUSTED
    assert desk.broker.n_left == 0


def test_the_budget_holds_for_an_agenda_too(make_desk: MakeDesk) -> None:
    desk = make_desk(agenda=TwoThenTheBetter(), n_trials=1)
    assert desk.broker.n_left == 1
    end(desk, desk.next().number, 0.5)
    assert desk.broker.suggest() is NoTrial.EXHAUSTED


def test_a_diverged_trial_has_no_value(make_desk: MakeDesk) -> None:
    agenda = TwoThenTheBetter()
    desk = make_desk(agenda=agenda)
    desk.report(desk.next().number, 100, float("nan"))
    assert agenda.ended == {0.001: None}


@pytest.mark.parametrize("sampler", ["grid", "tpe"])
def test_a_study_with_any_sampler_is_drawn_from_without_it(make_desk: MakeDesk, sampler: str) -> None:
    space = RATE if sampler == "tpe" else {"learning_rate": {"type": "categorical", "choices": list(RATES)}}
    desk = make_desk(space, sampler=sampler, agenda=TwoThenTheBetter())
    assert desk.next().configuration == {"learning_rate": 0.001}
