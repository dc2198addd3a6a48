"""What a user should know of the data before anything is trained on it: one line for each thing.

In: rows of all splits, and what they became as tokens. Out: notes.
"""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations

import pyarrow as pa
import pyarrow.compute as pc

from finesweep.spec.sweep import Task, TransformersSweep
from finesweep.training.encoding import IGNORED, Encoded
from finesweep.training.rows import Rows
from finesweep.training.targets import Label

_NAMED = 5  # classes in a note


def on_targets(splits: Mapping[str, Rows], classes: Sequence[Label], *, task: Task) -> list[str]:
    """Tell how the targets are spread, and what answering without looking would score."""
    match task:
        case "classification":
            return [_one_answer(splits["validation"], len(classes)), *_spread(splits, classes)]
        case "multi-label-classification":
            return [*_sets(splits, len(classes)), *_spread(splits, classes)]
        case "regression":
            return [_range(splits)]
        case _:
            return []


def on_duplicates(splits: Mapping[str, Rows]) -> list[str]:
    """Tell of rows that stand in two splits: a score on rows that were learnt by heart says little."""
    inputs = {split: _inputs(rows) for split, rows in splits.items()}
    notes = []
    for known, judged in combinations(splits, 2):
        seen = set(inputs[known])
        if n := sum(key in seen for key in inputs[judged]):
            where = "training" if known == "train" else known
            what = _input_name(splits[judged])
            notes.append(f"{n} of {len(splits[judged])} {judged} rows have a {what} that is also in {where}")
    return notes


def on_tokens(split: str, rows: Rows, encoded: Encoded, spec: TransformersSweep) -> list[str]:
    """Tell of rows that were cut or left out for their length, and of how many tokens there is something to learn."""
    n, length = len(encoded.table), spec.data.max_length
    if spec.task == "causal-lm" and spec.data.format == "text":
        return [f"{split}: {n:,} blocks of at most {length} tokens, made of {len(rows):,} text{'s'[: len(rows) > 1]}"]
    notes = []
    if encoded.n_cut:
        notes.append(f"{split}: {encoded.n_cut} of {n} rows are cut at {length} tokens ({encoded.n_cut / n:.1%})")
    if encoded.n_left_out:
        before = "prompt" if "prompt" in rows.columns else "part before the assistant's words"
        notes.append(f"{split}: {encoded.n_left_out} rows are left out, their {before} alone fills {length} tokens")
    if spec.task == "causal-lm":
        notes.append(_learnt_tokens(split, encoded.table))
    return notes


def n_tokens(table: pa.Table) -> int:
    return int(pc.sum(pc.list_value_length(table["input_ids"])).as_py())


def _one_answer(validation: Rows, n_classes: int) -> str:
    label, n = Counter(validation.columns["label"]).most_common(1)[0]
    share = n / len(validation)
    return f"{n_classes} classes; always answering {str(label)!r} would score {share:.3f} accuracy in validation"


def _sets(splits: Mapping[str, Rows], n_classes: int) -> list[str]:
    train, validation = (list(map(frozenset, splits[split].columns["label"])) for split in ("train", "validation"))
    common, _ = Counter(train).most_common(1)[0]
    share = sum(given == common for given in validation) / len(validation)
    named = ", ".join(repr(str(label)) for label in sorted(common, key=str)) or "none"
    mean, n_without = statistics.fmean(map(len, train)), sum(not given for given in train)
    return [
        f"{n_classes} classes; a training row has {mean:.2f} of them on average, {n_without} of {len(train)} have none",
        f"always answering {named} would score {share:.3f} subset_accuracy in validation",
    ]


def _spread(splits: Mapping[str, Rows], classes: Sequence[Label]) -> list[str]:
    counts = {split: _counts(rows) for split, rows in splits.items()}
    order = sorted(classes, key=lambda label: counts["train"][label])
    few, many = order[0], order[-1]
    train = counts["train"]
    notes = [f"classes have from {train[few]:,} ({str(few)!r}) to {train[many]:,} ({str(many)!r}) training rows"]
    for split in splits:
        if missing := [str(label) for label in classes if not counts[split][label]]:
            more = ", ..." if len(missing) > _NAMED else ""
            listed = ", ".join(map(repr, missing[:_NAMED])) + more
            notes.append(f"{split}: no row of {len(missing)} of the classes: {listed}")
    return notes


def _counts(rows: Rows) -> Counter[Label]:
    values = rows.columns["label"]
    return Counter(label for value in values for label in (value if isinstance(value, tuple) else (value,)))


def _range(splits: Mapping[str, Rows]) -> str:
    train, validation = (splits[split].columns["label"] for split in ("train", "validation"))
    mean = statistics.fmean(train)
    errors = [value - mean for value in validation]
    rmse = statistics.fmean(error * error for error in errors) ** 0.5
    mae = statistics.fmean(map(abs, errors))
    return (
        f"the training rows ask for {min(train):g} to {max(train):g}, {mean:.4g} on average; always answering that "
        f"would score rmse {rmse:.4g} and mae {mae:.4g} in validation"
    )


def _inputs(rows: Rows) -> list[str | tuple[str, ...]]:
    columns = rows.columns
    if "messages" in columns:
        return [json.dumps(chat) for chat in columns["messages"]]
    if "text_pair" in columns:
        return list(zip(columns["text"], columns["text_pair"], strict=True))
    return list(columns["prompt" if "prompt" in columns else "text"])


def _input_name(rows: Rows) -> str:
    names = {"messages": "chat", "text_pair": "pair of texts", "prompt": "prompt"}
    return next((name for key, name in names.items() if key in rows.columns), "text")


def _learnt_tokens(split: str, table: pa.Table) -> str:
    """Count the tokens that bear loss, in all and row by row."""
    rows = pc.list_parent_indices(table["labels"].combine_chunks())
    marks = pc.not_equal(pc.list_flatten(table["labels"].combine_chunks()), IGNORED)
    counts = list(Counter(rows.filter(marks).to_pylist()).values())
    return (
        f"{split}: {sum(counts):,} of {n_tokens(table):,} tokens are to be learnt, {min(counts)} to {max(counts)} a "
        f"row ({statistics.median(counts):g} in the middle)"
    )
