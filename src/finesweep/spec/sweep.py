"""A sweep: one launch of a study on a model, a data set and devices. Pure data; every default is written here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, StringConstraints

from finesweep.spec.parameters import Model, Scalar
from finesweep.spec.study import StudySpec

Task = Literal["classification", "causal-lm"]
Method = Literal["full", "feature-extraction"]
SweepName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$")]


class DataSpec(Model):
    """Rows to learn from and to be judged by. Paths are absolute once resolved; columns are named by key."""

    train: str
    validation: str
    test: str | None = None  # no trial ever sees it
    text: str = "text"  # classification: column of the input
    label: str = "label"  # classification: column of the class
    prompt: str = "prompt"  # causal-lm
    completion: str = "completion"  # causal-lm: the loss is on these tokens only
    max_length: int = Field(default=128, ge=8)  # tokens; longer rows are cut
    max_train_rows: int | None = Field(default=None, ge=1)
    max_validation_rows: int | None = Field(default=None, ge=1)
    seed: int = Field(default=0, ge=0)  # which rows are taken when there are limits


class TrainingSpec(Model):
    """Fixed settings of every trial: ours, then any TrainingArguments field that is not ours to set.

    A setting may instead be a parameter of the study, never both. Those neither fixed nor searched have the values
    written here, which are those of transformers where it has one.
    """

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)

    method: Method = "full"
    unfrozen_layers: int = Field(default=0, ge=0)  # feature-extraction: this many last blocks are trained with the head
    learning_rate: float = Field(default=5e-5, gt=0)
    batch_size: int = Field(default=8, ge=1)  # examples per optimizer step, over devices and accumulation
    epochs: float = Field(default=3, gt=0)
    warmup_steps: int = Field(default=0, ge=0)
    weight_decay: float = Field(default=0.0, ge=0)
    device_batch_size: int | None = Field(default=None, ge=1)  # the most a device takes at once; must divide batch_size
    seed: int = Field(default=0, ge=0)
    eval_every: int | None = Field(default=None, ge=1)  # examples (compare_at: examples) or percent; None: see Grid
    checkpoint_minutes: float = Field(default=1.0, ge=0)  # at most this much work is lost with a worker


class Budget(Model):
    """Limits of the sweep as totals, not as additions."""

    trials: int = Field(ge=1)  # trained ones: a repeated configuration takes over the earlier result and is free
    hours: float | None = Field(default=None, gt=0)  # of this sweep's running, over resumes
    at_end: Literal["finish", "interrupt"] = "finish"  # what happens to running trials when the hours are over
    retries: int = Field(default=2, ge=0)  # how often a trial is begun again because its worker was lost


class Resources(Model):
    """Where trials run."""

    devices: Literal["auto", "cpu"] | tuple[int, ...] = "auto"  # auto: the GPUs nobody else fills; without any, CPU slots
    gpus_per_trial: float = Field(default=1.0, gt=0)  # below 1: several trials share a device
    cpus_per_trial: int | None = Field(default=None, ge=1)  # None: the machine's cores shared among its slots
    max_parallel: int | None = Field(default=None, ge=1)
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
    try_defaults: bool = True  # then the library's default configuration, for each method
    budget: Budget
    resources: Resources = Resources()
    artifacts: Artifacts = Artifacts()
    results: str | None = None  # URL of the results database; None: finesweep.db in the current folder
