"""The sampler at work in its thread. It is held up by a gate, so that nothing depends on how fast this machine is."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from optuna.distributions import BaseDistribution
from optuna.samplers import RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial
from tests.unit.scheduling.asked_sweep import Sweep

from finesweep.events import AttemptStarted, Decision, Reported, TrialFinished, TrialSuggested
from finesweep.scheduling.ahead import AskedAhead
from finesweep.scheduling.assignments import Assignment
from finesweep.scheduling.stacking import ALONE, Stacking
from finesweep.search.broker import NoTrial


class GatedSampler(RandomSampler):
    """Draws only while its gate is open."""

    def __init__(self) -> None:
        super().__init__(seed=0)
        self.gate = threading.Event()
        self.gate.set()

    def sample_independent(self, study: Study, trial: FrozenTrial, name: str, how: BaseDistribution) -> Any:
        assert self.gate.wait(timeout=30)
        return super().sample_independent(study, trial, name, how)


class UnsteadySampler(TPESampler):
    """Needs any time from none to some milliseconds; what it draws does not depend on that."""

    def sample_relative(self, *args: Any) -> dict[str, Any]:
        time.sleep(random.random() / 100)
        return super().sample_relative(*args)


@contextmanager
def asked_ahead(sweep: Sweep, stacking: Stacking = ALONE, *, n_slots: int) -> Iterator[AskedAhead]:
    ahead = AskedAhead(sweep.broker, stacking, n_slots=n_slots)
    try:
        yield ahead
    finally:
        ahead.close()


def given(ahead: AskedAhead) -> Assignment:
    """Wait for an assignment."""
    while (found := ahead.next()) is NoTrial.DRAWING:
        pass
    assert isinstance(found, tuple)
    return found


def numbers(sweep: Sweep, kind: type) -> list[int]:
    return [event.number for event in sweep.heard(kind)]


def test_trials_are_reported_and_end_while_the_sampler_is_at_work() -> None:
    sampler = GatedSampler()
    sweep = Sweep(n_trials=4, sampler=sampler)
    with asked_ahead(sweep, n_slots=2) as ahead:
        given(ahead)
        sampler.gate.clear()
        found = [ahead.next(), ahead.next()]  # one may have been drawn before the gate was closed
        assert found[-1] is NoTrial.DRAWING
        assert sweep.report(0, 100) is Decision.CONTINUE
        sweep.train(0)
        assert numbers(sweep, TrialFinished) == [0]
        sampler.gate.set()
        assert [trial.number for trial in given(ahead)] == [2 if isinstance(found[0], tuple) else 1]


def test_with_one_slot_an_ending_waits_for_the_sampler_and_a_report_does_not() -> None:
    sampler = GatedSampler()
    sweep = Sweep(n_trials=3, sampler=sampler)
    with asked_ahead(sweep, n_slots=1) as ahead:
        given(ahead)
        ahead.settle()
        sweep.train(0)
        sampler.gate.clear()
        given(ahead)  # and trial 2 is being drawn
        assert sweep.report(1, 100) is Decision.CONTINUE
        assert numbers(sweep, TrialSuggested) == [0, 1]
        opener = threading.Timer(0.2, sampler.gate.set)
        opener.start()
        sweep.train(1)
        opener.join()
    order = [(type(event).__name__, event.number) for batch in sweep.batches for event in batch]
    assert order.index(("TrialSuggested", 2)) < order.index(("AttemptEnded", 1))


def test_what_was_asked_for_ahead_is_given_back_when_the_sweep_is_halted() -> None:
    sampler = GatedSampler()
    sweep = Sweep(n_trials=9, sampler=sampler)
    with asked_ahead(sweep, Stacking(3, lambda configuration: "alike"), n_slots=2) as ahead:
        first = given(ahead)
        assert len(first) == 3
        sampler.gate.clear()
        ahead.prepare()  # at the latest now a drawing is under way
        sweep.broker.halt("enough", pause=True)
        opener = threading.Timer(0.2, sampler.gate.set)
        opener.start()
        assert ahead.next() is NoTrial.WAIT
        opener.join()
        for trial in first:
            sweep.broker.give_back(trial.number)
        assert ahead.next() is NoTrial.EXHAUSTED
        drawn = [trial.number for trial in sweep.broker.study.get_trials(deepcopy=False)]
        assert numbers(sweep, TrialSuggested) == drawn, "Optuna's study and our events agree"
        assert sweep.broker.n_unfinished == len(drawn) > 3


@pytest.mark.parametrize("n_lanes", [1, 3])
def test_with_one_slot_a_sweep_repeats_exactly_however_long_the_sampler_takes(n_lanes: int) -> None:
    assert trace(n_lanes) == trace(n_lanes)


def trace(n_lanes: int) -> list[Any]:
    """Drive a sweep whose trials and whose sampler take any time; tell what was tried."""
    sampler = UnsteadySampler(seed=3, n_startup_trials=3)
    sweep = Sweep(n_trials=18, sampler=sampler)
    with asked_ahead(sweep, Stacking(n_lanes, lambda configuration: "alike"), n_slots=1) as ahead:
        while (found := ahead.next()) is not NoTrial.EXHAUSTED:
            for trial in found if isinstance(found, tuple) else ():
                for _ in range(random.randrange(4)):
                    ahead.prepare()
                sweep.train(trial.number, value=-abs(float(str(trial.configuration["x"])) - 0.3))
    assert len(sweep.heard(TrialFinished)) == 18
    return [(event.number, event.configuration) for event in sweep.heard(TrialSuggested)]


def test_what_happens_together_is_told_at_once_or_not_at_all() -> None:
    sweep = Sweep(n_trials=2)
    with asked_ahead(sweep, n_slots=2) as ahead:
        for _ in range(2):
            given(ahead)
    sweep.batches.clear()
    with sweep.broker.together():
        assert sweep.report(0, 100) is Decision.CONTINUE
        sweep.train(1)
        assert sweep.batches == []
    [batch] = sweep.batches
    kinds = [type(event).__name__ for event in batch]
    assert kinds[:4] == ["AttemptStarted", "Reported", "AttemptStarted", "Reported"]
    assert kinds[-2:] == ["AttemptEnded", "TrialFinished"]
    sweep.batches.clear()
    with pytest.raises(ZeroDivisionError), sweep.broker.together():
        sweep.report(0, 200)
        _ = 1 / 0
    assert sweep.heard(Reported) == sweep.heard(AttemptStarted) == []
