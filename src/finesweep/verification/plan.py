"""What a verification trains: which configurations, over which seeds, as a sweep of its own.

In: a sweep's results, how many configurations and seeds. Out: a `VerificationPlan`, which is stored with the new sweep,
and that sweep's spec. It must not know how trainings end.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count, islice
from typing import Any

from pydantic import Field, ValidationError

from finesweep.errors import ResultsError, SpecError
from finesweep.events import Configuration, TrialState, Value
from finesweep.results.frames import Results, TrialResult, ranked
from finesweep.spec.parameters import (
    Branch,
    BranchedParameter,
    CategoricalParameter,
    Int,
    IntParameter,
    Model,
    Parameter,
    Range,
)
from finesweep.spec.settings import trial_settings
from finesweep.spec.space import default_configuration, fixed_settings, same
from finesweep.spec.study import NoPruner, SamplerSpec
from finesweep.spec.sweep import AUTO, RemoteSweep, SweepName, SweepSpec, TransformersSweep

VERIFICATION = "verification"  # the key of a plan in a sweep's provenance
DEFAULTS = "defaults"
NO_BASELINE = "none"
SEED = "seed"
MOST_SEEDS = 1000
_N_SEEDS_THERE_ARE = 2**32


class Arm(Model):
    """A configuration that is trained with one seed after another."""

    label: str = Field(pattern=r"^(defaults|trial \d+)$")
    trial: Int | None = None  # of the sweep that is verified; None: it was not tried there
    configuration: Mapping[str, str | int | float | bool | None]
    search_value: float | None = None  # what the search said of it


class VerificationPlan(Model):
    """What is trained. Arms are best first, as the search saw them."""

    of: SweepName
    created_at: str  # when that sweep began: a later one of its name is another one
    arms: tuple[Arm, ...] = Field(min_length=1)
    baselines: tuple[Arm | None, ...]  # of each arm: what it is compared with if it wins the race
    race_seeds: tuple[Int, ...] = Field(max_length=MOST_SEEDS)
    seeds: tuple[Int, ...] = Field(min_length=1, max_length=MOST_SEEDS)

    @property
    def has_race(self) -> bool:
        return len(self.arms) > 1

    @property
    def most_trainings(self) -> int:
        """Count the trainings that there are if the race drops nothing."""
        race = len(self.arms) * len(self.race_seeds) if self.has_race else 0
        return race + len(self.seeds) * (2 if any(self.baselines) else 1)


def plan_of(provenance: Mapping[str, Any]) -> VerificationPlan | None:
    """Read the plan that is stored with a sweep; None of one that is no verification. Raises ResultsError."""
    stored = provenance.get(VERIFICATION)
    if stored is None:
        return None
    try:
        return VerificationPlan.model_validate(stored)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ResultsError(
            f"what the database says of a verification is no plan: {where}: {first['msg']}. Delete that sweep, and "
            "verify again."
        ) from error


def verifications(results: Results, sweep: str) -> tuple[str, ...]:
    """Name the verifications of a sweep, oldest first."""
    frame = results.sweeps()
    return tuple(str(name) for name in frame.loc[frame["verifies"] == sweep, "sweep"])


def make_plan(
    results: Results,
    sweep: str,
    *,
    top: int,
    n_seeds: int,
    n_race_seeds: int,
    baseline: str | None = None,
    say: Callable[[str], None],
) -> VerificationPlan:
    """Choose what is to be trained.

    Args:
        top: how many of the best configurations; with one there is no race.
        baseline: "defaults", "none" or the number of a trial; None: the defaults where there are any.

    Raises ResultsError for a sweep without a COMPLETE trial, or a baseline that is not there.
    """
    spec = results.spec(sweep)
    if plan_of(results.provenance(sweep)) is not None:
        raise ResultsError(f"sweep {sweep!r} is a verification itself. Verify the sweep whose trials it repeated.")
    arms = _best_arms(results, spec, top)
    if not arms:
        raise ResultsError(f"sweep {sweep!r} has no COMPLETE trial to verify yet. Let it run, or resume it.")
    if len(arms) < top:
        say(f"{sweep} has {len(arms)} COMPLETE configurations, not {top}: these are verified.")
    used = {spec.training.seed, *_seeds_used(results, sweep)}
    fresh = (seed % _N_SEEDS_THERE_ARE for seed in count(spec.training.seed + 1))
    n_race = n_race_seeds if len(arms) > 1 else 0
    seeds = list(islice((seed for seed in fresh if seed not in used), n_race + n_seeds))
    return VerificationPlan(
        of=sweep,
        created_at=created_at(results, sweep),
        arms=tuple(arms),
        baselines=_baselines(results, spec, arms, baseline, say),
        race_seeds=tuple(seeds[:n_race]),
        seeds=tuple(seeds[n_race:]),
    )


def created_at(results: Results, sweep: str) -> str:
    """Tell when a sweep was begun, as text that is the same each time."""
    frame = results.sweeps().set_index("sweep")
    return str(frame.loc[sweep, "created_at"])


def verification_spec(spec: SweepSpec, plan: VerificationPlan, name: str, *, tokens: int | None = None) -> SweepSpec:
    """Make the sweep that trains a plan: the one that is verified, with no sampler to ask and nothing pruned.

    Parameters can take the values of the plan's configurations alone, defaults outside their ranges among them.
    `tokens` is what its jobs, if they are such, may take: what is left of the budget of the sweep that is verified.
    """
    arms = [*plan.arms, *(arm for arm in plan.baselines if arm is not None)]
    fixed = fixed_settings(spec.training, spec.study.parameters)
    parameters: dict[str, Parameter] = {
        parameter: _restricted(parameter, whole, [arm.configuration for arm in arms], fixed)
        for parameter, whole in spec.study.parameters.items()
    }
    parameters[SEED] = IntParameter(type="int", low=0, high=_N_SEEDS_THERE_ARE - 1)
    study = spec.study.model_copy(
        update={
            "sampler": SamplerSpec(type="random"),
            "pruner": NoPruner(type="none", compare_at=spec.study.pruner.compare_at),
            "parameters": parameters,
        }
    )
    return spec.model_copy(
        update={
            "name": name,
            "study": study,
            "start_with": (),
            "try_defaults": False,
            "budget": spec.budget.model_copy(
                update={"trials": plan.most_trainings, "hours": None, "tokens": tokens, "money": None}
            ),
            "resources": spec.resources.model_copy(update={"stack": 1}),
            "artifacts": spec.artifacts.model_copy(update={"keep": "best"}),
        }
    )


def key_of(configuration: Configuration) -> str:
    """Make configurations that are equal but for their seed equal strings."""
    return json.dumps({name: value for name, value in configuration.items() if name != SEED}, sort_keys=True)


def _best_arms(results: Results, spec: SweepSpec, top: int) -> list[Arm]:
    """Take the best distinct configurations that were trained to their end."""
    complete = ranked(results.trials(spec.name))
    rank = spec.study.objective.rank
    ordered = sorted(zip(complete["number"], complete["value"], strict=True), key=lambda found: rank(*found))
    arms: dict[str, Arm] = {}
    for number, value in ordered:
        if len(arms) == top:
            break
        configuration = results.trial(spec.name, int(number)).configuration
        arm = _arm(int(number), configuration, float(value))
        arms.setdefault(key_of(configuration), arm)
    return list(arms.values())


def _arm(number: int, configuration: Configuration, value: float | None) -> Arm:
    return Arm(label=f"trial {number}", trial=number, configuration=dict(configuration), search_value=value)


def _baselines(
    results: Results, spec: SweepSpec, arms: Sequence[Arm], baseline: str | None, say: Callable[[str], None]
) -> tuple[Arm | None, ...]:
    if baseline == NO_BASELINE:
        return (None,) * len(arms)
    if baseline is not None and baseline != DEFAULTS:
        return (_baseline_trial(results, spec, baseline),) * len(arms)
    if isinstance(spec, RemoteSweep):  # whose defaults are paid for like others: only if they are asked for
        return (_auto_arm(results, spec) if baseline == DEFAULTS else None,) * len(arms)
    if not isinstance(spec, TransformersSweep):
        if baseline == DEFAULTS:
            raise ResultsError(
                "--baseline defaults: a trainer of your own has no defaults that finesweep knew of. Name a trial to "
                "compare with: --baseline N."
            )
        return (None,) * len(arms)
    found = [_default_arm(results, spec, arm) for arm in arms]
    problems = {problem for problem in found if isinstance(problem, str)}
    if problems:
        say(f"No comparison with the library's defaults: {sorted(problems)[0]}")
        return (None,) * len(arms)
    return tuple(arm for arm in found if isinstance(arm, Arm))


def _baseline_trial(results: Results, spec: SweepSpec, baseline: str) -> Arm:
    if not baseline.isdecimal() or len(baseline) > 9:
        raise ResultsError(f"--baseline {baseline}: write {DEFAULTS}, {NO_BASELINE} or the number of a trial.")
    trial: TrialResult = results.trial(spec.name, int(baseline))
    return _arm(trial.number, trial.configuration, trial.value)


def _auto_arm(results: Results, spec: RemoteSweep) -> Arm:
    """Leave to the server whatever was searched."""
    return _defaults(results, spec, dict.fromkeys(spec.study.parameters, AUTO))


def _default_arm(results: Results, spec: TransformersSweep, winner: Arm) -> Arm | str:
    """Give the library's default configuration for the method of a winner; or say why it cannot be trained."""
    method = winner.configuration.get("method", spec.training.method)
    configuration = default_configuration(spec, method)
    try:
        trial_settings(spec.training, configuration)
    except SpecError as error:
        return str(error.faults[0])
    return _defaults(results, spec, configuration)


def _defaults(results: Results, spec: SweepSpec, configuration: Configuration) -> Arm:
    """Make the arm of a default configuration, with what the search found of it if it tried it."""
    known = _tried(results, spec, configuration)
    return Arm(
        label=DEFAULTS,
        trial=known.number if known else None,
        configuration=configuration,
        search_value=known.value if known else None,
    )


def _tried(results: Results, spec: SweepSpec, configuration: Configuration) -> TrialResult | None:
    """Find the trial of a configuration that was trained to its end."""
    wanted = key_of(configuration)
    complete = [record for record in results.history(spec.name).trials if record.state is TrialState.COMPLETE]
    found = (record.number for record in complete if key_of(record.configuration) == wanted)
    number = next(found, None)
    return None if number is None else results.trial(spec.name, number)


def _seeds_used(results: Results, sweep: str) -> Iterable[int]:
    """List the seeds of earlier verifications: another one is to tell something new."""
    for name in verifications(results, sweep):
        plan = plan_of(results.provenance(name))
        if plan is not None:
            yield from (*plan.race_seeds, *plan.seeds)


def _restricted(
    name: str, parameter: Parameter, configurations: Sequence[Configuration], fixed: Configuration
) -> Parameter:
    """Let a parameter take the values that it has in configurations, and no other; one that none has stays as it is."""
    match parameter:
        case BranchedParameter():
            branches = {
                key: _chosen(
                    branch,
                    [c[name] for c in configurations if name in c and str({**fixed, **c}.get(parameter.by)) == key],
                )
                for key, branch in parameter.branches.items()
            }
            return parameter.model_copy(update={"branches": branches})
        case _:
            return _chosen(parameter, [c[name] for c in configurations if name in c])


def _chosen(parameter: Branch, values: Sequence[Value]) -> Branch:
    if not isinstance(parameter, Range) or not values:
        return parameter
    distinct: list[Value] = []
    for value in values:
        if not any(same(value, earlier) for earlier in distinct):
            distinct.append(value)
    return CategoricalParameter(type="categorical", choices=tuple(distinct), when=parameter.when)
