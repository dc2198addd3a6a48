"""Verify a sweep: its best configurations trained again, as a sweep of its own in the same database.

Puts together what `verification` plans and `sweeps` drives. Ctrl-C, crashes, leases, logs: as of any other sweep.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from finesweep.driver import SweepEnd, View
from finesweep.errors import SweepNameError
from finesweep.results.frames import Results, open_results
from finesweep.results.schema import SweepState
from finesweep.spec.sweep import SweepSpec
from finesweep.sweeps import BackendName, Place, begin, existing, is_driven, lines, slots_here, url_of
from finesweep.verification.plan import (
    DEFAULTS,
    VERIFICATION,
    VerificationPlan,
    make_plan,
    verification_spec,
    verifications,
)
from finesweep.verification.statistics import FIRST_LOOK
from finesweep.views.live import PlainView

MOST_LETTERS = 80  # of a sweep's name


@dataclass(frozen=True, slots=True)
class Verification:
    """A verification that can begin. `most_hours` is what it takes at most; None where no arm's duration is known."""

    plan: VerificationPlan
    spec: SweepSpec
    place: Place
    n_slots: int | None  # None: a cluster, whose slots are not known yet
    most_hours: float | None

    @property
    def name(self) -> str:
        return self.spec.name

    def cost_text(self) -> str:
        """Say in words what is trained at most, and how long that takes."""
        plan = self.plan
        race = ""
        if plan.has_race:
            race = f"a race of {len(plan.arms)} configurations over {len(plan.race_seeds)} seeds, then "
        baselines = sorted({arm.label for arm in plan.baselines if arm is not None})
        compared = f" and of {' or '.join(_named(label) for label in baselines)}" if baselines else ""
        dropping = ", fewer if a clear loser is dropped" if plan.has_race and len(plan.race_seeds) > FIRST_LOOK else ""
        text = (
            f"At most {plan.most_trainings} trainings{dropping}: {race}{len(plan.seeds)} seeds of the winner{compared}."
        )
        if self.most_hours is None:
            return f"{text} How long that takes is not known."
        slots = (
            ", one after another"
            if self.n_slots is None
            else f" on {self.n_slots} slots"
            if self.n_slots > 1
            else " on one slot"
        )
        return f"{text} {_duration(self.most_hours)}{slots}."


def prepare_verification(
    name: str,
    *,
    top: int = 3,
    n_seeds: int = 5,
    n_race_seeds: int = 3,
    baseline: str | None = None,
    view: View | None = None,
    results: str | None = None,
) -> Verification:
    """Plan a verification and tell what it costs. Nothing is stored yet.

    Raises:
        SweepNameError: there is no such sweep, or an earlier verification of it is not finished.
        ResultsError: it has no COMPLETE trial, or the baseline is not there.
    """
    view = view or lines()
    url = existing(url_of(results), say=view.say)
    known = open_results(url)
    spec = known.spec(name)
    _refuse_unfinished(known, name)
    if is_driven(name, url=url):
        view.say(f"{name} still runs: its best trials may yet change.")
    plan = make_plan(known, name, top=top, n_seeds=n_seeds, n_race_seeds=n_race_seeds, baseline=baseline, say=view.say)
    verifying = verification_spec(spec, plan, _new_name(known, name))
    slots = slots_here(verifying, PlainView(lambda line: None))  # what there is to say of them is said as it begins
    seconds = _most_seconds(known, plan)
    n_slots = slots.n_slots if slots else None
    return Verification(
        plan,
        verifying,
        Place(url, known.artifact_dir(name).parent / verifying.name),
        n_slots,
        None if seconds is None else seconds / 3600 / (n_slots or 1),
    )


def verify(verification: Verification, *, view: View | None = None, backend: BackendName = "ray") -> SweepEnd:
    """Begin a verification and drive it to its end. Raises what `sweeps.run` raises, DataError for changed data."""
    known = open_results(verification.place.url)
    about: Mapping[str, Any] = {VERIFICATION: verification.plan.model_dump(mode="json")}
    return begin(
        verification.spec,
        verification.place,
        view=view or lines(),
        backend=backend,
        like=known.provenance(verification.plan.of),
        grid=known.grid(verification.plan.of),
        about=about,
    )


def _refuse_unfinished(known: Results, name: str) -> None:
    frame = known.sweeps().set_index("sweep")
    for earlier in verifications(known, name):
        if frame.loc[earlier, "state"] not in (SweepState.FINISHED, SweepState.FAILED):
            raise SweepNameError(
                f"{earlier}, a verification of {name}, is not finished. Go on with it: finesweep resume {earlier}. "
                f"Or give it up: finesweep delete {earlier}."
            )


def _new_name(known: Results, name: str) -> str:
    """Call it NAME-verify, NAME-verify-2, ...: the first that is not taken."""
    taken = set(known.sweeps()["sweep"])
    n = 1
    while True:
        suffix = "-verify" if n == 1 else f"-verify-{n}"
        new = f"{name[: MOST_LETTERS - len(suffix)]}{suffix}"
        if new not in taken:
            return new
        n += 1


def _most_seconds(known: Results, plan: VerificationPlan) -> float | None:
    """Add up what all trainings take if none is dropped, by how long the trials of their configurations took."""
    trials = known.trials(plan.of).set_index("number")["duration_s"]
    took = {arm.label: trials.get(arm.trial) for arm in (*plan.arms, *plan.baselines) if arm and arm.trial is not None}
    seconds = {label: float(found) for label, found in took.items() if found is not None and not pd.isna(found)}
    if not seconds:
        return None
    usual = sum(seconds.values()) / len(seconds)  # of what was never trained
    raced = [seconds.get(arm.label, usual) for arm in plan.arms]
    baselines = [seconds.get(arm.label, usual) for arm in plan.baselines if arm is not None]
    race = len(plan.race_seeds) * sum(raced) if plan.has_race else 0.0
    return race + len(plan.seeds) * (max(raced) + max(baselines, default=0.0))


def _named(label: str) -> str:
    return f"the {label}" if label == DEFAULTS else label


def _duration(hours: float) -> str:
    minutes = round(hours * 60)
    if minutes < 1:
        return "Less than a minute"
    return f"About {minutes} min" if minutes < 90 else f"About {hours:.1f} h"
