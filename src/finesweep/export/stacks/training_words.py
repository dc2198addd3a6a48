"""Settings in the words of transformers' TrainingArguments, which several targets read: themselves or in a subclass.

In: the ledger of a record, how its batch is spread. Out: arguments, by name. Takes what it says from the ledger.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from finesweep.export.batch import Spread
from finesweep.export.ledger import Ledger
from finesweep.export.record import ExportRecord

# Said even where the trial left them at their defaults: a target's own may be others.
LEARNING = ("optim", "adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm", "lr_scheduler_type")
_OTHER_ORDER = (
    "rows are brought together by length, but transformers draws their order from the global random state: the batches "
    "are others than the trial's."
)
_DROP = "the last rows of an epoch that fill no batch are left out on each device, and validation rows with them."


def training_arguments(
    ledger: Ledger,
    record: ExportRecord,
    spread: Spread,
    *,
    renamed: Mapping[str, str] | None = None,
    but: Collection[str] = (),
) -> dict[str, Any]:
    """Say all that TrainingArguments hold; leave passed-on arguments in `but` to the target.

    `renamed` are names that the target's version of them does not have, with those that it has instead.
    """
    passed_on = {name: ledger.take(f"settings.{name}") for name in ledger.passed_on() if name not in but}
    arguments = {
        "num_train_epochs": ledger.take("settings.epochs"),
        "learning_rate": ledger.take("settings.learning_rate"),
        "weight_decay": ledger.take("settings.weight_decay"),
        "warmup_steps": warmup_steps(ledger, record),
        **batch_words(ledger, spread),
        "seed": ledger.take("settings.seed"),
        "data_seed": ledger.take("settings.seed"),
        **{name: ledger.take(f"settings.{name}") for name in LEARNING if name not in but},
        **{(renamed or {}).get(name, name): value for name, value in passed_on.items()},
    }
    if passed_on.get("train_sampling_strategy") == "group_by_length":
        ledger.warn("settings.train_sampling_strategy", _OTHER_ORDER)
    if passed_on.get("dataloader_drop_last"):
        ledger.warn("settings.dataloader_drop_last", _DROP)
    return arguments


def batch_words(ledger: Ledger, spread: Spread) -> dict[str, Any]:
    for name in ("batch_size", "device_batch_size"):
        ledger.take(f"settings.{name}")
    return {
        "per_device_train_batch_size": spread.device_batch_size,
        "gradient_accumulation_steps": spread.accumulation,
    }


def warmup_steps(ledger: Ledger, record: ExportRecord) -> int:
    """Return the optimizer steps of warm-up that the trial had: they are the same for another number of devices."""
    asked, ratio = ledger.take("settings.warmup_steps"), ledger.take("settings.warmup_ratio")
    told = record.facts.get("warmup_steps")
    if isinstance(told, int):
        return told
    if ratio is not None:
        ledger.refuse(
            "settings.warmup_ratio",
            f"{ratio:g} of how many steps, the trial does not tell. Train it again, or write warmup_steps in a record "
            "and export that.",
        )
    return int(asked)


def warn_of_end(ledger: Ledger, record: ExportRecord) -> None:
    """Say that the trial's value is of weights that training to the end does not leave, where that is so."""
    last = record.facts.get("last_step")
    if record.value_step is not None and isinstance(last, int) and record.value_step < last:
        ledger.warn(
            "value_step",
            f"the trial's {record.metric} {record.value:.6g} came at step {record.value_step} of {last}; "
            f"{ledger.target} trains to the end.",
        )
    if record.settings.get("early_stopping_patience") is not None:
        ledger.warn("settings.early_stopping_patience", f"{ledger.target} trains to the end.")
        ledger.take("settings.early_stopping_min_delta")
    ledger.warn_unless_default(
        "settings.early_stopping_min_delta", "it says something only with early_stopping_patience."
    )


def warn_of_the_rest(ledger: Ledger, record: ExportRecord) -> None:
    """Say what no stack for language models does of a trial."""
    ledger.warn_unless_default("settings.pooling", "a language model has none.")
    warn_of_end(ledger, record)
    warn_of_scores(ledger)


def warn_of_scores(ledger: Ledger) -> None:
    """Say that nothing but the loss is computed where a trial was judged by more."""
    for item in ("evaluation.metrics", "evaluation.generation"):
        ledger.warn_unless_default(item, f"{ledger.target} does not compute what the trial was judged by.")
