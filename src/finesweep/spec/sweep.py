"""A sweep: one launch of a study on a model, a data set and devices. Pure data; every default is written here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StringConstraints

from finesweep.spec.parameters import Float, Int, Model, Scalar
from finesweep.spec.study import MetricDirection, StudySpec

Task = Literal["classification", "causal-lm"]
Method = Literal["full", "feature-extraction"]
SweepName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$")]

METRICS: Mapping[Task, Mapping[str, MetricDirection]] = {  # what a report of each task holds, and which way is better
    "classification": {"accuracy": "maximize", "macro_f1": "maximize", "mcc": "maximize", "loss": "minimize"},
    "causal-lm": {"loss": "minimize", "perplexity": "minimize", "token_accuracy": "maximize"},
}


class DataSpec(Model):
    """Rows to learn from and to be judged by. Paths are absolute once resolved; columns are named by key."""

    train: str
    validation: str
    test: str | None = None  # no trial ever sees it
    text: str = "text"  # classification: column of the input
    label: str = "label"  # classification: column of the class
    prompt: str = "prompt"  # causal-lm
    completion: str = "completion"  # causal-lm: the loss is on these tokens only
    max_length: Int = Field(default=128, ge=8)  # tokens; longer rows are cut
    max_train_rows: Int | None = Field(default=None, ge=1)
    max_validation_rows: Int | None = Field(default=None, ge=1)
    seed: Int = Field(default=0, ge=0, lt=2**32)  # which rows are taken when there are limits


class TrainingSpec(Model):
    """Fixed settings of every trial: ours, then any TrainingArguments field that is not ours to set.

    A setting may instead be a parameter of the study, never both. Those neither fixed nor searched have the values
    written here, which are those of transformers where it has one.
    """

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)

    method: Method = "full"
    unfrozen_layers: Int = Field(default=0, ge=0)  # feature-extraction: this many last blocks are trained with the head
    learning_rate: Float = Field(default=5e-5, gt=0)
    batch_size: Int = Field(default=8, ge=1)  # examples per optimizer step, over devices and accumulation
    epochs: Float = Field(default=3.0, gt=0)
    warmup_steps: Int = Field(default=0, ge=0)
    weight_decay: Float = Field(default=0.0, ge=0)
    device_batch_size: Int | None = Field(default=None, ge=1)  # the most a device takes at once; must divide batch_size
    seed: Int = Field(default=0, ge=0, lt=2**32)
    eval_every: Int | None = Field(default=None, ge=1)  # examples (compare_at: examples) or percent; None: see Grid
    checkpoint_minutes: Float = Field(default=1.0, ge=0)  # at most this much work is lost with a worker


class Budget(Model):
    """Limits of the sweep as totals, not as additions."""

    trials: Int = Field(ge=1)  # trained ones: a repeated configuration takes over the earlier result and is free
    hours: Float | None = Field(default=None, gt=0)  # of this sweep's running, over resumes
    at_end: Literal["finish", "interrupt"] = "finish"  # what happens to running trials when the hours are over
    retries: Int = Field(default=2, ge=0)  # how often a trial is begun again because its worker was lost


class Resources(Model):
    """Where trials run."""

    devices: Literal["auto", "cpu"] | tuple[Int, ...] = (
        "auto"  # auto: the GPUs nobody else fills; without any, CPU slots
    )
    gpus_per_trial: Float = Field(default=1.0, gt=0)  # below 1: several trials share a device
    cpus_per_trial: Int | None = Field(default=None, ge=1)  # None: the machine's cores shared among its slots
    max_parallel: Int | None = Field(default=None, ge=1)
    address: str | None = None  # of an existing Ray cluster; None: this box


class Artifacts(Model):
    folder: str | None = None  # None: artifacts/ beside the results database
    keep: Literal["none", "best", "all"] = "best"  # whose trained weights stay


class SweepSpec(Model):
    name: SweepName
    study: StudySpec
    trainer: Literal["transformers"] = "transformers"
    model: str = Field(min_length=1)  # hub id, folder, GGUF file, or package:NAME/folder
    task: Task
    data: DataSpec
    training: TrainingSpec = TrainingSpec()
    start_with: tuple[Mapping[str, Scalar], ...] = ()  # tried first; a parameter left out is sampled
    try_defaults: bool = Field(default=True, strict=True)  # then the library's default configuration, for each method
    budget: Budget
    resources: Resources = Resources()
    artifacts: Artifacts = Artifacts()
    results: str | None = None  # URL of the results database; None: finesweep.db in the current folder
