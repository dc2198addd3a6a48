"""The part of a training script that reads rows, chooses among them and tokenises them.

In: the data section of a record. Out: constants and blocks. Takes what it says from the ledger.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from finesweep.export.ledger import Ledger
from finesweep.export.record import ExportRecord
from finesweep.export.script import row_blocks, token_blocks
from finesweep.export.script.text import Parts
from finesweep.export.sections import data_of, task_of
from finesweep.spec.sweep import DataSpec, Task, columns_of

_READERS = {
    ".json": ("read_json", row_blocks.READ_JSON, ("import datasets",)),
    ".jsonl": ("read_json", row_blocks.READ_JSON, ("import datasets",)),
    ".csv": ("read_csv", row_blocks.READ_CSV, ("import csv", "import sys")),
    ".parquet": ("read_parquet", row_blocks.READ_PARQUET, ("import datasets",)),
    ".arrow": ("read_arrow", row_blocks.READ_ARROW, ("import pyarrow as pa",)),
    ".txt": ("read_text", row_blocks.READ_TEXT, ("from pathlib import Path",)),
}
_SEEN = ("dataset", "config", "revision", "train", "validation", "format", "max_length", "incomplete", "seed")
_MULTI = "multi-label-classification"


def row_parts(record: ExportRecord, ledger: Ledger, parts: Parts) -> None:
    """Add all from files to `train` and `validation`, lists of rows of input_ids and labels."""
    data, task = data_of(record), task_of(record)
    for key in (*_SEEN, "max_train_rows", "max_validation_rows", *columns_of(data, task)):
        ledger.take(f"data.{key}")
    _constants(record, data, ledger, parts)
    _reading(data, parts, task=task)
    _choosing(data, parts, task=task)
    _encoding(data, parts, task=task)


def run_rows(record: ExportRecord) -> str:
    """Write the lines that read, choose and tokenise."""
    data = data_of(record)
    packed = _is_packed(data, task_of(record))
    shares = _shares(data)
    lines = [f"train = {_read(data, 'train')}"]
    if "validation" not in shares:
        lines.append(f"validation = {_read(data, 'validation')}")
    if data.incomplete == "leave-out":
        lines += [f"{split} = complete({split})" for split in ("train", "validation") if split not in shares]
    if shares:
        lines += ["parts = set_aside(train, SHARES)", 'train = parts["train"]']
        lines += ['validation = parts["validation"]'] if "validation" in shares else []
    limits = {"train": data.max_train_rows, "validation": data.max_validation_rows}
    for split, most in limits.items():
        if most is not None and not packed:
            lines.append(f"{split} = limit({split}, MAX_{split.upper()}_ROWS)")
    for split, most in limits.items():
        more = f", MAX_{split.upper()}_ROWS" if packed and most is not None else ""
        lines.append(f"{split} = encode({split}{more})")
    if not packed:
        lines.append('validation.sort(key=lambda row: len(row["input_ids"]))')
    return "\n".join(lines)


def _constants(record: ExportRecord, data: DataSpec, ledger: Ledger, parts: Parts) -> None:
    if data.dataset is not None:
        parts.constant("DATASET", data.dataset)
        if not Path(data.dataset).is_absolute():
            parts.constant("CONFIG", data.config)
            parts.constant("DATA_REVISION", data.revision)
    parts.constant("TRAIN", data.train)
    if isinstance(data.validation, str):
        parts.constant("VALIDATION", data.validation)
    if shares := _shares(data):
        parts.constant("SHARES", shares, why="of the training rows, set aside")
    if shares or data.max_train_rows or data.max_validation_rows:
        parts.constant("DATA_SEED", data.seed, why="which rows are chosen")
    for key in ("max_train_rows", "max_validation_rows"):
        if (most := getattr(data, key)) is not None:
            parts.constant(key.upper(), most)
    for key, column in columns_of(data, task_of(record)).items():
        parts.constant(key.upper(), column)
    if record.task == "causal-lm" and data.dataset is not None:
        parts.constant("LABEL", None)
    parts.constant("MAX_LENGTH", data.max_length, why="tokens")
    if record.task in ("classification", _MULTI):
        labels = record.provenance.get("labels")
        if not labels:
            ledger.refuse("data.label", "the sweep does not tell its classes. Run it again, and export that.")
        parts.constant("LABELS", list(labels or ()))


def _reading(data: DataSpec, parts: Parts, *, task: Task) -> None:
    if data.dataset is None:
        for path in (data.train, data.validation):
            if isinstance(path, str):
                _, text, imports = _READERS[Path(path).suffix]
                parts.block(text, *imports)
                if Path(path).suffix == ".arrow":
                    parts.packages.add("pyarrow")
    else:
        is_saved = Path(data.dataset).is_absolute()
        parts.block(row_blocks.READ_SAVED if is_saved else row_blocks.READ_HUB, "import datasets")
        parts.block(row_blocks.NAMED)
    if data.incomplete == "leave-out":
        if "MESSAGES" in _columns(data, task):
            parts.block(row_blocks.COMPLETE_CHATS)
        else:
            columns = ", ".join(_columns(data, task))
            parts.constants.append(f"COLUMNS = [{columns}]  # that a row must have something in")
            parts.block(row_blocks.COMPLETE)


def _columns(data: DataSpec, task: Task) -> list[str]:
    return [key.upper() for key in columns_of(data, task)]


def _choosing(data: DataSpec, parts: Parts, *, task: Task) -> None:
    shares = _shares(data)
    is_document = data.dataset is None and Path(data.train).suffix == ".txt"
    limited = not _is_packed(data, task) and (data.max_train_rows or data.max_validation_rows)
    if shares and is_document:
        parts.block(row_blocks.SET_ASIDE_DOCUMENT)
        shares = {}
    if shares or limited:
        needs = ("from collections import Counter",) if task == _MULTI else ()
        parts.block(row_blocks.STRATA.get(task, row_blocks.NO_STRATA), *needs)
        parts.block(row_blocks.SHUFFLED, "import random")
    if limited:
        parts.block(row_blocks.LIMIT)
    if shares:
        has_strata = task in row_blocks.STRATA
        parts.block(row_blocks.SET_ASIDE)
        parts.block(row_blocks.AT_LEAST_ONE if has_strata else row_blocks.NO_MINIMUM)


def _encoding(data: DataSpec, parts: Parts, *, task: Task) -> None:
    if task != "causal-lm":
        parts.block(token_blocks.TARGETS[task])
        parts.block(token_blocks.ENCODE_LABELLED if data.text_pair is None else token_blocks.ENCODE_PAIRS)
    elif data.format == "text":
        limited = data.max_train_rows or data.max_validation_rows
        text = token_blocks.ENCODE_TEXTS
        for name, lines in token_blocks.LIMITED_TEXTS.items():
            text = text.replace(name, lines if limited else "")
        parts.block(text, *(("import random",) if limited else ()))
    else:
        if data.format == "messages":
            parts.block(token_blocks.ENCODE_CHATS, "import re")
        else:
            parts.block(token_blocks.ENCODE_COMPLETIONS)
        parts.block(token_blocks.CUT)
    labels = token_blocks.LABELS_PER_TOKEN if task == "causal-lm" else token_blocks.LABELS_PER_ROW
    collate = token_blocks.COLLATE.replace("LABELS_OF_A_BATCH", labels)
    if data.text_pair is not None and task != "causal-lm":
        collate = collate.replace(token_blocks.RETURN, token_blocks.WITH_TYPES)
    parts.block(collate, "import torch")


def _read(data: DataSpec, split: str) -> str:
    if data.dataset is not None:
        return f"read_split({split.upper()})"
    return f"{_READERS[Path(getattr(data, split)).suffix][0]}({split.upper()})"


def _shares(data: DataSpec) -> dict[str, float]:
    """Return the shares of the training rows that are set aside; a test split's are rows not trained on."""
    given: dict[str, Any] = {"validation": data.validation, "test": data.test}
    return {split: value for split, value in given.items() if isinstance(value, float)}


def _is_packed(data: DataSpec, task: Task) -> bool:
    return task == "causal-lm" and data.format == "text"
