"""What a verification found, read off its trainings: means and intervals on rows that chose nothing.

In: the results database. Out: an `Outcome`. It must not know how it is shown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from finesweep.events import TEST_METRICS, TrialRecord, TrialState
from finesweep.results.frames import Results
from finesweep.results.schema import SweepState
from finesweep.spec.study import Objective
from finesweep.spec.sweep import RemoteSweep, TransformersSweep
from finesweep.verification import statistics
from finesweep.verification.found import TEST, VALIDATION, ArmOutcome, Difference, Judged, Outcome
from finesweep.verification.plan import SEED, Arm, VerificationPlan, created_at, key_of, plan_of, verifications
from finesweep.verification.race import Cell, Standing, n_looks, race_cells, standing_of


@dataclass(frozen=True, slots=True)
class _Training:
    value: float | None  # on the validation rows
    test: float | None
    reason: str | None  # why it has no value


def known_outcome(results: Results, sweep: str) -> Outcome | None:
    """Read what a verification found: the one that a sweep is, or else the latest one of it."""
    return read_outcome(results, sweep) or outcome_of(results, sweep)


def outcome_of(results: Results, sweep: str) -> Outcome | None:
    """Read what the latest verification of a sweep found: one that is over, else the one that is under way."""
    began, latest = None, None
    for name in reversed(verifications(results, sweep)):
        began = began or created_at(results, sweep)
        found = read_outcome(results, name)
        if found is None or _plan(results, name).created_at != began:
            continue  # of an earlier sweep of the same name
        if found.is_over and found.won is not None:
            return found
        latest = latest or found
    return latest


def read_outcome(results: Results, verification: str) -> Outcome | None:
    """Read what one verification found; None of a sweep that is none. Raises ResultsError for a plan that is broken."""
    plan = plan_of(results.provenance(verification))
    if plan is None:
        return None
    spec = results.spec(verification)
    objective = spec.study.objective
    frame = results.sweeps().set_index("sweep")
    records = results.history(verification).trials
    is_own, is_remote = not isinstance(spec, TransformersSweep), isinstance(spec, RemoteSweep)
    has_test = isinstance(spec, TransformersSweep) and spec.data.test is not None
    tests = _test_values(results, verification, objective.metric) if has_test else {}
    trainings = {_cell(record): _training(record, tests) for record in records if record.state.is_final}
    ended = {cell: training.value for cell, training in trainings.items()}
    standing = standing_of(plan, ended, objective)
    winner = None if standing.winner is None else plan.arms[standing.winner]
    baseline = None if standing.winner is None else _baseline(plan, standing.winner)
    split = _split(plan, [arm for arm in (winner, baseline) if arm is not None], trainings)
    arms = _arms(plan, standing, baseline)
    probabilities = _probabilities(arms, trainings, objective, split)
    difference = None
    if winner is not None and baseline is not None:
        difference = _difference(plan, winner, baseline, trainings, split)
    state = SweepState(str(frame.loc[verification, "state"]))
    return Outcome(
        sweep=verification,
        of=plan.of,
        metric=objective.metric,
        direction=objective.direction,
        split=split,
        race_seeds=tuple(plan.race_seeds),
        seeds=tuple(plan.seeds),
        state=state,
        is_over=state in (SweepState.FINISHED, SweepState.FAILED),
        n_ended=len(trainings),
        most_trainings=plan.most_trainings,
        arms=tuple(
            _arm_outcome(plan, place, arm, standing, trainings, split, probability=probability)
            for (place, arm), probability in zip(arms, probabilities, strict=True)
        ),
        winner=winner.label if winner else None,
        baseline=baseline.label if baseline else None,
        difference=difference,
        notes=tuple(
            _notes(plan, standing, trainings, objective, split, has_test=has_test, is_own=is_own, is_remote=is_remote)
        ),
    )


# --- trainings ----------------------------------------------------------------------------------------------------


def _plan(results: Results, verification: str) -> VerificationPlan:
    plan = plan_of(results.provenance(verification))
    assert plan is not None, "it is a verification"
    return plan


def _cell(record: TrialRecord) -> Cell:
    seed = record.configuration.get(SEED)
    return key_of(record.configuration), seed if isinstance(seed, int) else -1


def _training(record: TrialRecord, tests: Mapping[int, float]) -> _Training:
    if record.state is TrialState.COMPLETE:
        return _Training(record.value, tests.get(record.number), None)
    return _Training(None, None, record.reason or record.state.value.lower())


def _test_values(results: Results, verification: str, metric: str) -> dict[int, float]:
    """Read what trainings came to on the test rows, from what their workers told."""
    found = {}
    attempts = results.attempts(verification)
    for number, facts in zip(attempts["number"], attempts["facts"], strict=True):
        told = facts.get(TEST_METRICS)
        value = told.get(metric) if isinstance(told, Mapping) else None
        if isinstance(value, int | float) and math.isfinite(value):
            found[int(number)] = float(value)
    return found


def _of(training: _Training | None, split: str) -> float | None:
    if training is None:
        return None
    return training.test if split == TEST else training.value


def _split(plan: VerificationPlan, confirmed: Sequence[Arm], trainings: Mapping[Cell, _Training]) -> str:
    """Choose the rows of the headline: the test rows, unless an arm that it names has no value there."""
    cells = [[(key_of(arm.configuration), seed) for seed in plan.seeds] for arm in confirmed] or [list(trainings)]
    is_known = [any(_of(trainings.get(cell), TEST) is not None for cell in of_arm) for of_arm in cells]
    return TEST if all(is_known) else VALIDATION


def _baseline(plan: VerificationPlan, winner: int) -> Arm | None:
    """Give what the winner is compared with, unless it is that itself."""
    baseline = plan.baselines[winner]
    if baseline is None or key_of(baseline.configuration) == key_of(plan.arms[winner].configuration):
        return None
    return baseline


def _arms(plan: VerificationPlan, standing: Standing, baseline: Arm | None) -> list[tuple[int | None, Arm]]:
    """List the arms by their place in the race, then the baseline if it is none of them."""
    listed: list[tuple[int | None, Arm]] = []
    for place, arm in enumerate(plan.arms):
        if baseline is not None and key_of(arm.configuration) == key_of(baseline.configuration):
            arm = arm.model_copy(update={"label": baseline.label})
        listed.append((place, arm))
    if baseline is not None and key_of(baseline.configuration) not in {key_of(arm.configuration) for arm in plan.arms}:
        listed.append((None, baseline))
    return listed


# --- numbers ------------------------------------------------------------------------------------------------------


def _arm_outcome(
    plan: VerificationPlan,
    place: int | None,
    arm: Arm,
    standing: Standing,
    trainings: Mapping[Cell, _Training],
    split: str,
    *,
    probability: float | None,
) -> ArmOutcome:
    key = key_of(arm.configuration)
    raced = [] if place is None else [_of(trainings.get(c), VALIDATION) for c in race_cells(plan, place, _last(plan))]
    values = [value for value in raced if value is not None]
    splits = (split, VALIDATION) if split != VALIDATION else (split,)
    judged = [_judged(plan, key, trainings, of_split) for of_split in splits]
    lost = [trainings[cell].reason for cell in trainings if cell[0] == key]
    return ArmOutcome(
        label=arm.label,
        trial=arm.trial,
        search_value=arm.search_value,
        race_mean=sum(values) / len(values) if values else None,
        race_half_width=_race_half_width(plan, trainings, len(values)),
        n_race=len(values),
        dropped_after=None if place is None else standing.dropped.get(place),
        lost=tuple(reason for reason in lost if reason is not None),
        probability_best=probability,
        confirmed=tuple(found for found in judged if found is not None),
    )


def _last(plan: VerificationPlan) -> int:
    return len(plan.race_seeds)


def _judged(plan: VerificationPlan, key: str, trainings: Mapping[Cell, _Training], split: str) -> Judged | None:
    ended = [trainings[key, seed] for seed in plan.seeds if (key, seed) in trainings]
    values = [value for value in (_of(training, split) for training in ended) if value is not None]
    if not values:
        return None
    return Judged(split, statistics.estimate(values), len(ended) - len(values), tuple(values))


def _race_half_width(plan: VerificationPlan, trainings: Mapping[Cell, _Training], n: int) -> float | None:
    """Give the half width for a mean over n rounds; None where an arm lost a training of the first look."""
    rounds = min(statistics.FIRST_LOOK, _last(plan))
    if not plan.has_race or rounds < statistics.FIRST_LOOK or n == 0:
        return None
    cells = [[_of(trainings.get(c), VALIDATION) for c in race_cells(plan, a, rounds)] for a in range(len(plan.arms))]
    values = [[value for value in of_arm if value is not None] for of_arm in cells]
    if any(len(of_arm) < rounds for of_arm in values):
        return None
    std = statistics.first_look_std(statistics.as_values(values))
    assert std is not None, "there are two rounds"
    return statistics.race_half_width(std, n=n, n_arms=len(plan.arms), n_looks=n_looks(plan) + 1)


def _probabilities(
    arms: Sequence[tuple[int | None, Arm]], trainings: Mapping[Cell, _Training], objective: Objective, split: str
) -> Sequence[float | None]:
    groups = []
    for _, arm in arms:
        key = key_of(arm.configuration)
        values = (_of(training, split) for (of_key, _), training in trainings.items() if of_key == key)
        groups.append([value for value in values if value is not None])
    found = statistics.probabilities_of_best(groups, maximize=objective.direction == "maximize") if groups else None
    return [None] * len(arms) if found is None or len(arms) < 2 else found


def _difference(
    plan: VerificationPlan, winner: Arm, baseline: Arm, trainings: Mapping[Cell, _Training], split: str
) -> Difference | None:
    found = []
    for seed in plan.seeds:
        one = _of(trainings.get((key_of(winner.configuration), seed)), split)
        other = _of(trainings.get((key_of(baseline.configuration), seed)), split)
        if one is not None and other is not None:
            found.append(one - other)
    if not found:
        return None
    estimate = statistics.estimate(found)
    return Difference(estimate.n, estimate.mean, estimate.half_width)


_SEEDED_BY = {  # whether it is the server that trains -> who is to heed the seed
    False: "A trainer of your own is to begin from trial.seed.",
    True: "The server was given another seed each time, and does not heed it.",
}


def _notes(
    plan: VerificationPlan,
    standing: Standing,
    trainings: Mapping[Cell, _Training],
    objective: Objective,
    split: str,
    *,
    has_test: bool,
    is_own: bool,
    is_remote: bool,
) -> list[str]:
    notes = []
    if split == VALIDATION and is_remote:
        notes.append(
            "The server measures the validation rows alone: the seeds are new, these rows are those by which the "
            "search chose, and what is shown keeps that bias. Ask the model itself about rows that no job saw."
        )
    elif split == VALIDATION and is_own:
        notes.append(
            "A trainer of your own is judged by what it reports: if that is of the rows by which the search chose, "
            "what is shown is still too good."
        )
    elif split == VALIDATION and not has_test:
        notes.append(
            "There are no test rows: the seeds are new, the validation rows are those by which the search chose, and "
            "what is shown keeps that bias. Give the sweep data.test to be rid of it."
        )
    elif split == VALIDATION and trainings:
        notes.append(f"{objective.metric} is not known on the test rows: what is shown is of the validation rows.")
    if _is_constant(plan, standing, trainings):
        notes.append(
            "All trainings of the winner came to the very same value: what is trained does not depend on the seed, and "
            f"repeats tell nothing. {_SEEDED_BY[is_remote]}"
        )
    n_unjudged = sum(training.value is not None and training.test is None for training in trainings.values())
    if split == TEST and n_unjudged:
        notes.append(f"Not judged on the test rows, for want of their weights: {n_unjudged} of the trainings.")
    if standing.winner is not None and plan.baselines[standing.winner] is not None:
        if _baseline(plan, standing.winner) is None:
            notes.append("The winner is the baseline itself: there is nothing to compare it with.")
    elif standing.winner is not None:
        notes.append("It was not compared with a baseline.")
    return notes


def _is_constant(plan: VerificationPlan, standing: Standing, trainings: Mapping[Cell, _Training]) -> bool:
    if standing.winner is None:
        return False
    key = key_of(plan.arms[standing.winner].configuration)
    values = [trainings[key, seed].value for seed in plan.seeds if (key, seed) in trainings]
    return len(values) > 1 and len({*values}) == 1
