"""What is allowed in a sweep but may not be meant. In: a spec without faults. Out: findings by key path."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from finesweep.events import Value
from finesweep.spec.capabilities import sampler_notes
from finesweep.spec.faults import Finding
from finesweep.spec.function_rules import function_notes
from finesweep.spec.model_rules import model_notes, possible_values
from finesweep.spec.objective_rules import cost_notes, objective_notes
from finesweep.spec.reference_rules import absent_parameters
from finesweep.spec.settings import has_effect
from finesweep.spec.space import fixed_settings, space_size
from finesweep.spec.space_rules import ROOT, Space
from finesweep.spec.study import NoPruner
from finesweep.spec.sweep import (
    GENERATION_METRICS,
    METRICS,
    DataSpec,
    FunctionSweep,
    SweepSpec,
    Task,
    TransformersSweep,
    columns_of,
)


def find_notes(spec: SweepSpec) -> Iterator[Finding]:
    """Say what is allowed but may not be meant. Only for a spec without faults."""
    study, parameters = spec.study, spec.study.parameters
    fixed = fixed_settings(spec.training, parameters)
    yield from sampler_notes(
        study.sampler,
        parameters,
        prunes=not isinstance(study.pruner, NoPruner),
        n_trials=spec.budget.trials,
        n_objectives=len(study.objectives),
    )
    yield from _size_notes(spec, fixed)
    for name in absent_parameters(Space(parameters, frozenset(), fixed)):
        yield Finding((*ROOT, name), "no trial of this sweep has this parameter: a fixed setting keeps it out.")
    if isinstance(spec, TransformersSweep):
        yield from _training_notes(spec, fixed)
    if isinstance(spec, FunctionSweep):
        yield from function_notes(spec)


def _training_notes(spec: TransformersSweep, fixed: Mapping[str, Value]) -> Iterator[Finding]:
    study = spec.study
    compares = not isinstance(study.pruner, NoPruner) and study.pruner.compare_at == "examples"
    if compares and "epochs" in study.parameters:
        message = (
            "trials are compared after the same number of examples while epochs is searched, which favours short"
            " schedules: they have annealed earlier. `compare_at: progress` compares at equal shares of each schedule."
        )
        yield Finding(("study", "pruner", "compare_at"), message)
    yield from objective_notes(study, {**METRICS[spec.task], **GENERATION_METRICS})
    yield from cost_notes(study)
    yield from _data_notes(spec.data, spec.task)
    yield from model_notes(spec, possible_values(study.parameters, fixed))
    if "method" in fixed:
        for name in sorted(spec.training.model_fields_set):
            if not has_effect(name, method=fixed["method"]):
                yield Finding(("training", name), f"this has no effect: the method is {fixed['method']}.")


def _size_notes(spec: SweepSpec, fixed: Mapping[str, Value]) -> Iterator[Finding]:
    size = space_size(spec.study.parameters, fixed=fixed)
    at = ("budget", "trials")
    if size is not None and size < spec.budget.trials:
        message = f"the space has only {size} configurations: the sweep ends after them, before {spec.budget.trials}."
        yield Finding(at, message)
    elif size is not None and size > spec.budget.trials and spec.study.sampler.type == "grid":
        yield Finding(at, f"the grid has {size} configurations; {spec.budget.trials} trials leave the others out.")


def _data_notes(data: DataSpec, task: Task) -> Iterator[Finding]:
    if data.validation == data.train:
        yield Finding(
            ("data", "validation"), "these are the training rows: trials are judged by rows they learned from."
        )
    if isinstance(data.test, str) and data.test in (data.train, data.validation):
        yield Finding(("data", "test"), "these rows are used by trials; a test set should be rows that none has seen.")
    used = columns_of(data, task)
    for name in ("text", "text_pair", "label", "prompt", "completion", "messages", "format"):
        if name in data.model_fields_set and name not in used and not (name == "format" and task == "causal-lm"):
            yield Finding(("data", name), f"this has no effect for task {task}.")
