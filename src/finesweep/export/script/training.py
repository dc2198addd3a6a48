"""The part of a training script that trains, judges and saves.

In: arguments for transformers, the schedule that the trial had. Out: constants and blocks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from finesweep.export.batch import Spread
from finesweep.export.ledger import Ledger
from finesweep.export.record import ExportRecord
from finesweep.export.script import training_blocks
from finesweep.export.script.model import run_model
from finesweep.export.script.rows import run_rows
from finesweep.export.script.text import Parts, literal

_COMPUTED = ("train_sampling_strategy", "dataloader_pin_memory")


def training_parts(
    record: ExportRecord, ledger: Ledger, parts: Parts, *, arguments: Mapping[str, Any], spread: Spread
) -> None:
    """Add the trainer, the metrics, and the lines that are run."""
    task, settings = str(record.task), record.settings
    parts.constant("SEED", ledger.take("settings.seed"))
    parts.constant("EPOCHS", settings["epochs"])
    parts.constant("BATCH_SIZE", spread.batch_size, why="examples of an optimizer step, over all devices")
    parts.constant("ROWS_AT_ONCE", spread.device_batch_size, why="the most that a device takes")
    stop_at = stop_step(record)
    if stop_at is not None:
        why = "optimizer step that the trial's value came from; None: train to the end"
        parts.constant("STOP_AT", stop_at, why=why)
        parts.block(training_blocks.STOP, "from transformers import TrainerCallback")
    smoothing = arguments.get("label_smoothing_factor", 0.0)
    loss = training_blocks.LOSSES[task].replace("SMOOTHING", repr(smoothing))
    parts.block(loss if smoothing else loss.replace(", label_smoothing=0.0", ""), "import torch")
    parts.block(training_blocks.MEAN_LOSS)
    trainer = training_blocks.TRAINER.replace("N_LOSSES", training_blocks.COUNTS.get(task, training_blocks.COUNTS[""]))
    strategy, drop_last = settings.get("train_sampling_strategy", "random"), settings.get("dataloader_drop_last", False)
    parts.block(trainer + _sampler(parts, strategy, drop_last=drop_last), "from transformers import Trainer")
    parts.block(training_blocks.STATISTICS[task])
    parts.block(training_blocks.FIRST)
    needs = ("from scipy.stats import spearmanr",) if task == "regression" else ()
    parts.block(training_blocks.SCORES[task], "import numpy as np", *needs)
    if task == "regression":
        parts.packages.add("scipy")
    parts.block(run_model(record, parts))
    parts.block(run_rows(record))
    parts.block(_run(record, arguments, stop_at, drop_last=drop_last), "import json", "import math", "import os")
    parts.imports |= {"from pathlib import Path", "from transformers import TrainingArguments"}


def stop_step(record: ExportRecord) -> int | None:
    """Return the optimizer step whose report the trial's value is of; None for the last of all, or if none tells."""
    facts, grid, step = record.facts, record.grid, record.value_step
    total, rows = facts.get("optimizer_steps"), facts.get("examples_per_epoch")
    batch_size = int(record.settings["batch_size"])
    if step is None or not isinstance(total, int) or not isinstance(rows, int):
        return None
    if grid["unit"] == "progress":
        at = math.ceil(step * total / 100)
    else:
        epochs, rest = divmod(step, rows)
        at = epochs * math.ceil(rows / batch_size) + math.ceil(rest / batch_size)
    return None if at >= total else at


def _sampler(parts: Parts, strategy: str, *, drop_last: bool) -> str:
    """Write the order of rows where it is not what transformers makes of the seed."""
    if strategy != "group_by_length" and not drop_last:
        return ""
    match strategy:
        case "group_by_length":
            parts.block(training_blocks.BY_LENGTH, "from transformers.trainer_pt_utils import LengthGroupedSampler")
            order = 'ByLength(BATCH_SIZE, [len(row["input_ids"]) for row in self.train_dataset])'
        case "sequential":
            order = "torch.utils.data.SequentialSampler(self.train_dataset)"
        case _:
            parts.imports.add("from accelerate.data_loader import SeedableRandomSampler")
            order = "SeedableRandomSampler(self.train_dataset, data_seed=SEED)"
    if not drop_last:
        return training_blocks.SAMPLER.replace("        order = ORDER\n", "").replace("SAMPLER_EXPRESSION", order)
    parts.block(training_blocks.WHOLE_BATCHES, "import itertools")
    whole = "WholeBatches(len(self.train_dataset), order)"
    return training_blocks.SAMPLER.replace("ORDER", order).replace("SAMPLER_EXPRESSION", whole)


def _run(record: ExportRecord, arguments: Mapping[str, Any], stop_at: int | None, *, drop_last: bool) -> str:
    said = {name: value for name, value in arguments.items() if name not in _COMPUTED}
    if arguments.get("train_sampling_strategy") == "sequential":
        said["train_sampling_strategy"] = "sequential"
    listed = "".join(f"    {name}={literal(value)},\n" for name, value in said.items())
    eval_rows = record.facts.get("eval_batch_size")
    rows = eval_rows if isinstance(eval_rows, int) else "max(32, rows_at_once)"
    pinned = "torch.cuda.is_available()" if arguments.get("dataloader_pin_memory", True) else "False"
    per_epoch = "(len(train) // BATCH_SIZE)" if drop_last else "math.ceil(len(train) / BATCH_SIZE)"
    stop = "trainer.add_callback(StopAtTheTrialsStep())\n" if stop_at is not None else ""
    return f"""
n_devices = int(os.environ.get("WORLD_SIZE", 1))
if BATCH_SIZE % n_devices:
    raise SystemExit(f"{{BATCH_SIZE}} examples cannot be shared alike by {{n_devices}} devices: use a divisor of it.")
share = BATCH_SIZE // n_devices
rows_at_once = next(n for n in range(min(share, ROWS_AT_ONCE), 0, -1) if share % n == 0)

arguments = TrainingArguments(
    output_dir={literal(f"{record.sweep}-{record.trial}")},
    max_steps=math.ceil(EPOCHS * {per_epoch}),
    per_device_train_batch_size=rows_at_once,
    gradient_accumulation_steps=share // rows_at_once,
    per_device_eval_batch_size={rows},
    seed=SEED,
    data_seed=SEED,
{listed}    use_cpu=not torch.cuda.is_available(),
    dataloader_pin_memory={pinned},
    remove_unused_columns=False,
    label_names=["labels"],
    save_strategy="no",
    report_to="none",
)
if arguments.world_size != n_devices:
    raise SystemExit(f"started as one of {{n_devices}} processes, but the Trainer knows of {{arguments.world_size}}.")
trainer = WholeStepTrainer(
    model=model,
    args=arguments,
    train_dataset=train,
    eval_dataset=validation,
    data_collator=collate,
    compute_loss_func=mean_loss,
    preprocess_logits_for_metrics=statistics,
)
{stop}trainer.train()

judged = trainer.predict(validation)
metrics = {{name: float(value) for name, value in scores(judged.predictions, judged.label_ids).items()}}
trainer.save_model()
if trainer.is_world_process_zero():
    tokenizer.save_pretrained(arguments.output_dir)
    Path(arguments.output_dir, "metrics.json").write_text(json.dumps(metrics, indent=2))
    print(json.dumps(metrics, indent=2))
    print({literal(f"The trial came to {record.metric} {record.value!r}.")})
"""
