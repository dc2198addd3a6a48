"""Several objectives at once: one step for all values, pruning by the first, and what samplers learn."""

from __future__ import annotations

import math
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState as OptunaState
from tests.unit.search.conftest import RATE, Desk, MakeDesk
from tests.unit.search.test_search_samplers import NUMBERS, history_of, score

from finesweep.events import Decision, Ending, Report, Reported, TrialFinished, TrialSpec, TrialState
from finesweep.search.judge import DIVERGED

SIZE = {"size": "minimize"}
ONE = {"batch_size": {"type": "categorical", "choices": [8]}}
PRUNERS: dict[str, dict[str, Any]] = {
    "asha": {"type": "asha", "first_rung": 100},
    "hyperband": {"type": "hyperband", "first_rung": 100},
    "median": {"type": "median", "startup_trials": 1},
    "patient": {"type": "patient", "patience": 1, "then": {"type": "median", "startup_trials": 1}},
}


@pytest.mark.parametrize(
    ("value", "step", "values"),
    [("best", 200, (0.9, 2.0)), ("last", 400, (0.2, 4.0))],
)
def test_all_values_are_those_of_the_step_that_the_first_objective_chooses(
    make_desk: MakeDesk, value: str, step: int, values: tuple[float, ...]
) -> None:
    desk = make_desk(others=SIZE, value=value)
    trial = desk.next()
    for at, accuracy in {100: 0.2, 200: 0.9, 300: 0.9, 400: 0.2}.items():
        desk.report(trial.number, at, accuracy, size=at / 100, final=at == 400)
    desk.finish(trial.number)
    outcome = desk.outcome(trial.number)
    assert (outcome.value, outcome.value_step, outcome.values) == (values[0], step, values)
    assert desk.broker.study.trials[0].values == list(values)


def test_a_report_must_have_every_objective(make_desk: MakeDesk) -> None:
    desk = make_desk(others=SIZE)
    assert desk.report(desk.next().number, 100, 0.5) is Decision.STOP
    assert (desk.state(0), desk.outcome(0).reason) == (
        TrialState.FAILED,
        'objective.metric "size" is not among the reported metrics (accuracy)',
    )


@pytest.mark.parametrize("metrics", [{"accuracy": 0.5, "size": math.inf}, {"train_loss": math.nan}])
def test_any_objective_or_loss_that_is_not_finite_diverges(make_desk: MakeDesk, metrics: dict[str, float]) -> None:
    """Who has diverged need not report the rest."""
    desk = make_desk(others=SIZE)
    trial = desk.next()
    desk.report(trial.number, 100, 0.5, size=1.0)
    assert desk.broker.report(trial.number, Report(200, metrics, 200)) is Decision.STOP
    assert (desk.state(0), desk.outcome(0).reason) == (TrialState.PRUNED, f"{DIVERGED} at step 200")
    assert desk.outcome(0).values == ()
    seen = desk.broker.study.trials[0]
    assert (seen.state, seen.values, seen.intermediate_values) == (OptunaState.PRUNED, None, {})


def report_as_scripted(desk: Desk, number: int, step: int) -> Decision:
    accuracy = (7 * number % 10) / 10 + (step / 10_000 if number % 3 else -step / 1000)
    return desk.report(number, step, accuracy, final=step == 900, size=1.0 * number)


def decisions(desk: Desk) -> list[tuple[int, int, Decision]]:
    return [(event.number, event.report.step, event.decision) for event in desk.heard(Reported)]


def drive_side_by_side(desk: Desk, *, n_at_once: int = 3) -> None:
    """Run trials three at a time, step by step."""
    running: dict[int, int] = {}
    while True:
        while len(running) < n_at_once and isinstance(trial := desk.broker.suggest(), TrialSpec):
            running[trial.number] = 0
        if not running:
            return
        for number in list(running):
            running[number] += 100
            if report_as_scripted(desk, number, running[number]) is Decision.STOP:
                desk.finish(number, Ending.STOPPED)
                del running[number]
            elif running[number] == 900:
                desk.finish(number)
                del running[number]


@pytest.mark.parametrize("pruner", PRUNERS)
def test_trials_are_pruned_as_if_the_first_objective_were_the_only_one(make_desk: MakeDesk, pruner: str) -> None:
    one, two = (make_desk(pruner=PRUNERS[pruner], n_trials=12, others=others) for others in (None, SIZE))
    for desk in (one, two):
        drive_side_by_side(desk)
    assert decisions(one) == decisions(two)
    assert any(decision is Decision.STOP for _, _, decision in decisions(two))
    for mine, theirs in zip(one.heard(Reported), two.heard(Reported), strict=True):
        assert mine.attributes == theirs.attributes


@pytest.mark.parametrize("pruner", PRUNERS)
def test_pruning_goes_on_after_a_restart_as_it_would_have_without(make_desk: MakeDesk, pruner: str) -> None:
    whole = make_desk(RATE, pruner=PRUNERS[pruner], n_trials=14, others=SIZE)
    first = make_desk(RATE, pruner=PRUNERS[pruner], n_trials=7, others=SIZE)
    for desk in (whole, first):
        drive_side_by_side(desk, n_at_once=1)
    again = make_desk(RATE, pruner=PRUNERS[pruner], n_trials=14, others=SIZE, history=history_of(first))
    drive_side_by_side(again, n_at_once=1)
    assert decisions(first) + decisions(again) == decisions(whole)
    shown = [(t.state, t.values, t.intermediate_values) for t in whole.broker.study.trials]
    assert [(t.state, t.values, t.intermediate_values) for t in again.broker.study.trials] == shown


def test_a_known_configuration_takes_over_all_values(make_desk: MakeDesk) -> None:
    desk = make_desk(ONE, others=SIZE, n_trials=2)
    trial = desk.next()
    assert not isinstance(desk.broker.suggest(), TrialSpec)  # its twins wait
    desk.report(trial.number, 900, 0.5, size=3.0, final=True)
    desk.finish(trial.number)
    outcomes = desk.heard(TrialFinished)
    assert len(outcomes) > 2
    assert {outcome.values for outcome in outcomes} == {(0.5, 3.0)}
    assert {tuple(seen.values) for seen in desk.broker.study.trials} == {(0.5, 3.0)}
    again = make_desk(ONE, others=SIZE, n_trials=2, history=history_of(desk))
    assert {tuple(seen.values) for seen in again.broker.study.trials} == {(0.5, 3.0)}


def test_optuna_knows_the_objectives_by_name(make_desk: MakeDesk) -> None:
    assert make_desk(others=SIZE).broker.study.metric_names == ["accuracy", "size"]


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "gp", "qmc", "random", "grid"])
def test_samplers_go_on_over_pruned_and_diverged_trials(make_desk: MakeDesk, sampler: str) -> None:
    """Also after a restart, and from whole numbers: TPE stumbles over those unless they are told as floats."""
    steps: dict[str, Any] = {"learning_rate": {"type": "float", "low": 0.1, "high": 0.6, "step": 0.1}}
    space = steps | ONE if sampler == "grid" else NUMBERS
    settings = {"type": sampler, "startup_trials": 3}
    desk = make_desk(space, sampler=settings, pruner=PRUNERS["asha"], n_trials=5, others=SIZE)
    drive_to_the_end(desk)
    again = make_desk(
        space, sampler=settings, pruner=PRUNERS["asha"], n_trials=10, others=SIZE, history=history_of(desk)
    )
    drive_to_the_end(again)
    states = {trial.state for trial in again.broker.study.trials}
    assert {OptunaState.COMPLETE, OptunaState.PRUNED} <= states
    assert again.broker.study.best_trials


def drive_to_the_end(desk: Desk) -> None:
    while isinstance(trial := desk.broker.suggest(), TrialSpec):
        number = trial.number
        ending = Ending.DONE
        for step in (100, 300, 900):
            accuracy = math.nan if number % 4 == 1 and step == 300 else number % 5
            if desk.report(number, step, accuracy, size=number, final=step == 900) is Decision.STOP:
                ending = Ending.STOPPED
                break
        desk.finish(number, ending)


@pytest.mark.parametrize(("sampler", "most"), [("tpe", 0.4), ("nsga2", 0.45)])
def test_samplers_learn_from_several_objectives_that_a_region_diverges(
    make_desk: MakeDesk, sampler: str, most: float
) -> None:
    """Half of the space diverges: tpe ranks what was pruned last, nsga2 breeds from what was not."""
    n_diverged = 0
    for seed in range(3):
        desk = make_desk(NUMBERS, sampler={"type": sampler, "seed": seed}, n_trials=60, others=SIZE)
        while isinstance(trial := desk.broker.suggest(), TrialSpec):
            decay = trial.configuration["decay"]
            assert isinstance(decay, float)
            is_bad = decay > 0.5
            n_diverged += is_bad and trial.number >= 30
            accuracy = math.nan if is_bad else score(trial.configuration, 900)
            rate = trial.configuration["learning_rate"]
            assert isinstance(rate, float)
            desk.report(trial.number, 900, accuracy, size=rate, final=True)
            desk.finish(trial.number, Ending.STOPPED if is_bad else Ending.DONE)
    assert n_diverged / 90 < most  # by chance it would be a half


def test_why_there_is_a_shadow() -> None:
    """Should optuna mend this, the shadow can go."""
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=optuna.samplers.TPESampler(seed=0))
    trial = study.ask()
    with pytest.raises(NotImplementedError):
        trial.report(0.5, 1)
    with pytest.raises(NotImplementedError):
        trial.should_prune()
