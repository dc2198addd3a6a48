"""What a sweep says at a glance, in sentences: what won and by how much, whether to go on, what to look at.

Each finding is made of the frames alone, so that terminal, report and dashboard say the same. Pruned and failed trials
never enter what is said of the best.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import pandas as pd

from finesweep.events import Source, TrialState
from finesweep.results.cost import SECONDS_PER_HOUR, examples_trained, sweep_cost
from finesweep.results.frames import Results, TrialResult
from finesweep.results.jobs import job_cost
from finesweep.results.objectives import value_text
from finesweep.results.schema import SweepState
from finesweep.spec.parameters import BranchedParameter, FloatParameter, IntParameter, Parameter
from finesweep.spec.sweep import SweepSpec
from finesweep.verification.found import Outcome
from finesweep.verification.outcome import outcome_of, read_outcome
from finesweep.views.failures import failure_groups
from finesweep.views.picture import configuration_text
from finesweep.views.printing import duration_text
from finesweep.views.verified import lines_of, outcome_text

EDGE = 0.05  # share of a range, in its own scale, that counts as its edge
RECENT = 0.25  # share of the trials: an incumbent that came among the last of these may not be the last
IDLE = 0.75  # share of slot time: less than this is worth a look
SURE = 0.5  # importance whose interval lies above this is said to decide


class Kind(StrEnum):
    """What a finding is about; what to do about it follows."""

    RESULT = "result"
    VERIFICATION = "verification"
    PROGRESS = "progress"
    RANGE = "range"
    IMPORTANCE = "importance"
    COST = "cost"
    FAILURES = "failures"


@dataclass(frozen=True, slots=True)
class Finding:
    """A sentence, and what to do about it if anything."""

    kind: Kind
    text: str
    advice: str | None = None


def findings(results: Results, sweep: str, importances: pd.DataFrame) -> tuple[Finding, ...]:
    """Gather what is to be said of a sweep; `importances` is a frame as `search.importance` gives."""
    spec, trials = results.spec(sweep), results.trials(sweep)
    best = results.best(sweep)
    trained = trials[trials["reused_from"].isna()]
    own = read_outcome(results, sweep)
    if own is not None:  # there is no search here that could go on
        return (
            *_of_verification(spec, own, best),
            *_of_cost(results, spec, trials),
            *_of_failures(results, spec, trained),
        )
    return (
        *_of_result(results, spec, trials, best),
        *_of_verification(spec, outcome_of(results, sweep), best),
        *_of_progress(spec, trained, best),
        *_of_ranges(spec, best),
        *_of_importance(importances),
        *_of_cost(results, spec, trials),
        *_of_failures(results, spec, trained),
    )


def _of_result(results: Results, spec: SweepSpec, trials: pd.DataFrame, best: TrialResult | None) -> Iterator[Finding]:
    if best is None or best.value is None:
        yield Finding(Kind.RESULT, "No trial is complete yet.")
        return
    metric = spec.study.objective.metric
    front = results.front(spec.name)
    if len(spec.study.objectives) > 1:
        yield Finding(
            Kind.RESULT, f"{len(front)} trials are on the front: no other beats them in all of the objectives."
        )
    said = f"The best {metric} is {value_text(best.value)}, of trial {best.number}"
    said += f" at step {best.value_step:,}: {configuration_text(best.configuration)}."
    defaults = trials[(trials["source"] == Source.DEFAULT) & (trials["state"] == TrialState.COMPLETE)]
    if not defaults.empty:
        maximize = spec.study.objective.direction == "maximize"
        default = float(defaults["value"].max() if maximize else defaults["value"].min())
        gain = (best.value - default) * (1 if maximize else -1)
        if best.number in set(defaults["number"]):
            said += " It is the library's default configuration: nothing that was tried beats it."
        else:
            said += f" The library's defaults came to {value_text(default)}, {value_text(gain)} worse."
    yield Finding(Kind.RESULT, said)


def _of_verification(spec: SweepSpec, outcome: Outcome | None, best: TrialResult | None) -> Iterator[Finding]:
    """Say what the best is worth on rows and seeds that did not choose it; that this is not known is told too."""
    if outcome is None:
        if best is not None:
            yield Finding(
                Kind.VERIFICATION,
                "The best is not verified: of many noisy trials the best looks better than it is.",
                f"finesweep verify {spec.name}",
            )
        return
    if not outcome.is_over:
        is_driven = outcome.state == SweepState.RUNNING
        advice = None if is_driven else f"finesweep resume {outcome.sweep}"
        yield Finding(Kind.VERIFICATION, outcome_text(outcome), advice)
        return
    yield from (Finding(Kind.VERIFICATION, text) for text in lines_of(outcome))


def _of_progress(spec: SweepSpec, trained: pd.DataFrame, best: TrialResult | None) -> Iterator[Finding]:
    n_ended = int(trained["finished_at"].notna().sum())
    if best is None or n_ended < 4:
        return
    by_end = trained[trained["finished_at"].notna()].sort_values("finished_at")["number"].tolist()
    leader = best.number if best.reused_from is None else best.reused_from
    if leader not in by_end:
        return
    since = len(by_end) - 1 - by_end.index(leader)
    if since < math.ceil(RECENT * n_ended):
        yield Finding(
            Kind.PROGRESS,
            f"The best came late, {since} trials before the last of {n_ended}: it may still be beaten.",
            f"finesweep extend {spec.name} --trials {max(spec.budget.trials + 1, math.ceil(1.5 * spec.budget.trials))}",
        )
    else:
        yield Finding(Kind.PROGRESS, f"The last {since} of {n_ended} trials brought nothing better.")


def _of_ranges(spec: SweepSpec, best: TrialResult | None) -> Iterator[Finding]:
    if best is None:
        return
    for name, parameter in spec.study.parameters.items():
        found = _at_edge(_range_of(parameter, best.configuration), best.configuration.get(name))
        if found is not None:
            side, low, high = found
            yield Finding(
                Kind.RANGE,
                f"The best {name}, {_number(best.configuration[name])}, lies at the {side} end of its range, "
                f"{_number(low)} to {_number(high)}.",
                f"Widen {name} in the study beyond {_number(low if side == 'lower' else high)}.",
            )


def _of_importance(importances: pd.DataFrame) -> Iterator[Finding]:
    if importances.empty:
        return
    first = importances.iloc[0]
    share = f"{first['importance']:.0%} (90 % interval {first['low']:.0%} to {first['high']:.0%})"
    if first["low"] > SURE:
        yield Finding(Kind.IMPORTANCE, f"{first['parameter']} decides most: {share}, over {first['n_trials']} trials.")
    else:
        yield Finding(
            Kind.IMPORTANCE,
            f"Which parameter decides is not certain yet; {first['parameter']} leads with {share}.",
        )


def _of_cost(results: Results, spec: SweepSpec, trials: pd.DataFrame) -> Iterator[Finding]:
    seconds = float(results.sweeps().set_index("sweep")["seconds_used"][spec.name])
    if not seconds:
        return
    ran = f"It ran for {duration_text(seconds)} and saw {examples_trained(trials):,} examples"
    jobs = job_cost(results, spec.name)
    if jobs is not None:
        yield Finding(Kind.COST, f"{ran}: {jobs.text()}.")
        return
    cost = sweep_cost(results, spec.name)
    gpus = f", {cost.gpu_hours:.2g} GPU hours" if cost.gpu_hours else ""
    text = f"{ran}{gpus}."
    n_slots = results.provenance(spec.name).get("devices", {}).get("n_slots")
    if not isinstance(n_slots, int) or n_slots < 1:
        yield Finding(Kind.COST, text)
        return
    busy = min(1.0, cost.slot_hours * SECONDS_PER_HOUR / (n_slots * seconds))
    text += f" Its {n_slots} slots were training for {busy:.0%} of that time."
    advice = "Trials are short beside what it takes to start: look at the timeline." if busy < IDLE else None
    yield Finding(Kind.COST, text, advice)


def _of_failures(results: Results, spec: SweepSpec, trained: pd.DataFrame) -> Iterator[Finding]:
    groups = failure_groups(trained, results.attempts(spec.name))
    if not groups:
        return
    first, *rest = groups
    n_failed = sum(len(group.numbers) for group in groups)
    others = f", and {len(rest)} other reason{'s' if len(rest) > 1 else ''}" if rest else ""
    yield Finding(
        Kind.FAILURES,
        f"{n_failed} of {len(trained)} trials failed, {len(first.numbers)} of them by: {first.reason}{others}.",
        f"finesweep logs {spec.name}:{first.numbers[0]}",
    )


def _range_of(parameter: Parameter, configuration: Mapping[str, Any]) -> FloatParameter | IntParameter | None:
    """Give the range that a trial's value was drawn from; None for a parameter that has none."""
    match parameter:
        case FloatParameter() | IntParameter():
            return parameter
        case BranchedParameter():
            branch = parameter.branches.get(str(configuration.get(parameter.by)))
            return branch if isinstance(branch, FloatParameter | IntParameter) else None
        case _:
            return None


def _at_edge(within: FloatParameter | IntParameter | None, value: object) -> tuple[str, float, float] | None:
    """Tell at which end of its range a value lies, if it does; of a range of few whole numbers only its ends count."""
    if within is None or isinstance(value, bool) or not isinstance(value, int | float) or within.low >= within.high:
        return None
    scale = math.log if within.log else float
    place = (scale(value) - scale(within.low)) / (scale(within.high) - scale(within.low))
    if place <= EDGE:
        return None if _is_bound(within.low) else ("lower", within.low, within.high)
    return ("upper", within.low, within.high) if place >= 1 - EDGE else None


def _is_bound(low: float) -> bool:
    """Tell whether there is nothing below: no weight decay, no warm-up, one epoch."""
    return low in (0, 1)


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def texts(found: Sequence[Finding]) -> str:
    """Write findings as lines, each with what to do about it."""
    return "\n".join(one.text if one.advice is None else f"{one.text}\n    {one.advice}" for one in found)
