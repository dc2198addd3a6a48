"""What must be true of a sweep's rows, whatever has struck it. Each rule is a function that tells what breaks it.

In: what is seen, that is rows before and after an event, Optuna's copies of them, and the truth. Out: violations. It
must not know brokers or drivers: what was stored is all that counts.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import Any

from finesweep.results.values import from_json
from finesweep.simulation.snapshot import MirroredTrial, Snapshot, StoredReport, StoredTrial
from finesweep.spec.space import space_size
from finesweep.spec.study import Objective, has_diverged
from finesweep.spec.sweep import SweepSpec


class Harm(StrEnum):
    """What a fault must never do to a trial."""

    LOST = "lost"  # a trial, a report, an outcome, a part of the budget
    DOUBLED = "doubled"  # trained or counted twice
    ZOMBIE = "zombie"  # said to be running, and nobody runs it
    MISLABELLED = "mislabelled"  # another outcome, value or report than the true one


@dataclass(frozen=True, slots=True)
class Violation:
    harm: Harm
    rule: str
    text: str


@dataclass(frozen=True, slots=True)
class Truth:
    """What rows are held against."""

    spec: SweepSpec
    said: Callable[[Mapping[str, Any], int], Mapping[str, float]]  # configuration, step -> what is reported there
    steps: Sequence[int]  # that a COMPLETE trial has reported
    may_end_early: bool = False  # a race leaves out what has clearly lost, and so does not use up its budget

    @property
    def objectives(self) -> Sequence[Objective]:
        return self.spec.study.objectives


@dataclass(frozen=True, slots=True)
class Seen:
    """What there is to look at."""

    truth: Truth
    before: Snapshot
    now: Snapshot
    study: Callable[[], Sequence[MirroredTrial]]  # Optuna's, as the broker holds it
    mirror: Callable[[], Sequence[MirroredTrial]]  # Optuna's tables

    def new(self) -> Iterator[StoredTrial]:
        """Give the trials that may have changed: those that were finished stand, by a rule of their own."""
        finished = {trial.number for trial in self.before.trials if trial.is_final}
        return (trial for trial in self.now.trials if trial.number not in finished)


Found = Iterator[tuple[Harm, str]]
Rule = Callable[[Seen], Found]


def violations(rules: Sequence[Rule], seen: Seen) -> list[Violation]:
    return [Violation(harm, rule.__name__, text) for rule in rules for harm, text in rule(seen)]


# --- after every event -------------------------------------------------------------------------------------------


def numbers_are_dense(seen: Seen) -> Found:
    numbers = [trial.number for trial in seen.now.trials]
    if numbers != list(range(len(numbers))):
        yield Harm.LOST, f"trials are numbered {numbers}"


def finished_trials_are_byte_equal(seen: Seen) -> Found:
    after = {trial.number: trial for trial in seen.now.trials}
    for trial in seen.before.trials:
        now = after.get(trial.number)
        if now is None:
            yield Harm.LOST, f"trial {trial.number} is gone"
        elif now.configuration != trial.configuration or now.parameters != trial.parameters:
            yield Harm.MISLABELLED, f"trial {trial.number} has another configuration"
        elif trial.is_final and now.row != trial.row:
            yield Harm.MISLABELLED, f"finished trial {trial.number} was {trial.row}, is {now.row}"


def stored_reports_stand(seen: Seen) -> Found:
    """None is lost, changed, or put before one that was there; a finished trial gets no more of them."""
    finished = {trial.number for trial in seen.before.trials if trial.is_final}
    for number, now in seen.now.reports.items():
        before = seen.before.reports.get(number, ())
        rows = [report.row for report in now]
        if rows[: len(before)] != [report.row for report in before]:
            yield Harm.LOST, f"reports of trial {number} were {[r.row for r in before]}, are {rows}"
        if number in finished and len(now) > len(before):
            yield Harm.DOUBLED, f"finished trial {number} has reported again"
        if any(later.attempt < earlier.attempt for earlier, later in pairwise(now)):
            yield Harm.DOUBLED, f"trial {number} has a report of an attempt before the last one: {rows}"
    yield from ((Harm.LOST, f"no report of trial {n} is left") for n in seen.before.reports.keys() - seen.now.reports)


def reports_are_true(seen: Seen) -> Found:
    for trial in seen.new():
        configuration = json.loads(trial.configuration)
        n_before = len(seen.before.reports.get(trial.number, ()))
        for report in seen.now.reports.get(trial.number, ())[n_before:]:
            true = seen.truth.said(configuration, report.step)
            if repr(dict(report.metrics)) != repr(dict(true)):  # NaN is not equal to itself
                yield Harm.MISLABELLED, f"trial {trial.number} at {report.step}: {report.metrics} is not {true}"


def outcomes_fit_reports(seen: Seen) -> Found:
    """A trial is COMPLETE with its best or last value, PRUNED by a STOP and without one, or FAILED by its last end."""
    for trial in seen.new():
        reports = seen.now.reports.get(seen.now.origin(trial), ())
        stopped = bool(reports) and reports[-1].decision == "stop"
        if any(report.decision == "stop" for report in reports[:-1]):
            yield Harm.MISLABELLED, f"trial {trial.number} has reported after it was told to stop"
        if stopped != (trial.state == "PRUNED"):
            yield Harm.MISLABELLED, f"trial {trial.number} is {trial.state}, last answer {reports and reports[-1]}"
        expected = None if trial.state != "COMPLETE" else _value(reports, seen.truth.objectives[0])
        if (trial.value, trial.value_step) != (expected or (None, None)):
            yield Harm.MISLABELLED, f"trial {trial.number} has {trial.value} at {trial.value_step}, true: {expected}"
        if trial.state == "FAILED" and (why := _no_failure(seen, trial)):
            yield Harm.MISLABELLED, why


def attempts_are_counted(seen: Seen) -> Found:
    """They are numbered 1 to k, only the last is open, and ended ones stand."""
    for number, attempts in seen.now.attempts.items():
        if [attempt.attempt for attempt in attempts] != list(range(1, len(attempts) + 1)):
            yield Harm.LOST, f"attempts of trial {number} are {[attempt.attempt for attempt in attempts]}"
        if any(attempt.is_open for attempt in attempts[:-1]):
            yield Harm.DOUBLED, f"trial {number} has begun again while an attempt was open"
        before = [attempt.row for attempt in seen.before.attempts.get(number, ()) if not attempt.is_open]
        if [attempt.row for attempt in attempts[: len(before)]] != before:
            yield Harm.MISLABELLED, f"ended attempts of trial {number} were {before}, are not now"


def retries_are_limited(seen: Seen) -> Found:
    """A trial that may not be begun again after an attempt has its outcome with that."""
    budget = seen.truth.spec.budget
    for trial in seen.new():
        ended = [attempt.ending for attempt in seen.now.attempts.get(trial.number, ())]
        # A trial with an outcome may end with such an attempt; one without has been, or will be, begun again after it.
        spoiled = [ending for ending in (ended[:-1] if trial.is_final else ended) if ending in _SPOILS]
        if len(spoiled) > budget.retries or any(ending not in budget.retry_on for ending in spoiled):
            yield Harm.DOUBLED, f"trial {trial.number} is {trial.state} after attempts that ended {ended}"


def nothing_is_trained_twice(seen: Seen) -> Found:
    """No trial is begun whose configuration has a result, nor while another one of the same is being trained."""
    for number in seen.now.attempts.keys() - seen.before.attempts.keys():
        trial = seen.now.trial(number)
        for other in seen.now.trials:
            is_result = other.state in ("COMPLETE", "PRUNED")
            is_at_work = not other.is_final and other.number in seen.now.attempts
            is_same = trial is not None and other.number != number and other.configuration == trial.configuration
            if is_same and (is_result or is_at_work):
                yield Harm.DOUBLED, f"trial {number} is trained, and trial {other.number} is or was: {other.state}"


def reused_results_are_those_of_their_origin(seen: Seen) -> Found:
    for trial in seen.new():
        if trial.reused_from is None:
            continue
        origin = seen.now.trial(trial.reused_from)
        same = ("configuration", "state", "value", "value_step")
        if (
            origin is None
            or origin.reused_from is not None
            or any(getattr(trial, n) != getattr(origin, n) for n in same)
        ):
            yield Harm.MISLABELLED, f"trial {trial.number} took over what {origin} has, and has {trial.row}"
        if seen.now.attempts.get(trial.number) or seen.now.reports.get(trial.number):
            yield Harm.DOUBLED, f"trial {trial.number} took over a result and was trained"


def budget_is_kept(seen: Seen) -> Found:
    n_charged = sum(map(seen.now.is_charged, seen.now.trials))
    if n_charged > seen.now.budget_trials:
        yield Harm.DOUBLED, f"{n_charged} trials are trained, the budget is {seen.now.budget_trials}"


def running_trials_are_run(seen: Seen) -> Found:
    """A trial is RUNNING if and only if an attempt of it is open, and both only while somebody holds the sweep."""
    for trial in seen.now.trials:
        attempts = seen.now.attempts.get(trial.number, ())
        is_open = bool(attempts) and attempts[-1].is_open
        if not trial.is_final and is_open != (trial.state == "RUNNING"):
            yield Harm.ZOMBIE, f"trial {trial.number} is {trial.state}, and its last attempt open: {is_open}"
        if is_open and not seen.now.is_held:
            yield Harm.ZOMBIE, f"trial {trial.number} has an open attempt, and nobody holds the sweep"


EVER = (
    numbers_are_dense,
    finished_trials_are_byte_equal,
    stored_reports_stand,
    reports_are_true,
    outcomes_fit_reports,
    attempts_are_counted,
    retries_are_limited,
    nothing_is_trained_twice,
    reused_results_are_those_of_their_origin,
    budget_is_kept,
    running_trials_are_run,
)


# --- while a broker lives ----------------------------------------------------------------------------------------


def sampler_was_told_the_truth(seen: Seen) -> Found:
    """Optuna's study of the broker and the rows say the same of every trial."""
    yield from _differences(seen, seen.study(), "the sampler's study")


# --- once a driver has taken the sweep, and when it has paused or ended by its own word -----------------------------


def nothing_is_open(seen: Seen) -> Found:
    for number, attempts in seen.now.attempts.items():
        if any(attempt.is_open for attempt in attempts):
            yield Harm.ZOMBIE, f"trial {number} has an open attempt"
    for trial in seen.now.trials:
        if trial.state == "RUNNING":
            yield Harm.ZOMBIE, f"trial {trial.number} is RUNNING"


def mirror_is_whole(seen: Seen) -> Found:
    """Optuna's tables and ours say the same of every trial."""
    yield from _differences(seen, seen.mirror(), "Optuna's tables")


def mirror_is_not_ahead(seen: Seen) -> Found:
    """Even after a death Optuna's tables hold no outcome that we do not."""
    for known in seen.mirror():
        trial = seen.now.trial(known.number)
        if trial is None:
            yield Harm.DOUBLED, f"Optuna's tables have a trial {known.number} that we do not"
        elif known.state not in ("RUNNING", "WAITING") and known.state != _OPTUNA.get(trial.state):
            yield Harm.MISLABELLED, f"trial {known.number} is {known.state} in Optuna's tables, {trial.state} in ours"


# --- at the end --------------------------------------------------------------------------------------------------


def everything_is_done(seen: Seen) -> Found:
    """Every trial has its outcome, COMPLETE ones all their reports, and the budget is used up."""
    now = seen.now
    for trial in now.trials:
        if not trial.is_final:
            yield Harm.LOST, f"trial {trial.number} is {trial.state} although the sweep is over"
        steps = [report.step for report in now.reports.get(now.origin(trial), ())]
        if trial.state == "COMPLETE" and steps != list(seen.truth.steps):
            yield Harm.LOST, f"trial {trial.number} is COMPLETE with reports at {steps} only"
    n_charged = sum(map(now.is_charged, now.trials))
    if n_charged != now.budget_trials and not seen.truth.may_end_early and not _is_used_up(seen):
        yield Harm.LOST, f"{n_charged} trials were trained of {now.budget_trials}"


# --- the truth of a trial -----------------------------------------------------------------------------------------

_OPTUNA = {"COMPLETE": "COMPLETE", "PRUNED": "PRUNED", "FAILED": "FAIL"}
_SPOILS = ("lost", "stalled", "failed")


def _value(reports: Sequence[StoredReport], objective: Objective) -> tuple[float, int] | None:
    """Choose the value of a COMPLETE trial and its step."""
    values = [(report.metrics[objective.metric], report.step) for report in reports]
    if not values or objective.value == "last":
        return values[-1] if values else None
    best = max if objective.direction == "maximize" else min
    value = best(value for value, _ in values)
    return value, next(step for found, step in values if found == value)


def _no_failure(seen: Seen, trial: StoredTrial) -> str | None:
    """Say why a trial should not have failed."""
    attempts = seen.now.attempts.get(seen.now.origin(trial), ())
    ending = attempts[-1].ending if attempts else None
    if ending not in _SPOILS:
        return f"trial {trial.number} is FAILED although its last attempt ended as {ending}"
    retries = seen.truth.spec.budget.retries
    if ending in seen.truth.spec.budget.retry_on and _n_spoiled(seen, seen.now.origin(trial)) <= retries:
        return f"trial {trial.number} is FAILED although it may be begun again after it ended as {ending}"
    return None


def _n_spoiled(seen: Seen, number: int) -> int:
    return sum(attempt.ending in _SPOILS for attempt in seen.now.attempts.get(number, ()))


def _differences(seen: Seen, told: Sequence[MirroredTrial], where: str) -> Found:
    """Find where a study of Optuna's does not say of the trials what the rows say."""
    if len(told) != len(seen.now.trials):
        yield Harm.LOST, f"{where}: {len(told)} trials; the database: {len(seen.now.trials)}"
    for trial, known in zip(seen.now.trials, told, strict=False):
        stored = _as_told(seen, trial)
        if repr(known) != repr(stored):
            yield Harm.MISLABELLED, f"trial {trial.number}: {where}: {known}; the database: {stored}"


def _as_told(seen: Seen, trial: StoredTrial) -> MirroredTrial:
    """Make of the rows what Optuna must know of a trial."""
    objectives = seen.truth.objectives
    reports = seen.now.reports.get(seen.now.origin(trial), ())
    values: tuple[float, ...] = ()
    if trial.state == "COMPLETE":
        metrics = next((report.metrics for report in reports if report.step == trial.value_step), {})
        values = tuple(metrics.get(objective.metric, math.nan) for objective in objectives)
    told = {} if len(objectives) > 1 else {report.step: _told(report, objectives) for report in reports}
    if trial.state == "PRUNED" and told:
        values = (told[max(told)],)  # Optuna's own: what was reported last
    state = _OPTUNA.get(trial.state, "RUNNING")
    parameters, attributes = (dict(sorted(from_json(text).items())) for text in (trial.parameters, trial.attributes))
    return MirroredTrial(trial.number, state, values, parameters, told, attributes)


def _told(report: StoredReport, objectives: Sequence[Objective]) -> float:
    if has_diverged(report.metrics, objectives):
        return -math.inf if objectives[0].direction == "maximize" else math.inf
    return report.metrics[objectives[0].metric]


def _is_used_up(seen: Seen) -> bool:
    """Tell whether every configuration of the space has its result."""
    size = space_size(seen.truth.spec.study.parameters)
    return size == len({t.configuration for t in seen.now.trials if t.state in ("COMPLETE", "PRUNED")})
