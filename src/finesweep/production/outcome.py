"""What a production training came to, held to what the trial and a verification had promised.

In: a plan, what was measured on which rows, what differed around it. Out: an `Outcome`, and the same as metrics.json.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from finesweep.events import Report
from finesweep.production.plan import Plan
from finesweep.production.surroundings import ROUNDING, Difference, changed, versions_here, was_stacked
from finesweep.spec.study import Objective
from finesweep.training.prepare import Prepared

EQUAL_SHARE = 1e-9  # of a value: closer than this are two doubles that came through JSON


@dataclass(frozen=True, slots=True)
class Measured:
    """Metrics by split; a split by which nothing was judged is not in it."""

    step: int  # of the report whose weights were kept
    kept_value: float | None  # of the trial's objective there; None where the validation rows were learnt from
    splits: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class Held:
    """A value held to the prediction interval of a verification."""

    split: str
    metric: str
    value: float | None  # None: it was not measured on that split
    low: float
    high: float
    is_same: bool  # rows and settings are those that were verified

    @property
    def is_inside(self) -> bool:
        return self.value is not None and self.low <= self.value <= self.high

    def is_broken(self, objective: Objective) -> bool:
        """Tell whether the promise is not met; with other rows, only a worse value breaks it."""
        if self.is_inside:
            return False
        if self.value is None or not math.isfinite(self.value) or self.is_same:
            return True
        return self.value < self.low if objective.direction == "maximize" else self.value > self.high

    def __str__(self) -> str:
        interval = f"[{self.low:.4f}, {self.high:.4f}]"
        of = f"the prediction interval {interval} of the verification ({self.metric} on the {self.split} rows)"
        if self.value is None:
            return f"Not judged on the {self.split} rows, so it is not known whether it meets {of}."
        other = "" if self.is_same else ", which is of other training rows or settings"
        return f"{self.metric} {self.value:.4f} is {'inside' if self.is_inside else 'OUTSIDE'} {of}{other}."


def hold(plan: Plan, measured: Measured, found: Sequence[Difference]) -> Held | None:
    """Compare with the verification in the record; None where there is none, or no interval."""
    verification = plan.record.verification
    interval = None if verification is None else verification.get("prediction_interval")
    if verification is None or interval is None:
        return None
    split, metric = str(verification["split"]), str(verification["metric"])
    value = measured.splits.get(split, {}).get(metric)
    is_same = not plan.asked.full_data and not changed(found, "data fingerprint", "model fingerprint")
    return Held(split, metric, value, float(interval[0]), float(interval[1]), is_same)


def like_the_trial(plan: Plan, measured: Measured) -> bool | None:
    """Tell whether the training came to the trial's value at the same step; None where it was not meant to."""
    asked, record = plan.asked, plan.record
    if asked.full_data or asked.seed not in (None, record.seed):
        return None
    value = measured.kept_value
    near = ROUNDING if was_stacked(record.facts) else EQUAL_SHARE
    return value is not None and math.isclose(value, record.value, rel_tol=near, abs_tol=near)


def metrics_content(
    plan: Plan,
    prepared: Prepared,
    measured: Measured,
    *,
    reports: Sequence[Report],
    facts: Mapping[str, Any],
    found: Sequence[Difference],
    n_processes: int,
    seconds: float,
    command: str | None,
) -> dict[str, Any]:
    """Give metrics.json. A number that is not finite is null."""
    record, held = plan.record, hold(plan, measured, found)
    n_rows = {"train": prepared.n_train_rows, "validation": prepared.n_validation_rows, "test": prepared.n_test_rows}
    content: dict[str, Any] = _finite(
        {
            "metric": record.metric,
            "direction": plan.objective.direction,
            "trained_on": plan.trained_on,
            "judged_on": list(measured.splits),
            "splits": measured.splits,
            "step": measured.step,
            "stopped_at_percent": plan.stop_percent or 100,
            "n_rows": n_rows,
            "trial": {
                "sweep": record.sweep,
                "number": record.trial,
                "value": record.value,
                "step": record.value_step,
                "metrics": record.metrics,
            },
            "equals_trial": like_the_trial(plan, measured),
            "verification": record.verification,
            "prediction_interval": None
            if held is None
            else {
                "split": held.split,
                "low": held.low,
                "high": held.high,
                "value": held.value,
                "is_inside": held.is_inside,
                "is_broken": held.is_broken(plan.objective),
            },
            "reports": [
                {"step": report.step, "examples_seen": report.examples_seen, "metrics": report.metrics}
                for report in ([] if plan.asked.full_data else reports)
            ],
            "settings": plan.spec.training.model_dump(mode="json"),
            "seed": plan.spec.training.seed,
            "data_fingerprint": prepared.data_fingerprint,
            "model_fingerprint": prepared.model_fingerprint,
            "labels": list(prepared.labels),
            "differs_from_trial": [str(difference) for difference in found],
            "facts": {name: value for name, value in facts.items() if name not in ("pid", "resumed_from")},
            "n_processes": n_processes,
            "seconds": round(seconds, 1),
            "versions": versions_here(),
            "command": command,
        }
    )
    return content


def _finite(value: Any) -> Any:
    match value:
        case float() if not math.isfinite(value):
            return None
        case Mapping():
            return {key: _finite(item) for key, item in value.items()}
        case list() | tuple():
            return [_finite(item) for item in value]
        case _:
            return value
