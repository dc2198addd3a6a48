"""Rules between the sections of a sweep.

In: the sections that could be read. Out: findings by key path. Knows nothing of files and lines.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from finesweep.events import Value
from finesweep.spec.artifact_rules import artifact_faults
from finesweep.spec.capabilities import sampler_faults
from finesweep.spec.data_rules import data_faults
from finesweep.spec.evaluation_rules import evaluation_faults, measured_metrics, smoothing_faults
from finesweep.spec.faults import Finding, KeyPath, show, unknown
from finesweep.spec.function_rules import function_faults
from finesweep.spec.model_rules import checkpointing_faults, model_faults, pooling_faults, possible_values
from finesweep.spec.objective_rules import metric_faults, objective_paths, several_faults, time_faults
from finesweep.spec.parameters import (
    BranchedParameter,
    CategoricalParameter,
    DerivedParameter,
    IntParameter,
    Parameter,
    Scalar,
)
from finesweep.spec.reference_rules import (
    can_take,
    cycle_faults,
    describe_range,
    existence_faults,
    reference_faults,
)
from finesweep.spec.remote_rules import remote_budget_faults, remote_faults
from finesweep.spec.settings import Settings, name_problem, value_problem
from finesweep.spec.space import active_branch, contains, fixed_settings, is_active
from finesweep.spec.space_rules import ROOT, Space, parameter_faults
from finesweep.spec.study import (
    AshaPruner,
    HyperbandPruner,
    Objective,
    PatientPruner,
    PrunerSpec,
    SamplerSpec,
    ThresholdPruner,
)
from finesweep.spec.sweep import (
    Artifacts,
    Budget,
    DataSpec,
    Evaluation,
    FunctionSettings,
    FunctionSweep,
    ModelSpec,
    Remote,
    RemoteSweep,
    RemoteTraining,
    Resources,
    SweepSpec,
    Task,
    TrainingSpec,
    TransformersSweep,
    sweep_kind,
)

_MOST_PARAMETERS = 200  # rules between parameters look at each with each
_LEAST_SHARE_USED = 0.95  # of a device that trials share: 3 x 0.33 are near enough to one


_SETTINGS: Mapping[type[SweepSpec], type[Settings]] = {
    TransformersSweep: TrainingSpec,
    FunctionSweep: FunctionSettings,
    RemoteSweep: RemoteTraining,
}


@dataclass(frozen=True, slots=True)
class Draft:
    """What could be read of a sweep. A section with faults of its own is None, a parameter is in `unread`."""

    task: Task | None
    model: ModelSpec | None
    objectives: Mapping[KeyPath, Objective]  # those that could be read
    sampler: SamplerSpec | None
    pruner: PrunerSpec | None
    parameters: Mapping[str, Parameter]
    unread: frozenset[str]
    data: DataSpec | None
    training: TrainingSpec | None
    own: FunctionSettings | RemoteTraining | None  # of a trainer of the user's own, or a server; then no `training`
    settings: type[Settings]  # which of the three there should be
    unread_settings: frozenset[str]
    start_with: tuple[Mapping[str, Scalar], ...]
    budget: Budget | None
    resources: Resources | None
    artifacts: Artifacts | None
    evaluation: Evaluation | None
    remote: Remote | None  # of trainer remote

    @property
    def is_own(self) -> bool:
        """Tell whether another trains: the user's own function, or a server."""
        return self.settings is not TrainingSpec

    @property
    def space(self) -> Space:
        return Space(self.parameters, self.unread, self.fixed, self.settings)

    @property
    def fixed(self) -> dict[str, Value]:
        return fixed_settings(self.training or self.own or self.settings(), {*self.parameters, *self.unread})


def read_draft(values: Mapping[str, Any]) -> Draft:
    """Read each section on its own, leaving out what cannot be read."""
    study = values.get("study")
    study = study if isinstance(study, Mapping) else {}
    raw_parameters = study.get("parameters")
    raw_parameters = raw_parameters if isinstance(raw_parameters, Mapping) else {}
    read = {name: _read(Parameter, value) for name, value in raw_parameters.items()}
    objectives = {path: _read(Objective, one) for path, one in objective_paths(study.get("objective")).items()}
    kind = sweep_kind(values)
    settings = _SETTINGS[kind]
    training, unread_settings = _read_training(values.get("training", {}), settings)
    return Draft(
        task=_read(SweepSpec.model_fields["task"].annotation, values.get("task")),
        model=_read(ModelSpec, values.get("model")),
        objectives={path: one for path, one in objectives.items() if one is not None},
        sampler=_read(SamplerSpec, study.get("sampler", {})),
        pruner=_read(PrunerSpec, study.get("pruner", {"type": "none"})),
        parameters={name: parameter for name, parameter in read.items() if parameter is not None},
        unread=frozenset(name for name, parameter in read.items() if parameter is None),
        data=_read(DataSpec, values.get("data")),
        training=training if isinstance(training, TrainingSpec) else None,
        own=training if isinstance(training, FunctionSettings | RemoteTraining) else None,
        settings=settings,
        unread_settings=unread_settings,
        start_with=_read(SweepSpec.model_fields["start_with"].annotation, values.get("start_with", [])) or (),
        budget=_read(Budget, values.get("budget")),
        resources=_read(Resources, values.get("resources", {})),
        artifacts=_read(Artifacts, values.get("artifacts", {})),
        evaluation=_read(Evaluation, values.get("evaluation", {})),
        remote=_read(Remote, values.get("remote")) if kind is RemoteSweep else None,
    )


def _read(kind: Any, value: Any) -> Any:
    """Validate a value; None if that fails."""
    try:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind.model_validate(value)
        return TypeAdapter(kind).validate_python(value)
    except ValidationError:
        return None


def _read_training(value: Any, kind: type[Settings]) -> tuple[Settings | None, frozenset[str]]:
    """Read the settings, leaving out those with faults: the others can still be held to the rules."""
    try:
        return kind.model_validate(value), frozenset()
    except ValidationError as error:
        if not isinstance(value, Mapping):
            return None, frozenset()
        unread = frozenset(str(details["loc"][0]) for details in error.errors())
        return kind.model_validate({k: v for k, v in value.items() if k not in unread}), unread


def find_faults(draft: Draft) -> Iterator[Finding]:
    yield from _space_faults(draft)
    if draft.data is not None:
        yield from data_faults(draft.data, draft.task)
    yield from _objective_faults(draft)
    yield from _pruner_faults(draft)
    yield from _training_faults(draft)
    if draft.settings is RemoteTraining:
        yield from remote_faults(
            draft.objectives, draft.data, draft.evaluation, draft.model, draft.resources, draft.remote
        )
    elif draft.is_own:
        own = draft.own if isinstance(draft.own, FunctionSettings) else None
        yield from function_faults(own, draft.pruner, draft.parameters, draft.evaluation)
    else:
        yield from _task_faults(draft)
        yield from _method_faults(draft)
        yield from _batch_faults(draft)
    yield from _grid_faults(draft)
    yield from _start_faults(draft)
    yield from _resources_faults(draft)
    if draft.budget is not None:
        yield from remote_budget_faults(draft.budget, draft.remote, is_remote=draft.settings is RemoteTraining)
    if draft.artifacts is not None:
        yield from artifact_faults(draft.artifacts, n_objectives=len(draft.objectives), is_own=draft.is_own)


def _space_faults(draft: Draft) -> Iterator[Finding]:
    """Go on to what needs a sound space, such as the sampler, only where it is sound."""
    space = draft.space
    if len(space.names) > _MOST_PARAMETERS:
        message = (
            f"{len(space.names)} parameters are more than there are settings to search. Keep to {_MOST_PARAMETERS}."
        )
        yield Finding(ROOT, message)
        return
    broken = [*parameter_faults(space), *reference_faults(space), *cycle_faults(space)]
    yield from broken
    if broken or space.unread or not space.parameters:
        return
    yield from existence_faults(space)
    if draft.sampler is not None:
        yield from sampler_faults(draft.sampler, space.parameters)


# --- the study ---------------------------------------------------------------------------------------------------


def _task_faults(draft: Draft) -> Iterator[Finding]:
    if draft.task is not None:
        yield from smoothing_faults(draft.task, draft.parameters, draft.fixed)
        if draft.evaluation is not None:
            yield from evaluation_faults(draft.task, draft.evaluation, draft.data)


def _objective_faults(draft: Draft) -> Iterator[Finding]:
    if draft.task is not None and draft.evaluation is not None and not draft.is_own:
        known = measured_metrics(draft.task, draft.evaluation)
        yield from metric_faults(draft.objectives, known=known, task=draft.task)
    if draft.objectives:
        yield from several_faults(draft.objectives, draft.sampler)
    if draft.resources is not None:
        yield from time_faults(draft.objectives, draft.resources)


def _pruner_faults(draft: Draft) -> Iterator[Finding]:
    at = ("study", "pruner")
    match draft.pruner:
        case ThresholdPruner() as pruner:
            yield from _threshold_faults(at, pruner)
        case PatientPruner(then=then, compare_at=compare_at) if then is not None:
            if "compare_at" in then.model_fields_set and then.compare_at != compare_at:
                message = f"this differs from the pruner's own compare_at ({compare_at}). Leave it out here."
                yield Finding((*at, "then", "compare_at"), message)
            if isinstance(then, ThresholdPruner):
                yield from _threshold_faults((*at, "then"), then)


def _threshold_faults(at: KeyPath, pruner: ThresholdPruner) -> Iterator[Finding]:
    if pruner.lower is None and pruner.upper is None:
        yield Finding(at, "a threshold pruner needs `lower` or `upper`, or it stops nothing.")
    elif pruner.lower is not None and pruner.upper is not None and pruner.lower >= pruner.upper:
        message = f"lower ({show(pruner.lower)}) must be below upper ({show(pruner.upper)}). Swap them."
        yield Finding((*at, "lower"), message)


# --- the fixed settings ------------------------------------------------------------------------------------------


def _training_faults(draft: Draft) -> Iterator[Finding]:
    given = draft.training or draft.own
    if given is None:
        return
    values = given.model_dump()
    for name in [name for name in values if name in given.model_fields_set]:
        at = ("training", name)
        value = values[name]
        problem = None if draft.is_own else name_problem(name) or value_problem(name, value)
        if problem is not None:
            yield Finding(at, problem)
        if name in draft.parameters or name in draft.unread:
            message = f"{name} is fixed here ({show(value)}) and searched by the study. Remove it in one of the two."
            yield Finding(at, message)


def _method_faults(draft: Draft) -> Iterator[Finding]:
    """Hold settings to each other that are about one thing: how the weights are loaded, and how warm-up is given."""
    given = {*draft.parameters, *draft.unread}
    if draft.training is not None:
        given |= draft.training.model_fields_set
    if "warmup_steps" in given and "warmup_ratio" in given:
        at = ROOT if "warmup_ratio" in draft.parameters else ("training",)
        message = "warmup_ratio and warmup_steps are two ways to say one thing. Keep one of them."
        yield Finding((*at, "warmup_ratio"), message)
    possible = possible_values(draft.parameters, draft.fixed)
    if draft.model is not None:
        yield from model_faults(draft.model, possible)
    if draft.training is not None:
        yield from checkpointing_faults(draft.training.model_extra or {}, possible.get("method", []))
    if draft.task is not None and not draft.is_own:
        yield from pooling_faults(draft.task, possible, at=ROOT if "pooling" in draft.parameters else ("training",))


def _batch_faults(draft: Draft) -> Iterator[Finding]:
    most = draft.training.device_batch_size if draft.training else None
    if most is None:
        return
    sizes = _batch_sizes(draft)
    wrong = [size for size in sizes if size > most and size % most]
    if wrong:
        listed = ", ".join(str(size) for size in wrong[:5]) + (", ..." if len(wrong) > 5 else "")
        message = (
            f"device_batch_size ({most}) must divide every larger batch_size, but not {listed}. Use a divisor of them,"
            " or batch sizes that are multiples of it."
        )
        yield Finding(("training", "device_batch_size"), message)


def _batch_sizes(draft: Draft) -> list[int]:
    """List the batch sizes that trials can have, from low to high; a derived one is known only to its trial."""
    if "batch_size" in draft.unread or "batch_size" in draft.unread_settings:
        return []
    parameter = draft.parameters.get("batch_size")
    if parameter is None:
        return [draft.training.batch_size] if draft.training else []
    branches = parameter.branches.values() if isinstance(parameter, BranchedParameter) else [parameter]
    sizes: set[int] = set()
    for branch in branches:
        match branch:
            case CategoricalParameter(choices=choices):
                sizes |= {size for size in choices if isinstance(size, int) and not isinstance(size, bool)}
            case IntParameter():
                values = range(branch.low, branch.high + 1, branch.step)
                sizes |= {*values[:_MOST_SIZES], *values[-1:]}
            case DerivedParameter(value=int() as size):
                sizes.add(size)
    return sorted(sizes)


_MOST_SIZES = 10_000  # of an int range: a batch size beyond is no batch size


def _grid_faults(draft: Draft) -> Iterator[Finding]:
    """Hold `eval_every` and the first rung to the axis on which trials are compared."""
    if draft.pruner is None:
        return
    settings = draft.training or draft.own
    every = settings.eval_every if settings else None
    rung = draft.pruner.first_rung if isinstance(draft.pruner, AshaPruner | HyperbandPruner) else None
    rung_at, every_at = ("study", "pruner", "first_rung"), ("training", "eval_every")
    if draft.pruner.compare_at == "progress":
        if every is not None and every > 100:
            message = f"eval_every is {every}, but with `compare_at: progress` it counts percent. Give at most 100."
            yield Finding(every_at, message)
            return
        if rung is not None and rung >= 100:
            message = f"first_rung is {rung}, but with `compare_at: progress` it counts percent, and 100 is the end."
            yield Finding(rung_at, f"{message} Give less.")
    elif every is not None and not draft.is_own:
        largest = max(_batch_sizes(draft), default=1)
        if every < largest:
            message = (
                f"eval_every ({every} examples) must be at least the largest batch_size ({largest}): nothing can be"
                f" reported within a batch. Raise it to {largest} or more."
            )
            yield Finding(every_at, message)
    if every is not None and rung is not None and rung % every:
        below = max(every, rung - rung % every)
        message = f"first_rung ({rung}) must be a multiple of eval_every ({every}), where reports fall. Write {below}."
        yield Finding(rung_at, message)


# --- start_with --------------------------------------------------------------------------------------------------


def _start_faults(draft: Draft) -> Iterator[Finding]:
    if not draft.parameters and not draft.unread:  # the study itself is missing, which is told once
        return
    for index, entry in enumerate(draft.start_with):
        if not entry:
            yield Finding(("start_with", index), "this configuration is empty. Name a parameter and its value.")
        for name, value in entry.items():
            at = ("start_with", index, name)
            if name in draft.parameters:
                problem = _start_problem(draft, entry, name, value)
                if problem:
                    yield Finding(at, problem)
            elif name not in draft.unread:
                fixed = " It is a fixed setting." if name in draft.fixed else ""
                yield Finding(at, unknown("parameter", name, (*draft.parameters, *draft.unread)) + fixed)


def _start_problem(draft: Draft, entry: Mapping[str, Scalar], name: str, value: Scalar) -> str | None:
    parameter = draft.parameters[name]
    known = {**draft.fixed, **entry}
    told = {other: allowed for other, allowed in (parameter.when or {}).items() if other in known}
    if not is_active(told, known):
        case = ", ".join(f"{other} is {show(known[other])}" for other in told)
        return f"{name} does not exist where {case}. Remove it from this configuration."
    if isinstance(parameter, BranchedParameter):
        if parameter.by not in known:
            fits = can_take(parameter, value)
            return None if fits else f"{show(value)} lies in no branch of {name}. Name {parameter.by} too, and mend it."
        branch = active_branch(parameter.model_copy(update={"when": None}), known)
        if branch is None:
            return f"{name} does not exist where {parameter.by} is {show(known[parameter.by])}. Remove it."
    else:
        branch = parameter
    if isinstance(branch, DerivedParameter):
        return f"{name} is derived and cannot be given. Remove it from this configuration."
    return None if contains(branch, value) else f"{show(value)} is outside {name}'s range. {describe_range(branch)}"


# --- resources ---------------------------------------------------------------------------------------------------


def _resources_faults(draft: Draft) -> Iterator[Finding]:
    if draft.resources is None:
        return
    share = draft.resources.gpus_per_trial
    at = ("resources", "gpus_per_trial")
    if share > 1:
        message = (
            f"gpus_per_trial is {show(share)}: trials that span devices are not built yet. Use 1 or a share of one."
        )
        yield Finding(at, message)
    elif share * int(1 / share + 1e-9) < _LEAST_SHARE_USED:
        n_trials = int(1 / share)
        message = (
            f"gpus_per_trial is {show(share)}: a share must divide a device evenly, such as 1, 0.5, 0.33 or 0.25."
            f" {n_trials} trials of {show(share)} would leave part of it idle; write {round(1 / n_trials, 4):g}."
        )
        yield Finding(at, message)
    devices = draft.resources.devices
    if isinstance(devices, tuple) and draft.resources.address is not None:
        message = "devices are numbers of this box, but the trials run on the cluster at `address`. Use auto or cpu."
        yield Finding(("resources", "devices"), message)
    elif isinstance(devices, tuple):
        if not devices:
            yield Finding(("resources", "devices"), "the list of devices is empty. Use auto, cpu, or numbers of GPUs.")
        for index, device in enumerate(devices):
            if device < 0:
                yield Finding(("resources", "devices", index), f"{device} is no device; GPUs count from 0.")
            elif device in devices[:index]:
                yield Finding(("resources", "devices", index), f"device {device} is named twice. Remove one.")
