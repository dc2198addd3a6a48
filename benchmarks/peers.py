"""What a user would otherwise run, written as its documentation has it: transformers' Trainer under Ray Tune, and
`Trainer.hyperparameter_search` with its Ray and its Optuna backend.

All of them train the same workload as finesweep: the same weights under the same seed, rows in the same order, dynamic
padding to the longest row of a batch, an evaluation at the end of each epoch, the same four metrics. They are spared
what costs time and is not asked for here: logs, progress bars, checkpoints, a dashboard. Tokenisation is done once.

`Clock`, a callback, notes in `trials.jsonl` what each trial found and took; it is the only thing that a user would not
have written, beside three lines that make results comparable to the last digit and are marked so.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef
from workload import Configuration, Workload, model_path, read_rows

EVAL_ROWS = 32  # at once; transformers' own default is 8


# --- one trial, as transformers' documentation trains a classifier ------------------------------------------------


class FineTuning(transformers.Trainer):
    """The stock Trainer, with a frozen encoder kept in evaluation mode: transformers would leave its dropout on."""

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **options: Any) -> Any:
        if not any(parameter.requires_grad for parameter in model.base_model.parameters()):
            model.base_model.eval()
        return super().compute_loss(model, inputs, *args, **options)

    def evaluate(self, *args: Any, **options: Any) -> dict[str, float]:
        with torch.random.fork_rng(devices=[]):  # for comparison: a data loader draws a number, which shifts dropout
            return super().evaluate(*args, **options)


def load_model(workload: Workload) -> Any:
    labels = sorted({row["label"] for row in read_rows(workload.train_path)})
    transformers.set_seed(workload.seed)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(model_path(), num_labels=len(labels))
    if workload.head_only:
        model.base_model.requires_grad_(False)
    transformers.set_seed(workload.seed)  # for comparison: dropout is drawn from the seed, not from what loading left
    return model


def tokenise(workload: Workload) -> tuple[Any, datasets.Dataset, datasets.Dataset]:
    tokenizer = transformers.AutoTokenizer.from_pretrained(model_path())
    labels = sorted({row["label"] for row in read_rows(workload.train_path)})

    def encode(rows: dict[str, list[str]]) -> dict[str, Any]:
        tokens = tokenizer(rows["text"], truncation=True, max_length=workload.max_length)
        return {**tokens, "labels": [labels.index(label) for label in rows["label"]]}

    train, validation = (
        datasets.Dataset.from_list(read_rows(path)).map(encode, batched=True, remove_columns=["text", "label"])
        for path in (workload.train_path, workload.validation_path)
    )
    return tokenizer, train, validation


def training_arguments(workload: Workload, folder: Path, **options: Any) -> transformers.TrainingArguments:
    return transformers.TrainingArguments(
        output_dir=str(folder / "trainer"),
        num_train_epochs=workload.epochs,
        per_device_eval_batch_size=EVAL_ROWS,
        eval_strategy="epoch",
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=workload.seed,
        data_seed=workload.seed,
        use_cpu=True,
        dataloader_pin_memory=False,
        **options,
    )


def arguments_of(configuration: Configuration) -> dict[str, Any]:
    """Restate a configuration in transformers' words."""
    renamed = {"batch_size": "per_device_train_batch_size"}
    return {renamed.get(name, name): value for name, value in configuration.items()}


def compute_metrics(prediction: transformers.EvalPrediction) -> dict[str, float]:
    predicted, labels = prediction.predictions.argmax(axis=-1), prediction.label_ids
    return {
        "accuracy": float(accuracy_score(labels, predicted)),
        "macro_f1": float(f1_score(labels, predicted, average="macro", zero_division=0)),
        "mcc": float(matthews_corrcoef(labels, predicted)),
    }


class Clock(transformers.TrainerCallback):
    """Notes every evaluation, and what each trial took from the beginning of training to its last evaluation's end."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "trials.jsonl"
        self._began = (0.0, 0.0)  # seconds since the epoch, CPU-seconds of this process
        self._metrics: dict[str, float] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._began = (time.time(), time.process_time())

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 1:
            self._note("first step", args)

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **_: Any) -> None:
        self._metrics = {name.removeprefix("eval_"): value for name, value in metrics.items()}
        self._note("report", args)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._note("end", args)

    def _note(self, event: str, args: Any) -> None:
        line = {
            "event": event,
            "pid": os.getpid(),
            "learning_rate": args.learning_rate,
            "began_at": self._began[0],
            "at": time.time(),
            "cpu_began_s": self._began[1],
            "cpu_s": time.process_time(),
            "accuracy": self._metrics.get("accuracy"),
            "loss": self._metrics.get("loss"),
        }
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


# --- Ray Tune, a function that trains with a Trainer --------------------------------------------------------------


class ReportToTune(transformers.TrainerCallback):
    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **_: Any) -> None:
        from ray import tune

        tune.report(metrics)


def train_one(config: Configuration, workload: Workload, folder: Path, data: tuple[Any, Any, Any]) -> None:
    """Train one configuration: the trainable that Ray Tune calls."""
    tokenizer, train, validation = data
    trainer = FineTuning(
        model=load_model(workload),
        args=training_arguments(workload, folder, **arguments_of(config["configuration"])),
        train_dataset=train,
        eval_dataset=validation,
        data_collator=transformers.DataCollatorWithPadding(tokenizer),
        compute_metrics=compute_metrics,
        callbacks=[Clock(folder), ReportToTune()],
    )
    trainer.train()


def ray_tune_trainer(workload: Workload, folder: Path) -> None:
    """Search with Ray Tune, a Trainer in each trial."""
    import ray
    from ray import tune

    start_ray(workload.slots)
    trainable = tune.with_parameters(train_one, workload=workload, folder=folder, data=tokenise(workload))
    tuner = tune.Tuner(
        tune.with_resources(trainable, {"cpu": 1}),
        param_space={"configuration": tune.grid_search(list(workload.configurations))},
        tune_config=tune.TuneConfig(metric="eval_accuracy", mode="max"),
        run_config=tune.RunConfig(storage_path=str(folder / "ray"), verbose=0),
    )
    results = tuner.fit()
    if results.errors:
        raise results.errors[0]
    ray.shutdown()


def start_ray(slots: int) -> None:
    import ray

    ray.init(num_cpus=slots, include_dashboard=False, log_to_driver=False)


# --- Trainer.hyperparameter_search --------------------------------------------------------------------------------


def make_searcher(workload: Workload, folder: Path) -> FineTuning:
    """Make the Trainer whose `hyperparameter_search` is called: it takes a function that makes the model."""
    tokenizer, train, validation = tokenise(workload)
    trainer = FineTuning(
        model_init=ModelOf(workload),
        args=training_arguments(workload, folder),
        train_dataset=train,
        eval_dataset=validation,
        data_collator=transformers.DataCollatorWithPadding(tokenizer),
        compute_metrics=compute_metrics,
        callbacks=[Clock(folder)],
    )
    trainer.remove_callback(transformers.PrinterCallback)
    return trainer


class ModelOf:
    """A `model_init` that can be pickled."""

    def __init__(self, workload: Workload) -> None:
        self._workload = workload

    def __call__(self) -> Any:
        return load_model(self._workload)


def accuracy_of(metrics: dict[str, float]) -> float:
    return metrics["eval_accuracy"]


def hyperparameter_search_ray(workload: Workload, folder: Path) -> None:
    """Try the configurations one by one, as Ray's BasicVariantGenerator takes them."""
    from ray import tune
    from ray.tune.search import BasicVariantGenerator

    points = [arguments_of(configuration) for configuration in workload.configurations]
    search_with_ray(
        make_searcher(workload, folder),
        folder,
        slots=workload.slots,
        space={name: tune.choice([point[name] for point in points]) for name in points[0]},
        n_trials=len(points),
        search_alg=BasicVariantGenerator(points_to_evaluate=points),
    )


def search_with_ray(
    trainer: FineTuning, folder: Path, *, slots: int, space: dict[str, Any], n_trials: int, **options: Any
) -> None:
    import ray

    start_ray(slots)
    trainer.hyperparameter_search(
        hp_space=lambda _: space,
        compute_objective=accuracy_of,
        n_trials=n_trials,
        direction="maximize",
        backend="ray",
        resources_per_trial={"cpu": 1},
        storage_path=str(folder / "ray"),
        verbose=0,
        **options,
    )
    ray.shutdown()


def hyperparameter_search_optuna(workload: Workload, folder: Path) -> None:
    """Try the configurations one after another in this process, on all cores."""
    points = [arguments_of(configuration) for configuration in workload.configurations]
    search_with_optuna(
        make_searcher(workload, folder), hp_space=lambda trial: points[trial.number], n_trials=len(points)
    )


def search_with_optuna(trainer: FineTuning, *, hp_space: Callable[[Any], Any], n_trials: int, **options: Any) -> None:
    trainer.hyperparameter_search(
        hp_space=hp_space,
        compute_objective=accuracy_of,
        n_trials=n_trials,
        direction="maximize",
        backend="optuna",
        **options,
    )


# --- what the arms of a benchmark return --------------------------------------------------------------------------

PEERS: dict[str, Callable[[Workload, Path], None]] = {
    "Ray Tune + Trainer": ray_tune_trainer,
    "hyperparameter_search, Ray": hyperparameter_search_ray,
    "hyperparameter_search, Optuna": hyperparameter_search_optuna,
}


def notes_of(folder: Path) -> list[dict[str, Any]]:
    """Return what `Clock` has noted, in order of time."""
    lines = (folder / "trials.jsonl").read_text(encoding="utf-8").splitlines()
    return sorted(map(json.loads, lines), key=lambda note: note["at"])
