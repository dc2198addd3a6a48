"""What the file of a record may hold: models that check one, and the JSON Schema that is published of them.

Numbers that JSON cannot hold stand in a file as text: "nan", "inf", "-inf".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, TypeAdapter

from finesweep.spec.parameters import Float, Int, Model, Scalar
from finesweep.spec.settings import Settings, passed_on_settings, training_arguments
from finesweep.spec.study import Objective
from finesweep.spec.sweep import (
    REMOTE,
    DataSpec,
    Evaluation,
    Function,
    FunctionSettings,
    ModelSpec,
    Remote,
    RemoteTraining,
    Task,
    TrainingSpec,
)

FORMAT = 2  # of the file; raised when a key changes its meaning, or one is added that readers need
NOT_FINITE = ("nan", "inf", "-inf")
SCHEMA_ID = f"urn:finesweep:export:{FORMAT}"

Number = Float | Literal["nan", "inf", "-inf"]


class RecordedModel(ModelSpec):
    """The model, and what its files came to."""

    fingerprint: str | None = None


class RecordedData(DataSpec):
    """The rows, and what their files came to."""

    fingerprint: str | None = None


class MadeByJob(Model):
    """What the job of a trial came to, as far as the server told it."""

    job: str | None = None
    hyperparameters: Mapping[str, Any] | None = None  # what `auto` became
    trained_tokens: Int | None = Field(default=None, ge=0)
    cost: Float | None = Field(default=None, ge=0)  # by remote.price_per_million
    fine_tuned_model: str | None = None
    best_checkpoint: str | None = None


class RecordedRemote(Remote):
    """The fine-tuning server, and what it made of the trial."""

    made: MadeByJob


class RecordedGrid(Model):
    """What the steps of the sweep count, and where its reports fall."""

    unit: Literal["examples", "progress"]
    every: Int = Field(ge=1)
    longest: Int = Field(ge=0)


class _Record(Model):
    """What the records of all trials hold."""

    finesweep_export: Literal[2]  # the format
    sweep: str = Field(min_length=1)
    trial: Int = Field(ge=0)
    code_dir: str | None
    n_devices: Int = Field(ge=1)  # that the batch of the settings is for
    evaluation: Evaluation
    seed: Int = Field(ge=0, lt=2**32)
    configuration: Mapping[str, Scalar]
    objective: Objective | tuple[Objective, ...]
    value: Number  # of the leading objective
    value_step: Int | None
    grid: RecordedGrid
    metrics: Mapping[str, Number]
    examples_seen: Int = Field(ge=0)
    facts: Mapping[str, Any]
    artifacts: Mapping[str, str]
    provenance: Mapping[str, Any]
    command: str | None
    verification: Mapping[str, Any] | None


class TransformersRecord(_Record):
    """A trial of the trainer that comes with finesweep."""

    trainer: Literal["transformers"]
    task: Task
    model: RecordedModel
    data: RecordedData
    settings: TrainingSpec
    remote: None = None


class FunctionRecord(_Record):
    """A trial of a trainer of the user's own, who may not have been told of task, model and data."""

    trainer: Function
    task: Task | None
    model: RecordedModel | None
    data: RecordedData | None
    settings: FunctionSettings
    remote: None = None


class RemoteRecord(_Record):
    """A trial that was a job of a fine-tuning server."""

    trainer: Literal["remote"]
    task: Literal["causal-lm"]
    model: None
    data: RecordedData
    settings: RemoteTraining
    remote: RecordedRemote


Record = TransformersRecord | FunctionRecord | RemoteRecord
_SETTINGS: Mapping[type[Record], type[Settings]] = {
    TransformersRecord: TrainingSpec,
    FunctionRecord: FunctionSettings,
    RemoteRecord: RemoteTraining,
}


def record_kind(values: Mapping[str, Any]) -> type[Record]:
    """Tell by the trainer which kind of record the values of a file are meant to be."""
    trainer = values.get("trainer")
    if trainer == REMOTE:
        return RemoteRecord
    return FunctionRecord if isinstance(trainer, str) and ":" in trainer else TransformersRecord


def settings_kind(values: Mapping[str, Any]) -> type[Settings]:
    return _SETTINGS[record_kind(values)]


def json_schema() -> dict[str, Any]:
    """Make the schema that every record file of this format fits."""
    schema = TypeAdapter(Record).json_schema()
    settings = schema["$defs"]["TrainingSpec"]
    arguments = training_arguments()
    settings["properties"] |= {name: _argument_schema(arguments[name]) for name in passed_on_settings()}
    settings["additionalProperties"] = False
    title = "A trial of a sweep, as `finesweep export --to json` and `--to yaml` write it"
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": SCHEMA_ID, "title": title, **schema}


_JSON_TYPES: Mapping[str, str] = {
    "bool": "boolean",
    "dict": "object",
    "float": "number",
    "int": "integer",
    "list": "array",
    "none": "null",
    "str": "string",
}


def _argument_schema(argument: Mapping[str, Any]) -> dict[str, Any]:
    """Restate what the table of TrainingArguments says of one; its choices bind text alone."""
    kinds = [_JSON_TYPES[kind] for kind in argument["types"] if kind in _JSON_TYPES]
    if "choices" not in argument:
        return {"type": kinds}
    others = [{"type": kind} for kind in kinds if kind != "string"]
    return {"anyOf": [{"enum": argument["choices"]}, *others]}
