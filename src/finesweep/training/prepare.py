"""Turn a sweep's data files into token ids, once: later calls and other workers find them in the cache.

In: the resolved sweep, a cache folder. Out: `Prepared`, and the tokenised splits as memory-mapped Arrow files that
appear whole or not at all. It must not know trials.
"""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.compute as pc
from filelock import FileLock

from finesweep.errors import DataError
from finesweep.spec.sweep import TransformersSweep
from finesweep.training import report, sources
from finesweep.training.chats import check_can_chat, encode_chats
from finesweep.training.encoding import Encoded, encode_completions, encode_labelled
from finesweep.training.fit import check_fit
from finesweep.training.generation import keep_questions
from finesweep.training.model_files import resolve_model
from finesweep.training.models import load_tokenizer, max_positions
from finesweep.training.packing import pack
from finesweep.training.reading import digest_of, fingerprint_rows, is_packed, read_splits
from finesweep.training.rows import Rows
from finesweep.training.scoring import Scoring, load_scoring
from finesweep.training.sources import Source, source_of
from finesweep.training.targets import Label, classes, targets
from finesweep.training.trackers import require_trackers
from finesweep.training.whole_folder import write_whole

LAYOUT = 3  # raise it when the cached files change their meaning


@dataclass(frozen=True, slots=True)
class Prepared:
    n_train_rows: int  # examples of an epoch; of packed text: blocks
    n_validation_rows: int
    n_test_rows: int  # 0: there is no test split
    n_train_tokens: int  # that the model is given in an epoch, padding aside
    labels: tuple[str, ...]  # of classification, in the order of the model's outputs
    data_fingerprint: str
    model_fingerprint: str
    notes: tuple[str, ...]  # what a user should know of the data, one line each
    folder: Path
    scoring: Scoring


def prepare(spec: TransformersSweep, *, cache_dir: Path) -> Prepared:
    """Check the data and tokenise it unless that is done already; find all that trials are judged by.

    Raises DataError, ModelError, FunctionError, EvaluationError or TrackerError.
    """
    quiet()
    require_trackers(spec.training.report_to)
    source = resolve_model(spec.model, cache_dir=cache_dir)
    check_fit(spec, source)
    tokenizer = load_tokenizer(source)
    most = max_positions(source, tokenizer)
    if most is not None and spec.data.max_length > most:
        raise DataError(
            f"data.max_length: {spec.data.max_length} tokens are more than {spec.model.name} has positions for "
            f"({most}). "
            f"Lower it to {most} or less, or choose another model."
        )
    data = source_of(spec.data)
    key, data_fingerprint = _fingerprints(spec, data, tokenizer)
    folder = cache_dir / "data" / key
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            if not folder.exists():
                write_whole(folder, lambda beside: _write(spec, data, tokenizer, beside))
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return Prepared(
        n_train_rows=summary["n_rows"]["train"],
        n_validation_rows=summary["n_rows"]["validation"],
        n_test_rows=summary["n_rows"].get("test", 0),
        n_train_tokens=summary["n_train_tokens"],
        labels=tuple(summary["labels"]),
        data_fingerprint=data_fingerprint,
        model_fingerprint=source.fingerprint,
        notes=tuple(summary["notes"]),
        folder=folder,
        scoring=load_scoring(spec, tokenizer, prepared_dir=folder, max_positions=most),
    )


def load_split(prepared: Prepared, split: str) -> datasets.Dataset:
    """Map a tokenised split into memory: rows of input_ids and labels, of pairs of texts with token_type_ids."""
    return datasets.load_from_disk(str(prepared.folder / split))


def quiet() -> None:
    """Keep the libraries from writing into the sweep's own output."""
    import huggingface_hub
    import transformers

    sources.quiet()
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    huggingface_hub.utils.logging.set_verbosity(logging.ERROR)


def _fingerprints(spec: TransformersSweep, source: Source, tokenizer: Any) -> tuple[str, str]:
    """Return the key of the tokenised rows, and what those that trials see are recognised by."""
    rows, test = fingerprint_rows(spec, source)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    vocabulary = backend.to_str() if backend is not None else json.dumps(tokenizer.get_vocab(), sort_keys=True)
    template = tokenizer.chat_template if spec.data.format == "messages" else None
    tokens = [type(tokenizer).__name__, vocabulary, tokenizer.eos_token_id, template]
    return digest_of([LAYOUT, rows, test, spec.data.max_length, *tokens]), rows


def _write(spec: TransformersSweep, source: Source, tokenizer: Any, folder: Path) -> None:
    data = spec.data
    _check_tokenizer(spec, tokenizer)
    splits, notes = read_splits(spec, source, scratch_dir=folder)
    found = classes(splits, column=data.label, task=spec.task)
    notes += report.on_targets(splits, found, task=spec.task)
    notes += report.on_duplicates(splits)
    if spec.task == "causal-lm" and not is_packed(spec):
        keep_questions(splits["validation"].columns, folder)
    most_blocks = {"train": data.max_train_rows, "validation": data.max_validation_rows}
    n_rows, n_train_tokens = {}, 0
    for split, rows in splits.items():
        encoded = _encode(spec, tokenizer, rows, found, most_blocks.get(split))
        _check_any_left(rows, encoded, max_length=data.max_length)
        notes += report.on_tokens(split, rows, encoded, spec)
        table = encoded.table if split == "train" or is_packed(spec) else _by_length(encoded.table)
        n_rows[split] = len(table)
        if split == "train":
            n_train_tokens = report.n_tokens(table)
        datasets.Dataset(table).save_to_disk(str(folder / split))
    labels = [str(label) for label in found]
    summary = {"n_rows": n_rows, "n_train_tokens": n_train_tokens, "labels": labels, "notes": notes}
    (folder / "summary.json").write_text(json.dumps(summary, indent=1), encoding="utf-8")


def _check_tokenizer(spec: TransformersSweep, tokenizer: Any) -> None:
    if spec.task != "causal-lm":
        return
    if spec.data.format == "messages":
        check_can_chat(tokenizer, model=spec.model.name)
    elif tokenizer.eos_token_id is None:
        raise DataError(f"model: the tokenizer of {spec.model.name} has no end-of-text token. Choose another model.")


def _encode(
    spec: TransformersSweep, tokenizer: Any, rows: Rows, found: Sequence[Label], most_blocks: int | None
) -> Encoded:
    columns: Mapping[str, Sequence[Any]] = rows.columns
    max_length = spec.data.max_length
    if spec.task != "causal-lm":
        wanted = targets(rows, found, task=spec.task)
        return encode_labelled(tokenizer, columns["text"], columns.get("text_pair"), wanted, max_length=max_length)
    match spec.data.format:
        case "prompt-completion":
            return encode_completions(tokenizer, columns["prompt"], columns["completion"], max_length=max_length)
        case "messages":
            return encode_chats(tokenizer, rows, max_length=max_length)
        case "text":
            texts = list(columns["text"])
            if most_blocks is not None:  # a choice of chance among them
                random.Random(spec.data.seed).shuffle(texts)
            return pack(tokenizer, texts, max_length=max_length, most_blocks=most_blocks)


def _check_any_left(rows: Rows, encoded: Encoded, *, max_length: int) -> None:
    if len(encoded.table) == 0:
        what = "what stands before the assistant's words" if "messages" in rows.columns else "the prompt"
        raise DataError(
            f"{rows.where}: in every row {what} alone fills data.max_length ({max_length} tokens). Raise it."
        )


def _by_length(table: pa.Table) -> pa.Table:
    """Sort rows that are only scored: their order does not matter, and batches of like lengths need little padding."""
    lengths = pc.list_value_length(table["input_ids"])
    order = pc.sort_indices(
        pa.table({"length": lengths, "place": range(len(table))}), [("length", "ascending"), ("place", "ascending")]
    )
    return table.take(order)
