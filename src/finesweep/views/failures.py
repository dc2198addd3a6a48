"""The failed trials of a sweep, grouped by the reason that they give. In: frames of trials and attempts."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from finesweep.events import TrialState

NO_REASON = "no reason is known"


@dataclass(frozen=True, slots=True)
class FailureGroup:
    """Trials that failed for one reason, and what the last of them that left a traceback said."""

    reason: str
    numbers: tuple[int, ...]
    traceback: str | None


def failure_groups(trials: pd.DataFrame, attempts: pd.DataFrame) -> list[FailureGroup]:
    """Group the FAILED trials of a sweep, the most frequent reason first."""
    failed = trials[trials["state"] == TrialState.FAILED]
    reasons = failed["reason"].fillna(NO_REASON)
    told = attempts[attempts["traceback"].notna()].drop_duplicates("number", keep="last")
    tracebacks = dict(zip(told["number"], told["traceback"], strict=True))
    groups = []
    for reason in reasons.value_counts().index:
        numbers = tuple(int(number) for number in failed.loc[reasons == reason, "number"])
        last = next((str(tracebacks[number]) for number in reversed(numbers) if number in tracebacks), None)
        groups.append(FailureGroup(str(reason), numbers, last))
    return groups
