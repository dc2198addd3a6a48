"""A sweep: one launch of a study on a model, a data set and devices. Pure data; every default is written here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field, StringConstraints, field_serializer, model_validator

from finesweep.secrets import hide_urls
from finesweep.spec.parameters import Float, Int, Model, Scalar
from finesweep.spec.protocol import LONGEST_SUFFIX, MOST_BATCH, MOST_EPOCHS, Form
from finesweep.spec.study import MetricDirection, StudySpec

Task = Literal["classification", "multi-label-classification", "regression", "causal-lm"]
Method = Literal["full", "feature-extraction", "lora"]
Pooling = Literal["model", "mean", "cls"]
Tracker = Literal["mlflow", "tensorboard", "wandb"]
SweepName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$")]
Function = Annotated[  # package.module:function
    str, StringConstraints(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$")
]
TRANSFORMERS: Literal["transformers"] = "transformers"  # the trainer that comes with finesweep

MOST_TRIALS = 2**31 - 1  # what every database can count

METRICS: Mapping[Task, Mapping[str, MetricDirection]] = {  # what a report of each task holds, and which way is better
    "classification": {"accuracy": "maximize", "macro_f1": "maximize", "mcc": "maximize", "loss": "minimize"},
    "multi-label-classification": {
        "macro_f1": "maximize",
        "micro_f1": "maximize",
        "subset_accuracy": "maximize",  # all labels of a row right at once
        "loss": "minimize",
    },
    "regression": {
        "mae": "minimize",
        "rmse": "minimize",
        "r2": "maximize",
        "spearman": "maximize",
        "loss": "minimize",
    },
    "causal-lm": {"loss": "minimize", "perplexity": "minimize", "token_accuracy": "maximize"},
}
COSTS: Mapping[str, MetricDirection] = {  # what any trial costs; reported if an objective names it
    "trainable_parameters": "minimize",  # a count
    "model_mib": "minimize",  # of all weights, as they are held
    "train_seconds": "minimize",  # only where trials do not slow each other down
}
GENERATION_METRICS: Mapping[
    str, MetricDirection
] = {  # beside those of causal-lm where `evaluation.generation` is given
    "exact_match": "maximize",
    "rouge1": "maximize",
    "rouge2": "maximize",
    "rougeL": "maximize",
}


class ModelSpec(Model):
    """The pre-trained model and how it is loaded. Text instead of a mapping is its name."""

    name: str = Field(min_length=1)  # hub id, folder, GGUF file, or package:NAME/folder
    revision: str | None = Field(default=None, min_length=1)  # of a hub id: branch, tag or commit
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"  # of the weights as they are held and trained
    attention: Literal["eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention"] | None = None
    quantize: Literal["4bit", "8bit"] | None = None  # method lora only; needs bitsandbytes
    trust_remote_code: bool = Field(default=False, strict=True)  # run Python that comes with the model
    allow_pickle: bool = Field(default=False, strict=True)  # load weights that are not safetensors

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, data: Any) -> Any:
        return {"name": data} if isinstance(data, str) else data


Share = Annotated[Float, Field(gt=0, lt=1)]


class DataSpec(Model):
    """Rows to learn from and to be judged by. Paths are absolute once resolved; columns are named by key.

    Without `dataset` the three splits are files; with it they are names of its splits, sliced perhaps: train[:1000]. A
    number for validation or test is the share of the training rows that is set aside: by chance, in classification with
    the same share of every class, of a .txt file its last part.
    """

    dataset: str | None = Field(default=None, min_length=1)  # hub id, or a folder written by `save_to_disk`
    config: str | None = Field(default=None, min_length=1)  # of a hub data set
    revision: str | None = Field(default=None, min_length=1)  # of a hub data set: branch, tag or commit
    train: str
    validation: Share | str
    test: Share | str | None = None  # no trial ever sees it; a verification is judged by it
    format: Literal["prompt-completion", "messages", "text"] = "prompt-completion"  # causal-lm
    text: str = "text"  # classification, regression: column of the input; causal-lm of format text: of the text
    text_pair: str | None = None  # classification, regression: column of a second input, as in question and passage
    label: str = "label"  # column of the class; multi-label: of a list of them, in CSV a|b; regression: of the number
    prompt: str = "prompt"  # causal-lm of format prompt-completion
    completion: str = "completion"  # the loss is on these tokens only
    messages: str = "messages"  # causal-lm of format messages: column of chats; the loss is on what the assistant says
    max_length: Int = Field(default=128, ge=8)  # tokens; longer rows are cut, texts are packed to it
    max_train_rows: Int | None = Field(default=None, ge=1)  # of packed text: blocks of max_length tokens
    max_validation_rows: Int | None = Field(default=None, ge=1)
    incomplete: Literal["refuse", "leave-out"] = "refuse"  # rows with empty text or without a label
    seed: Int = Field(default=0, ge=0, lt=2**32)  # which rows are taken where there are limits or shares


def columns_of(data: DataSpec, task: Task) -> dict[str, str]:
    """Return the columns that a task reads: key of the data section -> name of the column."""
    if task == "causal-lm":
        keys = {"prompt-completion": ("prompt", "completion"), "messages": ("messages",), "text": ("text",)}[
            data.format
        ]
    else:
        keys = ("text", "label") if data.text_pair is None else ("text", "text_pair", "label")
    return {key: getattr(data, key) for key in keys}


class Generation(Model):
    """Judge a causal model by what it writes: the same few validation rows for all trials, greedily.

    A scorer is given two lists of texts: what was written, and what the rows say.
    """

    rows: Int = Field(default=32, ge=1)
    max_new_tokens: Int = Field(default=64, ge=1)
    scorers: Mapping[str, Function] = {}  # metric -> function(outputs, references) -> number
    samples: Int = Field(default=5, ge=0)  # outputs kept with each trial, to look at


class Evaluation(Model):
    """How trials are judged beside the metrics of the task.

    A metric of one's own is given two numpy arrays with one entry for each validation row:

    - classification: probabilities (rows, classes), numbers of classes (rows,), in the order of the model's labels
    - multi-label-classification: probabilities (rows, classes), 0 or 1 (rows, classes)
    - regression: outputs (rows,), numbers (rows,)
    - causal-lm: (rows, [summed negative log likelihood, tokens, tokens predicted right]), and the tokens that bear loss
      (rows, longest), -100 at other places

    It returns a number, NaN where there is none to give. Of a model whose loss is not finite it is not asked.
    """

    metrics: Mapping[str, Function] = {}  # metric -> function(predictions, labels) -> number
    generation: Generation | None = None  # causal-lm


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class TrainingSpec(Model):
    """Fixed settings of every trial: ours, then any TrainingArguments field that is not ours to set.

    A setting may instead be a parameter of the study, never both. Those neither fixed nor searched have the values
    written here, which are those of transformers and peft where these have one.
    """

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)

    method: Method = "full"
    unfrozen_layers: Int = Field(default=0, ge=0)  # feature-extraction: this many last blocks are trained with the head
    pooling: Pooling = "model"  # the head's input: the model's own choice, mean of the tokens' states, the first one's
    lora_rank: Int = Field(default=8, ge=1)
    lora_alpha: Float = Field(default=8.0, gt=0)  # updates are scaled by lora_alpha / lora_rank
    lora_dropout: Float = Field(default=0.0, ge=0, lt=1)
    lora_target_modules: str = Field(default="all-linear", min_length=1)  # or names, separated by commas
    learning_rate: Float = Field(default=5e-5, gt=0)
    batch_size: Int = Field(default=8, ge=1)  # examples per optimizer step, over devices and accumulation
    epochs: Float = Field(default=3.0, gt=0)
    warmup_steps: Int = Field(default=0, ge=0)
    warmup_ratio: Float | None = Field(default=None, ge=0, le=1)  # of the trial's steps, instead of warmup_steps
    weight_decay: Float = Field(default=0.0, ge=0)
    early_stopping_patience: Int | None = Field(default=None, ge=1)  # reports without a better objective: COMPLETE
    early_stopping_min_delta: Float = Field(default=0.0, ge=0)  # less than this is not better
    divergence_factor: Float = Field(default=5.0, gt=1)  # times the loss at the start: a trial this bad is PRUNED
    device_batch_size: Int | None = Field(default=None, ge=1)  # the most a device takes at once; must divide batch_size
    seed: Int = Field(default=0, ge=0, lt=2**32)
    eval_every: Int | None = Field(default=None, ge=1)  # examples (compare_at: examples) or percent; None: see Grid
    checkpoint_minutes: Float = Field(default=1.0, ge=0)  # at most this much work is lost with a worker
    report_to: Annotated[tuple[Tracker, ...], BeforeValidator(_as_list)] = ()  # each trial as a run there


class Budget(Model):
    """Limits of the sweep as totals, not as additions."""

    trials: Int = Field(
        ge=1, le=MOST_TRIALS
    )  # trained ones: a repeated configuration takes over the earlier result and is free
    hours: Float | None = Field(default=None, gt=0)  # of this sweep's running, over resumes
    at_end: Literal["finish", "interrupt"] = "finish"  # what happens to running trials when the hours are over
    retries: Int = Field(default=2, ge=0)  # how often a trial is begun again after one of these
    retry_on: Annotated[tuple[Literal["lost", "stalled", "failed"], ...], BeforeValidator(_as_list)] = ("lost",)
    stall_minutes: Float | None = Field(default=None, gt=0)  # without a report: the worker is killed; not if inline
    stop_after_failures: Int = Field(default=5, ge=0)  # in a row and for the same reason: the sweep stops; 0: never
    tokens: Int | None = Field(default=None, ge=1)  # trainer remote: trained tokens of all jobs
    money: Float | None = Field(default=None, gt=0)  # trainer remote: what they cost, by remote.price_per_million


class Resources(Model):
    """Where trials run."""

    devices: Literal["auto", "cpu"] | tuple[Int, ...] = (
        "auto"  # auto: the GPUs nobody else fills; without any, CPU slots
    )
    gpus_per_trial: Float = Field(default=1.0, ge=0.001)  # below 1: several trials share a device
    cpus_per_trial: Int | None = Field(default=None, ge=1)  # None: the machine's cores shared among its slots
    max_parallel: Int | None = Field(default=None, ge=1)
    feature_cache_gib: Float = Field(default=20.0, ge=0)  # disk for what frozen layers compute, of all sweeps; 0: none
    stack: Int = Field(default=16, ge=1)  # trials of a head alone that one slot trains as one computation
    address: str | None = None  # of an existing Ray cluster; None: this box


KEEP_PATTERN = r"^(none|best|all|(best|top) [1-9]\d{0,5})$"
Keep = Annotated[str, StringConstraints(pattern=KEEP_PATTERN)]


class Artifacts(Model):
    """What of trials stays on disk."""

    folder: str | None = None  # None: artifacts/ beside the results database
    keep: Keep = "best"  # whose trained weights stay: none, best (of several objectives the front), top N, all
    quota_gib: Float | None = Field(default=None, gt=0)  # what weights and checkpoints may take; None: no limit

    @property
    def quota_bytes(self) -> int | None:
        return None if self.quota_gib is None else round(self.quota_gib * 2**30)


def n_kept(keep: Keep) -> int | None:
    """Read a policy: how many of the best trials it keeps; None: all that complete. `best` of several: the front."""
    if keep in ("none", "all"):
        return 0 if keep == "none" else None
    return int(keep.partition(" ")[2] or 1)


class FunctionSettings(Model):
    """Fixed settings of the trials of a trainer of your own: whatever names it knows, and these."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)

    total_examples: Int | None = Field(default=None, ge=1)  # how long a trial is, where the sweep must know
    seed: Int = Field(default=0, ge=0, lt=2**32)
    eval_every: Int | None = Field(default=None, ge=1)  # examples (compare_at: examples) or percent; None: see Grid


AUTO: Literal["auto"] = "auto"  # the server chooses
Auto = Literal["auto"]


class RemoteTraining(Model):
    """Fixed settings of the jobs of a fine-tuning server: those that its protocol knows."""

    n_epochs: Auto | Annotated[Int, Field(ge=1, le=MOST_EPOCHS)] = AUTO
    batch_size: Auto | Annotated[Int, Field(ge=1, le=MOST_BATCH)] = AUTO
    learning_rate_multiplier: Auto | Annotated[Float, Field(gt=0)] = AUTO
    seed: Int = Field(default=0, ge=0, lt=2**31)  # what servers count to
    eval_every: Int | None = Field(default=None, ge=1)  # examples (compare_at: examples) or percent; None: see Grid


class Remote(Model):
    """The fine-tuning server that trains, and how it is asked."""

    base_url: str = Field(pattern=r"^https?://[^\s@]+$")  # up to and with /v1
    model: str = Field(min_length=1)  # what jobs begin with, by the server's name for it
    api_key_env: str = "OPENAI_API_KEY"  # the environment variable that holds the key
    max_concurrent: Int = Field(default=4, ge=1, le=256)  # jobs at a time
    poll_s: Float = Field(default=10.0, gt=0)  # seconds between looks at a job
    timeout_s: Float = Field(default=60.0, gt=0)  # of a request
    patience_minutes: Float = Field(default=10.0, gt=0)  # how long a server may fail to answer before the sweep pauses
    hyperparameters: Form = "method"  # where in the request of a job they stand
    suffix: str | None = Field(default=None, min_length=1, max_length=LONGEST_SUFFIX)  # of the names of tuned models
    price_per_million: Float | None = Field(default=None, gt=0)  # of trained tokens, in any currency


class SweepSpec(Model):
    """What all sweeps have. `read_sweep` makes the one of its three kinds that the trainer asks for."""

    name: SweepName
    study: StudySpec
    trainer: str = TRANSFORMERS  # or your own: package.module:function, called with (trial, reporter)
    code_dir: str | None = None  # where modules of your own are looked for; None: none is named
    model: ModelSpec | None = None
    task: Task | None = None
    data: DataSpec | None = None
    training: TrainingSpec | FunctionSettings | RemoteTraining
    evaluation: Evaluation = Evaluation()
    start_with: tuple[Mapping[str, Scalar], ...] = ()  # tried first; a parameter left out is sampled
    try_defaults: bool = Field(default=True, strict=True)  # then the library's default configuration, for each method
    budget: Budget
    resources: Resources = Resources()
    artifacts: Artifacts = Artifacts()
    results: str | None = None  # URL of the results database; None: finesweep.db in the current folder

    @field_serializer("results")
    def _without_password(self, results: str | None) -> str | None:
        """Leave the password out of whatever is written down: the sweep is stored in that very database."""
        return None if results is None else hide_urls(results)


class TransformersSweep(SweepSpec):
    """A sweep of the trainer that comes with finesweep."""

    trainer: Literal["transformers"] = TRANSFORMERS
    model: ModelSpec
    task: Task
    data: DataSpec
    training: TrainingSpec = TrainingSpec()


class FunctionSweep(SweepSpec):
    """A sweep of a trainer of the user's own, who is told of model, task and data if they are given."""

    trainer: Function
    training: FunctionSettings = FunctionSettings()


REMOTE: Literal["remote"] = "remote"  # the trainer whose trials are jobs of a fine-tuning server


class RemoteSweep(SweepSpec):
    """A sweep whose trials are jobs of a fine-tuning server."""

    trainer: Literal["remote"] = REMOTE
    remote: Remote
    task: Literal["causal-lm"] = "causal-lm"
    data: DataSpec
    training: RemoteTraining = RemoteTraining()


def model_name(spec: SweepSpec) -> str | None:
    """Name the model that a sweep trains, by the server's name for it if it is one of a server's."""
    if isinstance(spec, RemoteSweep):
        return spec.remote.model
    return None if spec.model is None else spec.model.name


def sweep_kind(values: Any) -> type[TransformersSweep | FunctionSweep | RemoteSweep]:  # Any: whatever stands in a file
    """Tell by the trainer which kind of sweep the values of a file are meant to be."""
    trainer = values.get("trainer") if isinstance(values, Mapping) else None
    if trainer == REMOTE:
        return RemoteSweep
    return FunctionSweep if isinstance(trainer, str) and ":" in trainer else TransformersSweep


def read_sweep(values: Any) -> TransformersSweep | FunctionSweep | RemoteSweep:
    """Validate the values of a resolved sweep. Raises pydantic's ValidationError."""
    return sweep_kind(values).model_validate(values)
