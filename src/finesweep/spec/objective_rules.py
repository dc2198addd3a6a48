"""Rules about what trials are judged by: metrics that are measured, costs, several objectives at once.

In: the objectives that could be read, by key path, and the sections they touch. Out: findings.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from finesweep.spec.capabilities import CAPABILITIES
from finesweep.spec.faults import Finding, KeyPath, unknown
from finesweep.spec.study import MetricDirection, NoPruner, Objective, SamplerSpec, StudySpec
from finesweep.spec.sweep import COSTS, Resources

AT: KeyPath = ("study", "objective")
_TIME = "train_seconds"
_CHANGED_BY: Mapping[str, frozenset[str]] = {  # a cost that trials of one sweep differ in only by these settings
    "trainable_parameters": frozenset(("method", "unfrozen_layers", "lora_rank", "lora_target_modules")),
    "model_mib": frozenset(("method", "lora_rank", "lora_target_modules")),
}
_OTHER_COSTS = " or ".join(name for name in COSTS if name != _TIME)


def objective_paths(objective: Any) -> dict[KeyPath, Any]:  # Any: whatever stands in a file
    """Give each objective under its key path: a single one may stand there without a list."""
    if isinstance(objective, Sequence) and not isinstance(objective, str):
        return {(*AT, index): one for index, one in enumerate(objective)}
    return {AT: objective}


def metric_faults(objectives: Mapping[KeyPath, Objective], *, known: Collection[str], task: str) -> Iterator[Finding]:
    """Find metrics that no report holds, and a cost in the lead."""
    for path, objective in objectives.items():
        at = (*path, "metric")
        leads = path in (AT, (*AT, 0))
        if leads and objective.metric in COSTS:
            message = (
                f"{objective.metric} is a cost and says nothing of how good a trial is: the first objective must, since"
                f" trials are pruned by it. Put one of these first, and the cost after it: {', '.join(sorted(known))}."
            )
            yield Finding(at, message)
        elif objective.metric not in known and objective.metric not in COSTS:
            fitting = known if leads else (*known, *COSTS)
            yield Finding(at, unknown("metric", objective.metric, fitting, verb=f"is not measured for task {task}"))


def several_faults(objectives: Mapping[KeyPath, Objective], sampler: SamplerSpec | None) -> Iterator[Finding]:
    """Find what cannot stand together in one study."""
    (_, leading), *others = objectives.items()
    seen = {leading.metric}
    for path, objective in others:
        if objective.metric in seen:
            yield Finding((*path, "metric"), f"{objective.metric} is an objective already. Remove one of the two.")
        seen.add(objective.metric)
        if objective.value != leading.value:
            message = (
                f"value is {objective.value}, but that of {leading.metric} is {leading.value}: all values of a trial"
                f" are those of one step, which {leading.metric} chooses. Give both the same."
            )
            yield Finding((*path, "value"), message)
    if others and sampler is not None and not CAPABILITIES[sampler.type].several_objectives:
        able = [name for name, can in CAPABILITIES.items() if can.several_objectives and can.learns]
        message = f"sampler {sampler.type} knows one objective only. Use {', '.join(able)}, or give one objective."
        yield Finding(("study", "sampler", "type"), message)


def time_faults(objectives: Mapping[KeyPath, Objective], resources: Resources) -> Iterator[Finding]:
    """Find time as an objective where trials would slow each other down."""
    problem = _why_no_time(resources)
    for path, objective in objectives.items():
        if objective.metric == _TIME and problem is not None:
            yield Finding((*path, "metric"), f"{_TIME} cannot be compared between these trials: {problem}")


def _why_no_time(resources: Resources) -> str | None:
    if resources.address is not None:
        return f"the machines of a cluster differ. Leave out resources.address, or use {_OTHER_COSTS}."
    if resources.devices == "cpu":
        if resources.max_parallel == 1:
            return None
        return f"several share the CPU. Set resources.max_parallel to 1, or use {_OTHER_COSTS}."
    if resources.gpus_per_trial == 1:
        return None
    return f"several share a device. Set resources.gpus_per_trial to 1, or use {_OTHER_COSTS}."


def needs_time(study: StudySpec) -> bool:
    """Tell whether trials are judged by how long they take."""
    return any(objective.metric == _TIME for objective in study.objectives)


def objective_notes(study: StudySpec, directions: Mapping[str, MetricDirection]) -> Iterator[Finding]:
    """Say what is allowed but may not be meant. `directions` tells which way known metrics are better."""
    is_one = len(study.objectives) == 1
    for index, objective in enumerate(study.objectives):
        better = {**directions, **COSTS}.get(objective.metric, objective.direction)
        if objective.direction != better:
            message = f"{objective.metric} is better the other way: did you mean `direction: {better}`?"
            yield Finding((*AT, "direction") if is_one else (*AT, index, "direction"), message)
    if not is_one and not isinstance(study.pruner, NoPruner):
        message = (
            f"trials are pruned by {study.objective.metric} alone, also those that the other objectives would have put"
            " on the front. `type: none` trains every trial to its end."
        )
        yield Finding(("study", "pruner"), message)


def cost_notes(study: StudySpec) -> Iterator[Finding]:
    """Find costs that are the same for all trials."""
    for index, objective in enumerate(study.objectives):
        changed_by = _CHANGED_BY.get(objective.metric)
        if changed_by is not None and not changed_by & study.parameters.keys():
            names = ", ".join(sorted(changed_by))
            message = f"{objective.metric} is the same for all trials: the study searches none of {names}."
            yield Finding((*AT, index), message)
