from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
from optuna.trial import TrialState as OptunaState
from tests.unit.search.conftest import RATE, Desk, MakeDesk

from finesweep.events import (
    AttemptDescribed,
    AttemptEnded,
    AttemptResult,
    AttemptStarted,
    Decision,
    Ending,
    Report,
    Reported,
    Source,
    SweepHistory,
    TrialFinished,
    TrialInterrupted,
    TrialRecord,
    TrialSpec,
    TrialState,
    TrialSuggested,
)
from finesweep.search.broker import SEEDS, NoTrial
from finesweep.search.judge import BY_HAND, DIVERGED
from finesweep.search.known import REPEATS_BEFORE_END

ASHA = {"type": "asha", "first_rung": 100, "reduction_factor": 3}
COIN = {"batch_size": {"type": "categorical", "choices": [8, 16]}}
ONE = {"batch_size": {"type": "categorical", "choices": [8]}}


# --- suggesting ---------------------------------------------------------------------------------------------------


def test_the_budget_counts_trials_and_then_nothing_is_left(make_desk: MakeDesk) -> None:
    desk = make_desk(n_trials=2)
    first, second = desk.next(), desk.next()
    assert desk.broker.suggest() is NoTrial.WAIT  # either may be lost yet
    for trial in (first, second):
        desk.report(trial.number, 900, 0.5, final=True)
        desk.finish(trial.number)
    assert desk.broker.suggest() is NoTrial.EXHAUSTED
    assert [event.number for event in desk.heard(TrialSuggested)] == [0, 1]


def test_starting_configurations_come_first_then_the_sampler(make_desk: MakeDesk) -> None:
    starting = [(Source.START_WITH, {"learning_rate": 0.001}), (Source.DEFAULT, {"learning_rate": 5e-5})]
    desk = make_desk(starting=starting)
    configurations = [desk.next().configuration for _ in range(3)]
    assert configurations[:2] == [{"learning_rate": 0.001}, {"learning_rate": 5e-5}]
    assert [event.source for event in desk.heard(TrialSuggested)] == list(Source)


def test_what_a_partial_start_leaves_out_is_sampled(make_desk: MakeDesk) -> None:
    desk = make_desk(RATE | COIN, starting=[(Source.START_WITH, {"batch_size": 16})])
    configuration = desk.next().configuration
    assert configuration["batch_size"] == 16
    assert 1e-5 <= configuration["learning_rate"] <= 1e-2


def test_a_larger_total_is_taken_up(make_desk: MakeDesk) -> None:
    desk = make_desk(n_trials=1)
    desk.train()
    assert desk.broker.suggest() is NoTrial.EXHAUSTED
    desk.broker.extend(2)
    assert desk.train().number == 1
    assert desk.broker.suggest() is NoTrial.EXHAUSTED


def test_an_attempt_given_back_is_the_next_one_and_not_charged(make_desk: MakeDesk) -> None:
    desk = make_desk(n_trials=1)
    trial = desk.broker.suggest()
    assert isinstance(trial, TrialSpec)
    desk.broker.give_back(trial.number)
    assert desk.heard(AttemptStarted) == []
    assert desk.broker.suggest() == trial


@pytest.mark.parametrize("refused", [TrialSuggested, AttemptStarted, Reported, AttemptEnded])
def test_events_are_handed_over_before_they_are_acted_on(make_desk: MakeDesk, refused: type) -> None:
    desk = make_desk()
    desk.refused = refused
    with pytest.raises(OSError, match="disk full"):
        desk.train()
    told = [type(event) for event in desk.events]
    assert told == [TrialSuggested, AttemptStarted, Reported, AttemptEnded][: len(told)]
    assert refused not in told


# --- judging ------------------------------------------------------------------------------------------------------


def test_a_rung_stops_the_worse_trial(make_desk: MakeDesk) -> None:
    desk = make_desk(pruner=ASHA)
    good, bad = desk.next(), desk.next()
    assert desk.report(good.number, 100, 0.9) is Decision.CONTINUE
    assert desk.report(bad.number, 100, 0.1) is Decision.STOP
    outcome = desk.outcome(bad.number)
    assert (outcome.state, outcome.reason, outcome.value) == (TrialState.PRUNED, "rung", None)
    [reported] = [event for event in desk.heard(Reported) if event.number == bad.number]
    assert reported.decision is Decision.STOP
    assert reported.attributes == {"completed_rung_0": 0.1}
    desk.finish(bad.number, Ending.STOPPED)
    assert len([event for event in desk.heard(TrialFinished) if event.number == bad.number]) == 1


def test_a_final_report_never_stops(make_desk: MakeDesk) -> None:
    desk = make_desk(pruner=ASHA)
    desk.train(0.9, step=100)
    desk.report(desk.next().number, 100, 0.9)
    last = desk.next()
    assert desk.report(last.number, 100, 0.1, final=True) is Decision.CONTINUE
    desk.finish(last.number)
    assert desk.state(last.number) is TrialState.COMPLETE


def test_a_step_reported_again_changes_nothing(make_desk: MakeDesk) -> None:
    desk = make_desk(pruner=ASHA)
    trial = desk.next()
    assert desk.report(trial.number, 100, 0.9) is Decision.CONTINUE
    before = list(desk.events)
    assert desk.report(trial.number, 100, 0.0) is Decision.CONTINUE
    assert desk.events == before
    desk.finish(trial.number)
    assert desk.outcome(trial.number).value == 0.9


def test_a_stopped_trial_is_told_to_stop_whatever_it_asks(make_desk: MakeDesk) -> None:
    desk = make_desk()
    trial = desk.next()
    desk.report(trial.number, 100, math.nan)
    before = list(desk.events)
    assert desk.report(trial.number, 100, 0.5) is Decision.STOP
    assert desk.report(trial.number, 200, 0.5) is Decision.STOP
    assert desk.broker.poll(trial.number) is Decision.STOP
    assert desk.events == before


def test_what_a_stopped_trials_worker_tells_is_kept_until_it_has_cleaned_up(make_desk: MakeDesk) -> None:
    desk = make_desk()
    trial = desk.next()
    desk.report(trial.number, 100, math.nan)
    before = list(desk.events)
    desk.broker.describe(trial.number, {"trained_tokens": 12})
    assert desk.events == [*before, AttemptDescribed(trial.number, 1, {"trained_tokens": 12})]
    desk.finish(trial.number, Ending.STOPPED)
    before = list(desk.events)
    desk.broker.describe(trial.number, {"late": True})
    assert desk.events == before


def test_a_complete_trial_tells_why_it_ended_early(make_desk: MakeDesk) -> None:
    desk = make_desk()
    trial = desk.next()
    desk.report(trial.number, 100, 0.5, final=True)
    desk.finish(trial.number, Ending.DONE, "early stopping")
    assert (desk.state(trial.number), desk.outcome(trial.number).reason) == (TrialState.COMPLETE, "early stopping")


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
@pytest.mark.parametrize(
    "metrics",
    [{"accuracy": math.nan}, {"accuracy": math.inf}, {"accuracy": -math.inf}, {"accuracy": 0.5, "eval_loss": math.nan}],
)
def test_a_report_that_is_not_finite_diverges(make_desk: MakeDesk, metrics: dict[str, float], direction: str) -> None:
    desk = make_desk(direction=direction)
    trial = desk.next()
    desk.report(trial.number, 100, 0.5)
    assert desk.broker.report(trial.number, Report(200, metrics, 200, final=True)) is Decision.STOP
    outcome = desk.outcome(trial.number)
    assert (outcome.state, outcome.reason) == (TrialState.PRUNED, f"{DIVERGED} at step 200")
    assert (outcome.value, outcome.value_step) == (None, None)
    assert desk.heard(Reported)[-1].report.metrics == metrics  # as it was measured
    worst = -math.inf if direction == "maximize" else math.inf
    assert desk.broker.study.trials[0].intermediate_values == {100: 0.5, 200: worst}


def test_another_metric_may_be_undefined(make_desk: MakeDesk) -> None:
    desk = make_desk()
    trial = desk.next()
    assert desk.report(trial.number, 900, 0.5, mcc=math.nan, final=True) is Decision.CONTINUE
    desk.finish(trial.number)
    assert desk.state(trial.number) is TrialState.COMPLETE


def test_a_report_without_the_objective_fails_and_says_what_there_was(make_desk: MakeDesk) -> None:
    desk = make_desk()
    trial = desk.next()
    report = Report(100, {"loss": 0.1, "f1": 0.2}, 100)
    assert desk.broker.report(trial.number, report) is Decision.STOP
    outcome = desk.outcome(trial.number)
    assert outcome.state is TrialState.FAILED
    assert outcome.reason == 'objective.metric "accuracy" is not among the reported metrics (f1, loss)'
    desk.finish(trial.number, Ending.STOPPED)
    assert desk.next().number == 1


@pytest.mark.parametrize(
    ("direction", "value", "expected"),
    [
        ("maximize", "best", (0.9, 200)),
        ("minimize", "best", (0.2, 100)),
        ("maximize", "last", (0.2, 400)),
    ],
)
def test_a_trial_is_worth_its_best_or_its_last_report(
    make_desk: MakeDesk, direction: str, value: str, expected: tuple[float, int]
) -> None:
    desk = make_desk(direction=direction, value=value)
    trial = desk.next()
    for step, accuracy in {100: 0.2, 200: 0.9, 300: 0.9, 400: 0.2}.items():
        desk.report(trial.number, step, accuracy, final=step == 400)
    desk.finish(trial.number)
    outcome = desk.outcome(trial.number)
    assert (outcome.value, outcome.value_step) == expected  # of equals the earliest
    assert desk.broker.study.trials[0].value == expected[0]


def test_facts_of_a_worker_begin_its_attempt(make_desk: MakeDesk) -> None:
    desk = make_desk()
    trial = desk.broker.suggest()
    assert isinstance(trial, TrialSpec)
    desk.broker.describe(trial.number, {"pid": 1})
    assert desk.events[1:] == [AttemptStarted(0, 1), AttemptDescribed(0, 1, {"pid": 1})]


# --- endings ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ending", "reason"),
    [
        (Ending.DONE, 'the trainer returned without reporting "accuracy"'),
        (Ending.STOPPED, "the trainer ended as stopped without being told to stop"),
        (Ending.PAUSED, "the trainer ended as paused without being told to pause"),
    ],
)
def test_a_trainer_that_breaks_the_contract_fails_its_trial(make_desk: MakeDesk, ending: Ending, reason: str) -> None:
    desk = make_desk()
    desk.finish(desk.next().number, ending)
    assert (desk.state(0), desk.outcome(0).reason) == (TrialState.FAILED, reason)


def test_a_failed_attempt_keeps_its_traceback(make_desk: MakeDesk) -> None:
    desk = make_desk()
    result = AttemptResult(Ending.FAILED, "ValueError: no", "Traceback ...")
    desk.broker.finish(desk.next().number, result)
    assert (desk.state(0), desk.outcome(0).reason) == (TrialState.FAILED, "ValueError: no")
    assert desk.heard(AttemptEnded) == [AttemptEnded(0, 1, result)]


@pytest.mark.parametrize("ending", [Ending.STALLED, Ending.FAILED])
def test_only_what_the_sweep_retries_is_begun_again(make_desk: MakeDesk, ending: Ending) -> None:
    desk = make_desk(retries=1, n_trials=2)
    desk.finish(desk.next().number, ending, "no luck")
    assert (desk.state(0), desk.outcome(0).reason) == (TrialState.FAILED, "no luck")
    desk = make_desk(retries=1, retry_on=[ending], n_trials=1)
    desk.finish(desk.next().number, ending, "no luck")
    again = desk.next()
    assert (again.number, again.attempt, again.n_retries) == (0, 2, 1)
    desk.finish(0, ending, "no luck")
    assert desk.outcome(0).reason == "no luck (2 times; budget.retries is 1)"


def test_retries_are_counted_together_whatever_they_are_for(make_desk: MakeDesk) -> None:
    desk = make_desk(retries=2, retry_on=[Ending.LOST, Ending.FAILED], n_trials=1)
    for ending in (Ending.LOST, Ending.FAILED, Ending.LOST):
        desk.finish(desk.next().number, ending, "no luck")
    assert desk.outcome(0).reason == "no luck (3 times; budget.retries is 2)"


def test_a_blocked_trial_pauses_the_sweep_and_is_the_next_to_go_on(make_desk: MakeDesk) -> None:
    desk = make_desk(n_trials=4)
    first, second = desk.next(), desk.next()
    desk.finish(first.number, Ending.BLOCKED, "no space left on the disk")
    assert desk.broker.halted == "no space left on the disk"
    assert desk.report(second.number, 100, 0.5) is Decision.PAUSE
    desk.finish(second.number, Ending.PAUSED)
    assert desk.heard(TrialFinished) == []
    assert [event.number for event in desk.heard(TrialInterrupted)] == [0, 1]
    assert desk.broker.n_unfinished == 2


def fail_in_turn(desk: Desk, reasons: Sequence[str]) -> None:
    for reason in reasons:
        desk.finish(desk.next().number, Ending.FAILED, reason)


def test_trials_that_keep_failing_for_one_reason_end_the_sweep(make_desk: MakeDesk) -> None:
    desk = make_desk(stop_after_failures=3)
    running = desk.next()
    fail_in_turn(desk, [f"FileNotFoundError: '/data/{n}.jsonl', tried {n} times" for n in (1, 2)])
    assert desk.broker.halted is None
    fail_in_turn(desk, ["FileNotFoundError: '/other.jsonl', tried 7 times"])
    assert desk.broker.halted == (
        "3 trials in a row failed for the same reason: FileNotFoundError: '/other.jsonl', tried 7 times"
    )
    assert desk.broker.suggest() is NoTrial.WAIT
    assert desk.report(running.number, 900, 0.5, final=True) is Decision.CONTINUE  # what runs may end
    desk.finish(running.number)
    assert desk.broker.suggest() is NoTrial.EXHAUSTED


def test_failures_of_different_reasons_or_with_an_outcome_between_end_nothing(make_desk: MakeDesk) -> None:
    desk = make_desk(stop_after_failures=3, n_trials=20)
    fail_in_turn(desk, ["one", "two"] * 3)
    fail_in_turn(desk, ["two"])
    desk.train()
    fail_in_turn(desk, ["two", "two"])
    assert desk.broker.halted is None
    assert make_desk(stop_after_failures=0).broker.halted is None


def test_a_lost_worker_is_replaced_up_to_the_retries(make_desk: MakeDesk) -> None:
    desk = make_desk(retries=2, n_trials=1)
    for attempt in (1, 2, 3):
        trial = desk.next()
        assert (trial.number, trial.attempt) == (0, attempt)
        desk.finish(trial.number, Ending.LOST, "worker lost: killed")
    outcome = desk.outcome(0)
    assert outcome.state is TrialState.FAILED
    assert outcome.reason == "worker lost: killed (3 times; budget.retries is 2)"
    assert len(desk.heard(TrialInterrupted)) == 2
    assert desk.broker.suggest() is NoTrial.EXHAUSTED


def test_a_trial_stopped_by_hand_is_pruned_once(make_desk: MakeDesk) -> None:
    desk = make_desk(n_trials=1)
    trial = desk.next()
    desk.report(trial.number, 100, 0.5)
    assert desk.broker.stop(trial.number)
    assert not desk.broker.stop(trial.number)
    assert (desk.state(0), desk.outcome(0).reason) == (TrialState.PRUNED, BY_HAND)
    assert desk.broker.poll(trial.number) is Decision.STOP
    desk.finish(trial.number, Ending.STOPPED)
    assert isinstance(desk.events[-1], AttemptEnded)
    assert desk.broker.suggest() is NoTrial.EXHAUSTED


def test_a_trial_stopped_by_hand_before_its_worker_began_has_no_attempt(make_desk: MakeDesk) -> None:
    desk = make_desk(n_trials=2)
    given_back, handed_out = desk.broker.suggest(), desk.broker.suggest()
    assert isinstance(given_back, TrialSpec)
    assert isinstance(handed_out, TrialSpec)
    for trial in (given_back, handed_out):
        desk.broker.stop(trial.number)
    desk.broker.begin(handed_out.number)
    desk.finish(handed_out.number, Ending.STOPPED)
    desk.broker.give_back(given_back.number)
    assert [type(event) for event in desk.events[2:]] == [TrialFinished, TrialFinished]
    assert desk.broker.suggest() is NoTrial.EXHAUSTED


def test_a_trial_that_waits_for_another_attempt_can_be_stopped_by_hand(make_desk: MakeDesk) -> None:
    desk = make_desk(n_trials=1)
    desk.finish(desk.next().number, Ending.LOST)
    assert desk.broker.stop(0)
    assert desk.broker.suggest() is NoTrial.EXHAUSTED


# --- halting ------------------------------------------------------------------------------------------------------


def test_a_halt_without_pause_lets_trials_run_to_their_end(make_desk: MakeDesk) -> None:
    desk = make_desk()
    trial = desk.next()
    desk.broker.halt("hours", pause=False)
    assert desk.broker.halted == "hours"
    assert desk.broker.suggest() is NoTrial.WAIT
    assert desk.report(trial.number, 100, 0.5) is Decision.CONTINUE
    assert desk.broker.poll(trial.number) is Decision.CONTINUE
    desk.finish(trial.number)
    assert desk.state(trial.number) is TrialState.COMPLETE
    assert desk.broker.suggest() is NoTrial.EXHAUSTED


def test_a_halt_with_pause_interrupts_trials_but_for_their_final_report(make_desk: MakeDesk) -> None:
    desk = make_desk()
    paused, ending, polling = desk.next(), desk.next(), desk.next()
    desk.report(paused.number, 100, 0.5)
    desk.broker.halt("hours", pause=False)
    desk.broker.halt("Ctrl-C", pause=True)
    assert desk.broker.halted == "hours"  # the first reason
    assert desk.report(paused.number, 100, 0.5) is Decision.PAUSE
    assert desk.report(paused.number, 200, 0.5) is Decision.PAUSE
    assert desk.broker.poll(polling.number) is Decision.PAUSE
    assert desk.report(ending.number, 900, 0.5, final=True) is Decision.CONTINUE
    desk.finish(paused.number, Ending.PAUSED)
    desk.finish(polling.number, Ending.PAUSED)
    desk.finish(ending.number)
    assert [event.number for event in desk.heard(TrialInterrupted)] == [paused.number, polling.number]
    assert [event.number for event in desk.heard(TrialFinished)] == [ending.number]
    assert desk.broker.suggest() is NoTrial.EXHAUSTED


# --- configurations met before ------------------------------------------------------------------------------------


def test_a_known_configuration_takes_over_the_earlier_result_for_free(make_desk: MakeDesk) -> None:
    desk = make_desk(COIN, n_trials=2)
    assert desk.train(0.7).configuration != desk.train(0.6).configuration
    assert desk.broker.suggest() is NoTrial.EXHAUSTED
    desk.broker.extend(3)
    assert desk.broker.suggest() is NoTrial.EXHAUSTED
    reused = [event for event in desk.heard(TrialFinished) if event.reused_from is not None]
    assert len(reused) >= 5
    trials = desk.broker.study.trials
    for event in reused:
        origin = desk.outcome(event.reused_from)
        assert (event.state, event.value, event.value_step) == (origin.state, origin.value, origin.value_step)
        assert trials[event.number].intermediate_values == trials[event.reused_from].intermediate_values
        assert trials[event.number].params == trials[event.reused_from].params
    assert desk.broker.used_up == "the search space is used up: every configuration has been tried"
    assert desk.broker.halted is None


def test_a_pruned_result_is_taken_over_and_a_failed_one_is_not(make_desk: MakeDesk) -> None:
    desk = make_desk(ONE, n_trials=3)
    desk.finish(desk.next().number, Ending.FAILED)
    again = desk.next()
    assert again.configuration == {"batch_size": 8}
    desk.report(again.number, 100, math.nan)
    desk.finish(again.number, Ending.STOPPED)
    assert desk.broker.suggest() is NoTrial.EXHAUSTED
    assert {(event.state, event.reason, event.reused_from) for event in desk.heard(TrialFinished)[2:]} == {
        (TrialState.PRUNED, f"{DIVERGED} at step 100", again.number)
    }


def twins(make_desk: MakeDesk, **options: Any) -> tuple[Desk, TrialSpec, list[int]]:
    """Begin a trial whose configuration is proposed again while it runs."""
    desk = make_desk(ONE, **options)
    first = desk.next()
    assert desk.broker.suggest() is NoTrial.WAIT
    waiting = [event.number for event in desk.heard(TrialSuggested) if event.twin_of == first.number]
    assert len(waiting) >= 2
    assert desk.heard(TrialFinished) == []
    return desk, first, waiting


def test_the_twin_of_a_running_trial_waits_and_takes_over_its_result(make_desk: MakeDesk) -> None:
    desk, first, waiting = twins(make_desk, n_trials=3)
    desk.report(first.number, 900, 0.5, final=True)
    desk.finish(first.number)
    assert {(number, desk.outcome(number).reused_from) for number in waiting} == {(n, first.number) for n in waiting}
    assert desk.broker.suggest() is NoTrial.EXHAUSTED


def test_the_twin_of_a_failed_trial_runs_and_the_others_wait_for_it(make_desk: MakeDesk) -> None:
    desk, first, waiting = twins(make_desk, n_trials=2)
    desk.finish(first.number, Ending.FAILED)
    promoted, *others = waiting
    assert desk.next().number == promoted
    assert desk.broker.suggest() is NoTrial.WAIT
    desk.report(promoted, 900, 0.5, final=True)
    desk.finish(promoted)
    assert desk.outcome(promoted).reused_from is None
    assert {desk.outcome(number).reused_from for number in others} == {promoted}
    assert desk.broker.suggest() is NoTrial.EXHAUSTED


def test_twins_of_a_failed_trial_do_not_break_the_budget(make_desk: MakeDesk) -> None:
    desk = make_desk(COIN, n_trials=2, sampler={"type": "random", "seed": 1})
    first, second = desk.next(), desk.next()
    waiting = [event.number for event in desk.heard(TrialSuggested) if event.twin_of == first.number]
    assert waiting, "another seed: the first configuration must be drawn twice before the second"
    desk.report(second.number, 900, 0.5, final=True)
    desk.finish(second.number)
    desk.finish(first.number, Ending.FAILED, "no luck")
    assert {(desk.state(n), desk.outcome(n).reason, desk.outcome(n).reused_from) for n in waiting} == {
        (TrialState.FAILED, "no luck", first.number)
    }
    assert desk.broker.suggest() is NoTrial.EXHAUSTED


def test_a_stopped_twin_is_left_out_when_its_original_ends(make_desk: MakeDesk) -> None:
    desk, first, (stopped, *others) = twins(make_desk, n_trials=3)
    desk.broker.stop(stopped)
    desk.report(first.number, 900, 0.5, final=True)
    desk.finish(first.number)
    assert (desk.state(stopped), desk.outcome(stopped).reused_from) == (TrialState.PRUNED, None)
    assert {desk.state(number) for number in others} == {TrialState.COMPLETE}


def test_a_used_up_space_keeps_its_promises(make_desk: MakeDesk) -> None:
    """A lost trial gets its other attempt although there is nothing new to try."""
    desk, first, _ = twins(make_desk, n_trials=5)
    assert desk.broker.used_up is not None
    desk.finish(first.number, Ending.LOST)
    again = desk.next()
    assert (again.number, again.attempt) == (first.number, 2)


def test_what_can_only_be_repeated_ends_a_space_too_large_to_list(make_desk: MakeDesk) -> None:
    space = {"x": {"type": "float", "low": 0.5, "high": 0.5}}
    desk = make_desk(space, n_trials=3)
    desk.train()
    assert desk.broker.suggest() is NoTrial.EXHAUSTED
    assert desk.broker.used_up is not None
    assert desk.broker.used_up.startswith(f"the last {REPEATS_BEFORE_END} proposals were all of configurations")


def test_what_a_sampler_keeps_missing_is_found_by_listing(make_desk: MakeDesk) -> None:
    space = {"x": {"type": "int", "low": 1, "high": 40}}
    desk = make_desk(space, n_trials=100)
    while isinstance(desk.broker.suggest(), TrialSpec):
        desk.report(len(desk.heard(TrialSuggested)) - 1, 900, 0.5, final=True)
        desk.finish(len(desk.heard(TrialSuggested)) - 1)
    trained = [event.configuration["x"] for event in desk.heard(TrialSuggested) if event.twin_of is None]
    assert sorted(trained) == list(range(1, 41))


# --- restart ------------------------------------------------------------------------------------------------------


def record(number: int, state: TrialState, **others: Any) -> TrialRecord:
    """Remember a trial of the one configuration that there is."""
    is_begun = state is not TrialState.WAITING
    known: dict[str, Any] = {
        "configuration": {"batch_size": 8},
        "parameters": {"batch_size": 8},
        "distributions": {"batch_size": '{"name": "CategoricalDistribution", "attributes": {"choices": [8]}}'},
        "source": Source.SAMPLER,
        "attributes": {},
        "reports": (),
        "attempts": int(is_begun),
        "n_retries": 0,
        "started_at": 1000.0 if is_begun else None,
        "finished_at": 2000.0 if state.is_final else None,
    }
    return TrialRecord(number=number, state=state, **(known | others))


def test_interrupted_trials_go_on_first_under_their_own_numbers(make_desk: MakeDesk) -> None:
    reports = (Report(100, {"accuracy": 0.5}, 100), Report(200, {"accuracy": 0.8}, 200))
    history = SweepHistory((record(0, TrialState.INTERRUPTED, reports=reports, attempts=2, n_retries=1),))
    desk = make_desk(ONE, history=history, n_trials=1)
    trial = desk.next()
    assert (trial.number, trial.attempt) == (0, 3)
    assert desk.report(0, 100, 0.0) is Decision.CONTINUE  # known
    desk.report(0, 300, 0.7, final=True)
    desk.finish(0)
    assert (desk.outcome(0).value, desk.outcome(0).value_step) == (0.8, 200)
    assert [event.report.step for event in desk.heard(Reported)] == [300]
    assert desk.broker.study.trials[0].intermediate_values == {100: 0.5, 200: 0.8, 300: 0.7}


def test_lost_attempts_of_earlier_drives_count(make_desk: MakeDesk) -> None:
    history = SweepHistory((record(0, TrialState.INTERRUPTED, attempts=1, n_retries=1),))
    desk = make_desk(ONE, history=history, retries=1)
    desk.finish(desk.next().number, Ending.LOST, "gone")
    assert desk.state(0) is TrialState.FAILED


def test_a_waiting_twin_takes_over_what_its_original_came_to_before_the_restart(make_desk: MakeDesk) -> None:
    reports = (Report(900, {"accuracy": 0.5}, 900, final=True),)
    history = SweepHistory(
        (
            record(0, TrialState.COMPLETE, reports=reports, value=0.5, value_step=900),
            record(1, TrialState.WAITING, twin_of=0),
        )
    )
    desk = make_desk(ONE, history=history, n_trials=1)
    outcome = desk.outcome(1)
    assert (outcome.state, outcome.value, outcome.value_step, outcome.reused_from) == (
        TrialState.COMPLETE,
        0.5,
        900,
        0,
    )
    assert desk.broker.suggest() is NoTrial.EXHAUSTED


def test_a_waiting_twin_waits_on_for_a_trial_that_is_resumed(make_desk: MakeDesk) -> None:
    history = SweepHistory((record(0, TrialState.RUNNING), record(1, TrialState.WAITING, twin_of=0)))
    desk = make_desk(ONE, history=history, n_trials=1)
    assert desk.train(0.6).number == 0
    assert desk.outcome(1).reused_from == 0


def test_a_waiting_twin_of_a_failed_trial_is_trained_within_the_budget(make_desk: MakeDesk) -> None:
    history = SweepHistory(
        (
            record(0, TrialState.FAILED, reason="no luck"),
            record(1, TrialState.WAITING, twin_of=0),
            record(2, TrialState.WAITING, twin_of=0),
        )
    )
    desk = make_desk(ONE, history=history, n_trials=2)
    assert desk.train(0.6).number == 1
    assert desk.outcome(2).reused_from == 1
    too_late = make_desk(ONE, history=history, n_trials=1)
    assert [(too_late.state(n), too_late.outcome(n).reason) for n in (1, 2)] == [(TrialState.FAILED, "no luck")] * 2
    assert too_late.broker.suggest() is NoTrial.EXHAUSTED


def test_a_twin_that_was_begun_is_charged_like_any_other(make_desk: MakeDesk) -> None:
    history = SweepHistory((record(0, TrialState.FAILED), record(1, TrialState.RUNNING, twin_of=0)))
    desk = make_desk(ONE, history=history, n_trials=1)  # it was begun, so it is not taken back
    trial = desk.train()
    assert (trial.number, trial.attempt) == (1, 2)
    assert desk.broker.suggest() is NoTrial.EXHAUSTED


def test_reused_results_are_not_charged_after_a_restart(make_desk: MakeDesk) -> None:
    done = {"value": 0.5, "value_step": 900, "reports": (Report(900, {"accuracy": 0.5}, 900, final=True),)}
    reused = {"value": 0.5, "value_step": 900, "twin_of": 0, "reused_from": 0, "attempts": 0, "started_at": None}
    history = SweepHistory((record(0, TrialState.COMPLETE, **done), record(1, TrialState.COMPLETE, **reused)))
    desk = make_desk(COIN, history=history, n_trials=2)
    trials = desk.broker.study.trials
    assert trials[1].intermediate_values == {900: 0.5}
    assert trials[1].user_attrs == {"value_step": 900, "reused_from": 0}
    assert trials[1].datetime_start == trials[1].datetime_complete  # never begun: not in 1970
    assert desk.train().configuration == {"batch_size": 16}
    assert desk.broker.suggest() is NoTrial.EXHAUSTED


def test_starting_configurations_are_not_given_again(make_desk: MakeDesk) -> None:
    history = SweepHistory((record(0, TrialState.PRUNED, source=Source.START_WITH, reason="rung"),))
    starting = [(Source.START_WITH, {"batch_size": 8}), (Source.DEFAULT, {"batch_size": 16})]
    desk = make_desk(COIN, history=history, starting=starting)
    assert desk.next().configuration == {"batch_size": 16}
    assert desk.heard(TrialSuggested)[0].source is Source.DEFAULT


def test_the_restored_study_shows_what_was_stored(make_desk: MakeDesk) -> None:
    diverged = (Report(100, {"accuracy": 0.4}, 100), Report(200, {"accuracy": math.nan}, 200))
    no_objective = (Report(100, {"loss": 0.4}, 100),)
    history = SweepHistory(
        (
            record(0, TrialState.PRUNED, reason=DIVERGED, reports=diverged, attributes={"completed_rung_0": 0.4}),
            record(1, TrialState.FAILED, reason="no luck", reports=no_objective),
            record(2, TrialState.PRUNED, reason=BY_HAND),
        ),
        study_attributes={"kept": 1},
    )
    study = make_desk(COIN, history=history).broker.study
    states = [trial.state for trial in study.trials]
    assert states == [OptunaState.PRUNED, OptunaState.FAIL, OptunaState.PRUNED]
    assert [trial.value for trial in study.trials] == [-math.inf, None, None]
    assert study.trials[0].intermediate_values == {100: 0.4, 200: -math.inf}
    assert study.trials[0].system_attrs == {"completed_rung_0": 0.4}
    assert study.trials[0].user_attrs == {"reason": DIVERGED}
    assert study.trials[0].datetime_start is not None
    assert study.trials[0].datetime_start.timestamp() == 1000.0
    assert study._storage.get_study_system_attrs(study._study_id)["kept"] == 1


def test_the_seed_of_each_drive_is_kept_with_the_study(make_desk: MakeDesk) -> None:
    first = make_desk()
    first.next()
    (suggested,) = first.heard(TrialSuggested)
    kept = suggested.study_attributes
    assert list(kept[SEEDS]) == ["0"]
    later = make_desk(history=SweepHistory(study_attributes={**kept, SEEDS: {"9": 1, **kept[SEEDS]}}))
    later.next()
    assert later.heard(TrialSuggested)[0].study_attributes[SEEDS] == {"9": 1, **kept[SEEDS]}
