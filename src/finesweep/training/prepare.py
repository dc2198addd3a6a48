"""Turn a sweep's data files into token ids, once: later calls and other workers find them in the cache.

In: the resolved sweep, a cache folder. Out: `Prepared`, and the tokenised splits as memory-mapped Arrow files that
appear whole or not at all. It must not know trials.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
from filelock import FileLock

from finesweep.errors import DataError
from finesweep.spec.sweep import TransformersSweep, columns_of
from finesweep.training.encoding import EncodedRow, encode_completion, encode_labelled
from finesweep.training.generation import keep_questions
from finesweep.training.model_files import resolve_model
from finesweep.training.models import load_tokenizer, max_positions
from finesweep.training.rows import Label, Rows, class_labels, read_split
from finesweep.training.scoring import Scoring, load_scoring
from finesweep.training.whole_folder import write_whole

LAYOUT = 2  # raise it when the cached files change their meaning

_CHUNK = 1000  # rows tokenised at a time


@dataclass(frozen=True, slots=True)
class Prepared:
    n_train_rows: int
    n_validation_rows: int
    labels: tuple[str, ...]  # of classification, in the order of the model's outputs
    data_fingerprint: str
    model_fingerprint: str
    notes: tuple[str, ...]  # what a user should know of the data, one line each
    folder: Path
    scoring: Scoring


def prepare(spec: TransformersSweep, *, cache_dir: Path) -> Prepared:
    """Check the data and tokenise it unless that is done already; find all that trials are judged by.

    Raises DataError, ModelError, FunctionError or EvaluationError.
    """
    quiet()
    source = resolve_model(spec.model, cache_dir=cache_dir)
    tokenizer = load_tokenizer(source)
    most = max_positions(source, tokenizer)
    if most is not None and spec.data.max_length > most:
        raise DataError(
            f"data.max_length: {spec.data.max_length} tokens are more than {spec.model.name} has positions for "
            f"({most}). "
            f"Lower it to {most} or less, or choose another model."
        )
    key, data_fingerprint = _fingerprints(spec, tokenizer)
    folder = cache_dir / "data" / key
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            if not folder.exists():
                write_whole(folder, lambda beside: _write(spec, tokenizer, beside))
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return Prepared(
        n_train_rows=summary["n_train_rows"],
        n_validation_rows=summary["n_validation_rows"],
        labels=tuple(summary["labels"]),
        data_fingerprint=data_fingerprint,
        model_fingerprint=source.fingerprint,
        notes=tuple(summary["notes"]),
        folder=folder,
        scoring=load_scoring(spec, tokenizer, prepared_dir=folder, max_positions=most),
    )


def load_split(prepared: Prepared, split: str) -> datasets.Dataset:
    """Map a tokenised split into memory: rows of input_ids and labels."""
    return datasets.load_from_disk(str(prepared.folder / split))


def quiet() -> None:
    """Keep the libraries from writing into the sweep's own output."""
    import transformers

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # what it logs as errors is raised as well
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()


def _fingerprints(spec: TransformersSweep, tokenizer: Any) -> tuple[str, str]:
    """Return the key of the tokenised rows, and what the rows themselves are recognised by."""
    data = spec.data
    columns = columns_of(data, spec.task).values()
    chosen = [spec.task, *columns, data.max_train_rows, data.max_validation_rows, data.seed]
    files = [_file_digest(str(getattr(data, split)), split) for split in ("train", "validation")]
    rows = _digest([*chosen, *files])
    backend = getattr(tokenizer, "backend_tokenizer", None)
    vocabulary = backend.to_str() if backend is not None else json.dumps(tokenizer.get_vocab(), sort_keys=True)
    tokens = [type(tokenizer).__name__, vocabulary, tokenizer.eos_token_id]
    return _digest([LAYOUT, rows, data.max_length, *tokens]), rows


def _write(spec: TransformersSweep, tokenizer: Any, folder: Path) -> None:
    data = spec.data
    if spec.task == "causal-lm" and tokenizer.eos_token_id is None:
        raise DataError(f"model: the tokenizer of {spec.model.name} has no end-of-text token. Choose another model.")
    text_column, target_column = columns_of(data, spec.task).values()
    train, validation = (
        read_split(data, split, task=spec.task, columns=(text_column, target_column), scratch_dir=folder)
        for split in ("train", "validation")
    )
    by_class = spec.task == "classification"
    if spec.task == "causal-lm":
        keep_questions({"prompt": validation.inputs, "completion": validation.targets}, folder)
    encode: Callable[..., list[EncodedRow | None]] = encode_labelled if by_class else encode_completion
    train = _choose(train, data.max_train_rows, seed=data.seed, by_class=by_class)
    validation = _choose(validation, data.max_validation_rows, seed=data.seed, by_class=by_class)
    labels: list[Label] = class_labels(train, validation, data) if by_class else []
    notes = [*_balance_note(validation, labels), *_duplicates_note(train, validation)]
    n_rows = {}
    for split, rows in (("train", train), ("validation", validation)):
        targets = [labels.index(target) for target in rows.targets] if labels else rows.targets
        encoded: list[EncodedRow | None] = []
        for start in range(0, len(rows), _CHUNK):
            chunk = slice(start, start + _CHUNK)
            encoded += encode(tokenizer, rows.inputs[chunk], targets[chunk], max_length=data.max_length)
        kept = [row for row in encoded if row is not None]
        notes += _length_notes(split, encoded, kept, max_length=data.max_length)
        if not kept:
            raise DataError(
                f'data.{split}: {getattr(data, split)}: in every row the column "{text_column}" alone fills '
                f"data.max_length ({data.max_length} tokens). Raise max_length."
            )
        if split == "validation":  # scores do not depend on the order, and batches of like lengths need little padding
            kept.sort(key=lambda row: len(row.input_ids))
        n_rows[split] = len(kept)
        table = {"input_ids": [row.input_ids for row in kept], "labels": [row.labels for row in kept]}
        datasets.Dataset.from_dict(table).save_to_disk(str(folder / split))
    summary = {
        "n_train_rows": n_rows["train"],
        "n_validation_rows": n_rows["validation"],
        "labels": [str(label) for label in labels],
        "notes": notes,
    }
    (folder / "summary.json").write_text(json.dumps(summary, indent=1), encoding="utf-8")


def _choose(rows: Rows, most: int | None, *, seed: int, by_class: bool) -> Rows:
    """Take a random choice that the seed fixes; in classification each class keeps its share."""
    if most is None or most >= len(rows):
        return rows
    order = list(range(len(rows)))
    random.Random(seed).shuffle(order)
    if by_class:
        order.sort(key=lambda i: str(rows.targets[i]))
    return rows.take(sorted(order[k * len(rows) // most] for k in range(most)))


def _balance_note(validation: Rows, labels: Sequence[Label]) -> list[str]:
    if not labels:
        return []
    label, n = Counter(validation.targets).most_common(1)[0]
    share = n / len(validation)
    return [f"{len(labels)} classes; always answering {str(label)!r} would score {share:.3f} accuracy in validation"]


def _duplicates_note(train: Rows, validation: Rows) -> list[str]:
    known = set(train.inputs)
    n = sum(text in known for text in validation.inputs)
    return [f"{n} of {len(validation)} validation rows have a text that is also in training"] if n else []


def _length_notes(
    split: str, encoded: Sequence[EncodedRow | None], kept: Sequence[EncodedRow], *, max_length: int
) -> list[str]:
    notes = []
    if n_cut := sum(row.is_truncated for row in kept):
        notes.append(f"{split}: {n_cut} of {len(kept)} rows are cut at {max_length} tokens ({n_cut / len(kept):.1%})")
    if n_left_out := len(encoded) - len(kept):
        notes.append(f"{split}: {n_left_out} rows are left out, their prompt alone fills {max_length} tokens")
    return notes


def _file_digest(path: str, split: str) -> str:
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "blake2b").hexdigest()
    except OSError as error:
        raise DataError(
            f"data.{split}: {path} cannot be read ({error.strerror}). Correct the path; it is relative to the file "
            "that names it."
        ) from error


def _digest(parts: Sequence[Any]) -> str:
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=12).hexdigest()
