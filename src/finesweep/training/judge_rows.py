"""Judge a trained model by the rows of any split, as trials are judged by the validation rows.

In: a model, tokenised rows, how the sweep scores. Out: named numbers, but none of what is generated: the questions are
validation rows. It must not know trials.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import transformers

from finesweep.spec.settings import transformers_arguments
from finesweep.spec.sweep import TrainingSpec
from finesweep.training.encoding import Tokenizer, collator, pad_id_of
from finesweep.training.hf_trainer import SweepTrainer
from finesweep.training.methods import trainable
from finesweep.training.models import Model
from finesweep.training.recipe import rows_without_gradients
from finesweep.training.scoring import Scoring

_NUMERICS = (
    "bf16",
    "fp16",
    "bf16_full_eval",
    "fp16_full_eval",
    "tf32",
)  # of TrainingArguments: how a forward pass counts


def score_rows(
    model: Model,
    rows: datasets.Dataset,
    *,
    scoring: Scoring,
    tokenizer: Tokenizer,
    settings: TrainingSpec,
    use_cpu: bool,
    scratch_dir: Path,
) -> Mapping[str, float]:
    """Score a model in the precision of its training, in smaller batches where the device's memory demands it.

    rows: of `load_split`, with input_ids and labels. `scratch_dir` is there; nothing is left in it. Raises
    ResourcesError where not a single row fits.
    """
    passed_on: Mapping[str, Any] = transformers_arguments(settings)
    numerics = {name: passed_on[name] for name in _NUMERICS if name in passed_on}
    arguments = transformers.TrainingArguments(
        **numerics,
        output_dir=str(scratch_dir),
        per_device_eval_batch_size=rows_without_gradients(scoring.kind, use_cpu=use_cpu),
        use_cpu=use_cpu,
        dataloader_pin_memory=not use_cpu,
        remove_unused_columns=False,
        label_names=["labels"],
        report_to="none",
        disable_tqdm=True,
        log_level="error",
    )
    trainer = SweepTrainer(
        args=arguments,
        scoring=replace(scoring, writing=None),
        trainable=trainable(model),
        data_collator=collator(pad_id_of(tokenizer)),
        eval_dataset=rows,
    )
    trainer.remove_callback(transformers.PrinterCallback)
    return trainer.score()
