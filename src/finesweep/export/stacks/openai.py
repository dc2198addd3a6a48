"""A trial as the body of a request to OpenAI: `POST /v1/fine_tuning/jobs`, supervised fine-tuning of one of its models.

OpenAI trains its own models on its own machines and lets three numbers be set. Of a trainer of the user's own, those
three are looked for among its settings by OpenAI's names.
"""

from __future__ import annotations

import math
from typing import Any

from finesweep.export.exported import Exported
from finesweep.export.ledger import Ledger
from finesweep.export.record import ExportRecord
from finesweep.export.record_text import json_text
from finesweep.spec.protocol import request_part
from finesweep.spec.sweep import TRANSFORMERS

_OWN = ("n_epochs", "epochs", "batch_size", "learning_rate_multiplier")
_LONGEST_SUFFIX = 64  # characters of what a model is called by, as OpenAI documents


def to_openai(record: ExportRecord, ledger: Ledger) -> Exported:
    """Write the request. Refuses what OpenAI trains no model for; warns of what it decides itself."""
    hyperparameters = _of_transformers(record, ledger) if record.trainer == TRANSFORMERS else _of_own(record, ledger)
    seed = record.seed
    if seed >= 2**31:
        ledger.warn("settings.seed", f"{seed} is more than OpenAI takes; it is cut to 31 bits.")
    ledger.take("settings.seed")
    ledger.warn("data.train", "OpenAI trains on a file uploaded to it: write its id as training_file.")
    body = {
        "model": ledger.take("model.name") if record.model is not None else "",
        "training_file": "",
        "seed": seed % 2**31,
        "suffix": f"{record.sweep}-{record.trial}"[:_LONGEST_SUFFIX],
        **request_part(hyperparameters, "method"),
    }
    _warn_of_model(record, ledger)
    for item in ("evaluation.metrics", "evaluation.generation"):
        ledger.warn_unless_default(item, "OpenAI does not compute what the trial was judged by.")
    return Exported(json_text(body), warnings=ledger.close())


def _of_own(record: ExportRecord, ledger: Ledger) -> dict[str, Any]:
    told = {name: ledger.take(f"settings.{name}") for name in _OWN if name in record.settings}
    hyperparameters: dict[str, Any] = {
        name: told[name] for name in ("batch_size", "learning_rate_multiplier") if name in told
    }
    epochs = told.get("n_epochs", told.get("epochs"))
    if not told:
        ledger.refuse(
            "trainer",
            f"{record.trainer} is a function of your own, and none of its settings is called n_epochs, batch_size or "
            "learning_rate_multiplier. Use --to json.",
        )
    return hyperparameters if epochs is None else {"n_epochs": _whole_epochs(ledger, epochs), **hyperparameters}


def _of_transformers(record: ExportRecord, ledger: Ledger) -> dict[str, Any]:
    if ledger.take("task") != "causal-lm":
        ledger.refuse("task", f"{record.task} takes a head, and OpenAI trains none. Use --to script.")
    if ledger.take("settings.method") == "feature-extraction":
        ledger.refuse("settings.method", "OpenAI lets nobody choose which weights are frozen. Use --to script.")
    elif record.settings["method"] == "lora":
        ledger.warn("settings.method", "OpenAI decides itself which weights move.")
        for name in ("lora_rank", "lora_alpha", "lora_dropout", "lora_target_modules"):
            ledger.warn(f"settings.{name}", "OpenAI has no word for it.")
    for name in ("unfrozen_layers", "pooling"):
        ledger.warn_unless_default(f"settings.{name}", "OpenAI has no word for it.")
    if (kind := ledger.take("data.format")) != "messages":
        ledger.warn("data.format", f"OpenAI takes files of chats, and the rows are {kind}: rewrite them as messages.")
    rate = record.settings["learning_rate"]
    ledger.warn(
        "settings.learning_rate",
        f"{rate:g} cannot be said: OpenAI takes a multiple of a rate of its own, which it does not tell. It chooses.",
    )
    for name in ("warmup_steps", "warmup_ratio", "weight_decay", "early_stopping_patience"):
        ledger.warn_unless_default(f"settings.{name}", "OpenAI has no word for it: it decides itself.")
    ledger.warn_unless_default("settings.early_stopping_min_delta", "OpenAI has no word for it.")
    ledger.warn_unless_default("settings.device_batch_size", "OpenAI trains on devices of its own.")
    for item in ("data.dataset", "data.config", "data.revision", "data.validation", "data.max_length"):
        ledger.warn_unless_default(item, "OpenAI sees the files that are uploaded, and they whole.")
    return {
        "n_epochs": _whole_epochs(ledger, ledger.take("settings.epochs")),
        "batch_size": ledger.take("settings.batch_size"),
        "learning_rate_multiplier": "auto",
    }


def _whole_epochs(ledger: Ledger, epochs: float) -> int:
    whole = max(1, math.ceil(epochs))
    if whole != epochs:
        ledger.warn("settings.epochs", f"OpenAI takes whole epochs: {epochs:g} are written as {whole}.")
    return whole


def _warn_of_model(record: ExportRecord, ledger: Ledger) -> None:
    name = None if record.model is None else record.model["name"]
    ledger.warn("model.name", f"OpenAI trains its own models alone: write one of them as model in place of {name}.")
    for key in ("revision", "attention", "quantize", "trust_remote_code", "allow_pickle"):
        ledger.warn_unless_default(f"model.{key}", "it is about weights that OpenAI does not train.")
    ledger.warn_unless_default("model.dtype", "it is about weights that OpenAI does not train.")
