"""Verify a sweep: its best configurations trained again, as a sweep of its own in the same database.

Puts together what `verification` plans and `sweeps` drives. Ctrl-C, crashes, leases, logs: as of any other sweep.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from finesweep.driver import SweepEnd, View
from finesweep.errors import ResultsError, SweepNameError
from finesweep.results.frames import Results, open_results
from finesweep.results.schema import SweepState
from finesweep.spec.prices import cost_of, tokens_text
from finesweep.spec.sweep import RemoteSweep, SweepSpec
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
    """A verification that can begin.

    `most_hours` is what it takes at most, `most_tokens` what its jobs train if it has such; None where it is not known.
    """

    plan: VerificationPlan
    spec: SweepSpec
    place: Place
    n_slots: int | None  # None: a cluster, whose slots are not known yet
    most_hours: float | None
    most_tokens: int | None = None

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
        text += self._jobs_text()
        if self.most_hours is None:
            return f"{text} How long that takes is not known."
        slots = (
            f" with {self.n_slots} jobs at a time"
            if isinstance(self.spec, RemoteSweep)
            else ", one after another"
            if self.n_slots is None
            else f" on {self.n_slots} slots"
            if self.n_slots > 1
            else " on one slot"
        )
        return f"{text} {_duration(self.most_hours)}{slots}."

    def _jobs_text(self) -> str:
        """Say what is paid for where trainings are jobs of a server."""
        if not isinstance(self.spec, RemoteSweep):
            return ""
        left = self.spec.budget.tokens
        limit = "" if left is None else f" No more than {left:,}, what is left of the sweep's budget."
        if self.most_tokens is None:
            return f" They are jobs of a server, and cost what it asks for them: how much is not known.{limit}"
        money = cost_of(self.most_tokens, self.spec.remote.price_per_million)
        return f" They are jobs of a server: about {tokens_text(self.most_tokens, money)}.{limit}"


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
        ResultsError: it has no COMPLETE trial, the baseline is not there, or what is left of a budget of tokens or
            money is too little.
    """
    view = view or lines()
    url = existing(url_of(results), say=view.say)
    known = open_results(url)
    spec = known.spec(name)
    _refuse_unfinished(known, name)
    if is_driven(name, url=url):
        view.say(f"{name} still runs: its best trials may yet change.")
    plan = make_plan(known, name, top=top, n_seeds=n_seeds, n_race_seeds=n_race_seeds, baseline=baseline, say=view.say)
    trials = known.trials(name).set_index("number")
    seconds, tokens, left = _most(plan, trials["duration_s"]), None, None
    if isinstance(spec, RemoteSweep):
        tokens = _most(plan, trials["trained_tokens"])
        left = _tokens_left(known, spec, tokens)
    verifying = verification_spec(spec, plan, _new_name(known, name), tokens=left)
    slots = slots_here(verifying, PlainView(lambda line: None))  # what there is to say of them is said as it begins
    n_slots = slots.n_slots if slots else None
    return Verification(
        plan,
        verifying,
        Place(url, known.artifact_dir(name).parent / verifying.name),
        n_slots,
        None if seconds is None else seconds / 3600 / (n_slots or 1),
        None if tokens is None else math.ceil(tokens),
    )


def verify(verification: Verification, *, view: View | None = None, backend: BackendName = "ray") -> SweepEnd:
    """Begin a verification and drive it to its end. Raises what `sweeps.run` raises, DataError for changed data."""
    known = open_results(verification.place.url)
    about: Mapping[str, Any] = {VERIFICATION: verification.plan.model_dump(mode="json")}
    if isinstance(verification.spec, RemoteSweep):
        from finesweep.remote.budget import hand_on

        hand_on(known.artifact_dir(verification.plan.of), verification.place.artifact_dir)
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


def _tokens_left(known: Results, spec: RemoteSweep, wanted: float | None) -> int | None:
    """Tell what the jobs of a verification may take of the sweep's budget. Raises ResultsError if it is too little."""
    from finesweep.remote.budget import budget_tokens, tokens_left

    folders = [known.artifact_dir(name) for name in (spec.name, *verifications(known, spec.name))]
    left, limit = tokens_left(spec, folders), budget_tokens(spec)
    if left is None or limit is None or left >= (wanted or 1):
        return left
    lacking = limit - left + math.ceil(wanted or 1)
    money = None if spec.budget.money is None else cost_of(lacking, spec.remote.price_per_million)
    total = f"--tokens {lacking}" if money is None else f"--money {money:.2g}"
    raise ResultsError(
        f"the verification of {spec.name!r} trains about {math.ceil(wanted or 1):,} tokens, and of the {limit:,} of "
        f"the sweep's budget {left:,} are left. Raise it: finesweep extend {spec.name} {total}. Or verify less: fewer "
        "--seeds, --race-seeds or --top."
    )


def _most(plan: VerificationPlan, took: pd.Series[Any]) -> float | None:
    """Add up what all trainings take if none is dropped, by what the trials of their configurations took, by number."""
    arms = [arm for arm in (*plan.arms, *plan.baselines) if arm is not None and arm.trial is not None]
    told = {arm.label: took.get(arm.trial) for arm in arms}
    known = {label: float(found) for label, found in told.items() if found is not None and not pd.isna(found)}
    if not known:
        return None
    usual = sum(known.values()) / len(known)  # of what was never trained
    raced = [known.get(arm.label, usual) for arm in plan.arms]
    baselines = [known.get(arm.label, usual) for arm in plan.baselines if arm is not None]
    race = len(plan.race_seeds) * sum(raced) if plan.has_race else 0.0
    return race + len(plan.seeds) * (max(raced) + max(baselines, default=0.0))


def _named(label: str) -> str:
    return f"the {label}" if label == DEFAULTS else label


def _duration(hours: float) -> str:
    minutes = round(hours * 60)
    if minutes < 1:
        return "Less than a minute"
    return f"About {minutes} min" if minutes < 90 else f"About {hours:.1f} h"
