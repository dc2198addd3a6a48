"""Which parameters matter: on trials whose value is known to hang on one of them."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, distribution_to_json

from finesweep.events import Report, Source, TrialRecord, TrialState
from finesweep.search.importance import FEWEST_TRIALS, importances
from finesweep.spec.study import Objective

RATE = distribution_to_json(FloatDistribution(1e-5, 1e-1, log=True))
SIZE = distribution_to_json(CategoricalDistribution([8, 16, 32]))
ACCURACY = Objective(metric="accuracy", direction="maximize")
LOSS = Objective(metric="loss", direction="minimize")


def record(number: int, value: float, *, state: TrialState = TrialState.COMPLETE, **parameters: object) -> TrialRecord:
    names = {"learning_rate": RATE, "lora.learning_rate": RATE, "batch_size": SIZE}
    return TrialRecord(
        number=number,
        state=state,
        configuration=parameters,  # type: ignore[arg-type]
        parameters=parameters,  # type: ignore[arg-type]
        distributions={name: names[name] for name in parameters},
        source=Source.SAMPLER,
        attributes={},
        reports=(Report(100, {"accuracy": value, "loss": 1 - value}, 100),),
        attempts=1,
        n_retries=0,
        value=value if state is TrialState.COMPLETE else None,
        value_step=100 if state is TrialState.COMPLETE else None,
    )


def records(n: int, value: Callable[[float, int], float]) -> list[TrialRecord]:
    chance = random.Random(0)
    drawn = [(10 ** chance.uniform(-5, -1), chance.choice([8, 16, 32])) for _ in range(n)]
    return [
        record(number, value(rate, size), learning_rate=rate, batch_size=size)
        for number, (rate, size) in enumerate(drawn)
    ]


@pytest.mark.parametrize("objective", [ACCURACY, LOSS])
def test_what_decides_the_value_is_important_and_the_interval_says_how_sure_that_is(objective: Objective) -> None:
    first, second = importances(records(200, lambda rate, size: 1 - abs(rate - 1e-3)), objective)
    assert (first.parameter, second.parameter) == ("learning_rate", "batch_size")
    assert first.importance > 0.8
    assert first.importance + second.importance == pytest.approx(1)
    for one in (first, second):
        assert 0 <= one.low <= one.importance <= one.high <= 1
        assert one.n_trials == 200
    assert first.low > second.high


@pytest.mark.parametrize("n", [FEWEST_TRIALS, 100])
def test_where_nothing_matters_the_intervals_leave_open_what_does(n: int) -> None:
    chance = random.Random(3)
    first, second = importances(records(n, lambda rate, size: chance.random()), ACCURACY)
    assert first.low < second.high


def test_trials_that_were_pruned_failed_or_reused_do_not_count() -> None:
    known = records(30, lambda rate, size: float(size))
    others = [
        record(30, 99.0, state=TrialState.PRUNED, learning_rate=1e-5, batch_size=8),
        record(31, 99.0, state=TrialState.FAILED, learning_rate=1e-5, batch_size=8),
    ]
    assert importances([*known, *others], ACCURACY) == importances(known, ACCURACY)
    assert importances(known, ACCURACY)[0].n_trials == 30


def test_a_branch_is_a_parameter_of_its_own() -> None:
    chance = random.Random(1)
    mixed = [
        record(number, rate, **{"lora.learning_rate" if number % 2 else "learning_rate": rate})
        for number, rate in enumerate(10 ** chance.uniform(-5, -1) for _ in range(40))
    ]
    assert {one.parameter: one.n_trials for one in importances(mixed, ACCURACY)} == {
        "lora.learning_rate": 20,
        "learning_rate": 20,
    }


def test_too_few_trials_say_nothing() -> None:
    assert importances(records(FEWEST_TRIALS - 1, lambda rate, size: rate), ACCURACY) == ()
    assert importances([], ACCURACY) == ()


def test_the_same_trials_and_seed_give_the_same_interval() -> None:
    known = records(20, lambda rate, size: rate)
    assert importances(known, ACCURACY) == importances(known, ACCURACY)
