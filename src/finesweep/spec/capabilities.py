"""What each sampler can do with a space, checked against optuna 5.0 (a test keeps the table true). Pure data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from finesweep.spec.faults import Finding
from finesweep.spec.parameters import (
    BranchedParameter,
    CategoricalParameter,
    DerivedParameter,
    FloatParameter,
    IntParameter,
    Parameter,
    Parameters,
)
from finesweep.spec.space import n_values, space_size
from finesweep.spec.study import SamplerSpec

LARGEST_GRID = 100_000  # optuna's GridSampler lists every point, and goes through the list at every trial


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a sampler understands. What it does not is drawn at random by Optuna, unless `refuses` says otherwise."""

    learns: bool = True  # from earlier trials; qmc, random and grid never look at results
    learns_from_pruned: bool = False
    conditions: bool = False  # parameters that not every trial has, branches among them
    categories: bool = True
    continuous: bool = True
    several_objectives: bool = True
    is_modelled: bool = False  # draws at random until `startup_trials` are there to learn from


CAPABILITIES: Mapping[str, Capabilities] = {
    "tpe": Capabilities(learns_from_pruned=True, conditions=True, is_modelled=True),  # multivariate, in groups
    "gp": Capabilities(is_modelled=True),  # fits COMPLETE only, on the parameters that all completed trials share
    "cmaes": Capabilities(  # consider_pruned_trials
        learns_from_pruned=True, categories=False, several_objectives=False, is_modelled=True
    ),
    "nsga2": Capabilities(is_modelled=True),  # a generation is bred from COMPLETE trials
    "qmc": Capabilities(learns=False),  # the first trial's parameters span the sequence
    "random": Capabilities(learns=False, conditions=True),
    "grid": Capabilities(learns=False, conditions=False, continuous=False),
}


def sampler_faults(sampler: SamplerSpec, parameters: Parameters) -> Iterator[Finding]:
    """Find what a sampler cannot do with a space at all."""
    at = ("study", "sampler", "type")
    if sampler.type == "grid":
        yield from _grid_faults(parameters)
    if sampler.type == "cmaes" and not any(_is_numeric(p) and p.when is None for p in parameters.values()):
        yield Finding(
            at,
            "sampler cmaes moves through numbers that every trial has, and this space has none: all would be drawn at"
            " random. Use tpe.",
        )


def _grid_faults(parameters: Parameters) -> Iterator[Finding]:
    found = False
    for name, parameter in parameters.items():
        at = ("study", "parameters", name)
        if isinstance(parameter, BranchedParameter) or parameter.when is not None:
            found = True
            yield Finding(at, "sampler grid cannot have parameters that only some trials have. Use tpe or random.")
        elif isinstance(parameter, FloatParameter) and parameter.step is None:
            found = True
            yield Finding(at, "sampler grid needs a `step` or choices: a continuous range has no end of values.")
    size = None if found else space_size(parameters)
    if size is not None and size > LARGEST_GRID:
        message = f"the grid has {size} configurations; at most {LARGEST_GRID} are possible. Use coarser steps, or tpe."
        yield Finding(("study", "sampler", "type"), message)


def sampler_notes(
    sampler: SamplerSpec, parameters: Parameters, *, prunes: bool, n_trials: int, n_objectives: int = 1
) -> Iterator[Finding]:
    """Find what a sampler does poorly with a space."""
    can = CAPABILITIES[sampler.type]
    at = ("study", "sampler", "type")
    if prunes and can.learns and not can.learns_from_pruned:
        who = "tpe and cmaes do" if n_objectives == 1 else "tpe does"
        yield Finding(at, f"sampler {sampler.type} learns nothing from pruned trials; {who}.")
    if can.is_modelled and sampler.startup_trials >= n_trials:
        message = (
            f"the first {sampler.startup_trials} trials (`startup_trials`) are drawn at random, and the budget is"
            f" {n_trials}: sampler {sampler.type} is never asked. Lower it, or give more trials."
        )
        yield Finding(("study", "sampler", "startup_trials"), message)
    sampled = {name: p for name, p in parameters.items() if not isinstance(p, DerivedParameter)}
    if sampler.type != "grid" and not can.conditions:
        partial = [name for name, p in sampled.items() if p.when is not None or isinstance(p, BranchedParameter)]
        if partial:
            message = f"sampler {sampler.type} draws at random what only some trials have: {', '.join(partial)}."
            yield Finding(at, f"{message} tpe searches it.")
    if not can.categories:
        categories = [name for name, p in sampled.items() if isinstance(p, CategoricalParameter)]
        if categories:
            yield Finding(
                at, f"sampler {sampler.type} draws choices at random: {', '.join(categories)}. tpe searches them."
            )


def _is_numeric(parameter: Parameter) -> bool:
    return isinstance(parameter, FloatParameter | IntParameter) and n_values(parameter) != 1
