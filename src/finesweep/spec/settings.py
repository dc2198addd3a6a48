"""Settings of a trial: ours, those passed on to transformers' TrainingArguments, and those a user cannot set.

The names and types of TrainingArguments come from a table beside this file; transformers itself is not imported.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from finesweep.errors import SpecError
from finesweep.events import Configuration, Value
from finesweep.spec.explain import explain
from finesweep.spec.faults import Fault, show, unknown
from finesweep.spec.remote_words import remote_name_problem
from finesweep.spec.sweep import FunctionSettings, Method, RemoteTraining, TrainingSpec

Settings = TrainingSpec | FunctionSettings | RemoteTraining
OtherSettings = TypeVar("OtherSettings", FunctionSettings, RemoteTraining)
Argument = Mapping[str, Any]  # types, and where there are any: choices, default

_SPANS_DEVICES = "trials that span devices are not built yet"
_REPORTS = "finesweep itself decides when to report; `training.eval_every` says how often"
_LOGS = "what a trial reports goes to the results database"
_BATCH = "it follows from `batch_size` (examples per optimizer step) and `device_batch_size` (the most a device takes)"
_SAVES = "finesweep itself writes checkpoints; see `training.checkpoint_minutes` and `artifacts.keep`"
_BEST = "the study's `objective` says which metric counts and which way"
_HUB = "a sweep uploads nothing; export the best configuration instead"
_COLUMNS = "the section `data` names the columns"
_METRICS = "metrics follow from `task`"

OWNED: Mapping[str, str] = {  # a TrainingArguments field that cannot be set -> our word for it
    "output_dir": "artifacts lie below `artifacts.folder`",
    "num_train_epochs": "write `epochs`",
    "max_steps": "the length of a trial is given by `epochs`",
    "per_device_train_batch_size": _BATCH,
    "per_device_eval_batch_size": _BATCH,
    "gradient_accumulation_steps": _BATCH,
    "auto_find_batch_size": _BATCH,
    "eval_strategy": _REPORTS,
    "eval_steps": _REPORTS,
    "eval_delay": _REPORTS,
    "eval_on_start": _REPORTS,
    "prediction_loss_only": _METRICS,
    "eval_do_concat_batches": _METRICS,
    "eval_use_gather_object": _METRICS,
    "include_for_metrics": _METRICS,
    "batch_eval_metrics": _METRICS,
    "logging_strategy": _LOGS,
    "logging_steps": _LOGS,
    "logging_first_step": _LOGS,
    "log_on_each_node": _LOGS,
    "logging_nan_inf_filter": _LOGS,
    "include_num_input_tokens_seen": _LOGS,
    "log_level": _LOGS,
    "log_level_replica": _LOGS,
    "disable_tqdm": _LOGS,
    "run_name": "a trial is called by the sweep's `name` and its number",
    "project": _LOGS,
    "trackio_space_id": _LOGS,
    "trackio_bucket_id": _LOGS,
    "trackio_static_space_id": _LOGS,
    "save_only_model": _SAVES,
    "save_strategy": _SAVES,
    "save_steps": _SAVES,
    "save_on_each_node": _SAVES,
    "save_total_limit": _SAVES,
    "enable_jit_checkpoint": _SAVES,
    "load_best_model_at_end": _BEST,
    "metric_for_best_model": _BEST,
    "greater_is_better": _BEST,
    "push_to_hub": _HUB,
    "hub_token": _HUB,
    "hub_private_repo": _HUB,
    "hub_model_id": _HUB,
    "hub_strategy": _HUB,
    "hub_always_push": _HUB,
    "hub_revision": _HUB,
    "ignore_data_skip": "`finesweep resume` goes on where a trial was interrupted",
    "restore_callback_states_from_checkpoint": "`finesweep resume` goes on where a trial was interrupted",
    "resume_from_checkpoint": "`finesweep resume` goes on where a trial was interrupted",
    "data_seed": "`training.seed` seeds weights and order of rows alike",
    "use_cpu": "write `devices: cpu` under `resources`",
    "accelerator_config": _SPANS_DEVICES,
    "parallelism_config": _SPANS_DEVICES,
    "average_tokens_across_devices": _SPANS_DEVICES,
    "ddp_find_unused_parameters": _SPANS_DEVICES,
    "ddp_bucket_cap_mb": _SPANS_DEVICES,
    "ddp_broadcast_buffers": _SPANS_DEVICES,
    "ddp_static_graph": _SPANS_DEVICES,
    "ddp_backend": _SPANS_DEVICES,
    "ddp_timeout": _SPANS_DEVICES,
    "fsdp": _SPANS_DEVICES,
    "fsdp_config": _SPANS_DEVICES,
    "deepspeed": _SPANS_DEVICES,
    "local_rank": _SPANS_DEVICES,
    "remove_unused_columns": _COLUMNS,
    "label_names": _COLUMNS,
    "length_column_name": _COLUMNS,
    "do_train": "a trial always trains",
    "do_eval": "a trial always evaluates",
    "do_predict": "no trial sees the test rows",
    "debug": "debugging tools of transformers are not for sweeps",
    "skip_memory_metrics": "finesweep measures memory itself",
}
_FORMER: Mapping[str, str] = {  # not fields of transformers 5, but often looked for
    "train_batch_size": _BATCH,
    "max_seq_length": "write `max_length` under `data`",
    "max_length": "write `max_length` under `data`",
}
RENAMED: Mapping[str, str] = {  # the former still do, with a warning
    "gradient_checkpointing": "activation_checkpointing",
    "gradient_checkpointing_kwargs": "activation_checkpointing_kwargs",
}
_REFUSED_CHOICES: Mapping[str, Mapping[str, str]] = {
    "lr_scheduler_type": {
        "reduce_lr_on_plateau": "it needs transformers' own evaluations, which a sweep does not run",
        "greedy": "it needs transformers' own evaluations, which a sweep does not run",
    },
    "train_sampling_strategy": {
        "batch_rebalance": "it deals rows out to several devices and takes more of them at once than device_batch_size",
    },
}
_TYPE_NAMES: Mapping[str, str] = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "dict": "a mapping",
    "list": "a list",
    "none": "null",
}

# Not hyperparameters: all trials must share them to be comparable, or they change cost and not results.
NOT_SEARCHED: Mapping[str, str] = {
    "seed": "it comes from the sweep, so that trials differ by their parameters alone",
    "eval_every": "all trials of a sweep report on one grid",
    "checkpoint_minutes": "it does not change what a trial learns",
    "device_batch_size": "it does not change what a trial learns; search batch_size",
    "report_to": "it does not change what a trial learns",
    "early_stopping_patience": "all trials of a sweep are stopped by one rule",
    "early_stopping_min_delta": "all trials of a sweep are stopped by one rule",
    "divergence_factor": "all trials of a sweep are stopped by one rule",
}


_OF_METHOD: Mapping[str, Method] = {
    "unfrozen_layers": "feature-extraction",
    "lora_rank": "lora",
    "lora_alpha": "lora",
    "lora_dropout": "lora",
    "lora_target_modules": "lora",
}


def has_effect(name: str, *, method: Value) -> bool:
    """Tell whether a setting means anything to trials of a method."""
    return _OF_METHOD.get(name, method) == method


@cache
def training_arguments() -> Mapping[str, Argument]:
    """Read the table of TrainingArguments fields."""
    text = resources.files("finesweep.spec").joinpath("training_arguments.json").read_text(encoding="utf-8")
    table: Mapping[str, Argument] = json.loads(text)
    return table


@cache
def own_settings() -> tuple[str, ...]:
    return tuple(TrainingSpec.model_fields)


@cache
def passed_on_settings() -> tuple[str, ...]:
    """Name the TrainingArguments fields that a user may set."""
    own = own_settings()
    return tuple(name for name in training_arguments() if name not in own and name not in OWNED)


def name_problem(name: str, kind: type[Settings] = TrainingSpec) -> str | None:
    """Say why `name` is no setting that a user may give; None if it is one."""
    if kind is RemoteTraining:
        return None if name in RemoteTraining.model_fields else remote_name_problem(name)
    if kind is FunctionSettings:
        return None if name.isidentifier() else f"{show(name)} is no name: use letters, digits and underscores."
    if name in own_settings() or name in passed_on_settings():
        return None
    if name in OWNED:
        return f"{name} is finesweep's to set: {OWNED[name]}."
    if name in _FORMER:
        return f"{name} is no setting: {_FORMER[name]}."
    return unknown("setting", name, (*own_settings(), *passed_on_settings()))


def why_not_searched(name: str, kind: type[Settings] = TrainingSpec) -> str | None:
    """Say why a setting cannot be a parameter; None if it can."""
    return NOT_SEARCHED.get(name) if kind is TrainingSpec or name in kind.model_fields else None


def value_problem(name: str, value: Any) -> str | None:
    """Say why `value` is not one of TrainingArguments' for a setting passed on; None if it is, or the name is not."""
    argument = training_arguments().get(name)
    if argument is None or name not in passed_on_settings():
        return None
    accepted: list[str] = argument["types"]
    if not _type_names(value) & set(accepted):
        wanted = " or ".join(_TYPE_NAMES[kind] for kind in accepted if kind in _TYPE_NAMES)
        return f"{show(value)} is not {wanted}, which {name} must be."
    if isinstance(value, str) and "choices" in argument and value not in argument["choices"]:
        return unknown(name, value, argument["choices"])
    refused = _REFUSED_CHOICES.get(name, {}).get(value) if isinstance(value, str) else None
    return f"{name} {show(value)} cannot be used: {refused}. Choose another." if refused else None


def default_of(name: str) -> Any:
    """Return the value of a setting that is neither fixed nor searched; None where there is none."""
    if name in TrainingSpec.model_fields:
        return TrainingSpec.model_fields[name].default
    return training_arguments().get(name, {}).get("default")


def trial_settings(training: Settings, configuration: Configuration) -> Settings:
    """Lay a trial's configuration over the fixed settings, whatever its trainer."""
    match training:
        case TrainingSpec():
            return settings_for(training, configuration)
        case FunctionSettings():
            return laid_over(training, configuration)
        case RemoteTraining():
            return laid_over(training, configuration)


def laid_over(training: OtherSettings, configuration: Configuration) -> OtherSettings:
    """Do so for a trainer of the user's own, or a server. Raise SpecError if a (derived) value is not allowed."""
    values = {**training.model_dump(exclude_unset=True), **configuration}
    kind = type(training)
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise _spec_error(error, values, kind) from None


def settings_for(training: TrainingSpec, configuration: Configuration) -> TrainingSpec:
    """Lay a trial's configuration over the fixed settings. Raise SpecError if a (derived) value is not allowed."""
    values = {**training.model_dump(exclude_unset=True), **configuration}
    problems = {name: problem for name, value in configuration.items() if (problem := _problem(name, value))}
    try:
        settings = TrainingSpec.model_validate(values)
    except ValidationError as error:
        raise _spec_error(error, values, TrainingSpec) from None
    split = batch_problem(settings)
    if split is not None:
        problems["device_batch_size"] = split
    if problems:
        raise SpecError([Fault("configuration", None, name, problem) for name, problem in problems.items()])
    return settings


def _spec_error(error: ValidationError, values: Mapping[str, Any], kind: type[BaseModel]) -> SpecError:
    findings = explain(error, values, kind)
    return SpecError([Fault("configuration", None, str(f.path[-1]), f.message) for f in findings])


def largest_divisor(number: int, *, most: int) -> int:
    """Find how many rows at once, at most so many, make up a batch of `number`."""
    return next(n for n in range(min(most, number), 0, -1) if number % n == 0)


def batch_problem(settings: TrainingSpec) -> str | None:
    """Say why a batch cannot be split over the device; None if it can."""
    most = settings.device_batch_size
    if most is None or settings.batch_size <= most or settings.batch_size % most == 0:
        return None
    return (
        f"device_batch_size ({most}) must divide batch_size ({settings.batch_size}), or no number of whole batches"
        f" makes one optimizer step. Use a divisor of {settings.batch_size}."
    )


def transformers_arguments(settings: TrainingSpec) -> dict[str, Any]:
    """Return just what is passed on to TrainingArguments as it stands, but by its present name."""
    return {RENAMED.get(name, name): value for name, value in (settings.model_extra or {}).items()}


def _problem(name: str, value: Any) -> str | None:
    return name_problem(name) or value_problem(name, value)


def _type_names(value: Any) -> set[str]:
    """Name the types of the table that a value satisfies: a whole number is also a number, as 3.0 is a whole one."""
    match value:
        case None:
            return {"none"}
        case bool():
            return {"bool"}
        case int():
            return {"int", "float"}
        case float():
            return {"int", "float"} if value.is_integer() else {"float"}
        case str():
            return {"str"}
        case dict():
            return {"dict"}
    return {"list"}
