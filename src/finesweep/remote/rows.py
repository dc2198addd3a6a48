"""The files that jobs are given: rows as the protocol wants them, checked before anything is uploaded or paid.

In: a sweep's data. Out: JSON lines in the cache, by content. It must not know servers.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finesweep.durable import write_whole
from finesweep.errors import DataError
from finesweep.spec.protocol import FEWEST_ROWS, MOST_BYTES
from finesweep.spec.sweep import RemoteSweep
from finesweep.training.reading import fingerprint_rows, read_splits
from finesweep.training.rows import Rows
from finesweep.training.sources import quiet, source_of

_COMMON = 0.9  # share of rows that must end alike for it to be meant


@dataclass(frozen=True, slots=True)
class JobFile:
    """A file of rows."""

    path: Path
    digest: str
    n_rows: int
    n_bytes: int


@dataclass(frozen=True, slots=True)
class JobFiles:
    """What every job of a sweep is given."""

    train: JobFile
    validation: JobFile
    fingerprint: str  # of the rows, as a local sweep of them has it
    notes: tuple[str, ...]


def prepare_rows(spec: RemoteSweep, *, cache_dir: Path) -> JobFiles:
    """Write the rows of a sweep as files for a fine-tuning server. Raises DataError for rows that it would refuse."""
    quiet()
    source = source_of(spec.data)
    with tempfile.TemporaryDirectory() as scratch:
        splits, notes = read_splits(spec, source, scratch_dir=Path(scratch))
    is_chat = spec.data.format == "messages"
    files = {name: _write(splits[name], name, is_chat=is_chat, cache_dir=cache_dir) for name in ("train", "validation")}
    notes += _notes(splits["train"], splits["validation"], is_chat=is_chat)
    fingerprint, _ = fingerprint_rows(spec, source)
    return JobFiles(files["train"], files["validation"], fingerprint, tuple(notes))


def _write(rows: Rows, split: str, *, is_chat: bool, cache_dir: Path) -> JobFile:
    if len(rows) < FEWEST_ROWS:
        raise DataError(
            f"data.{split}: {len(rows)} rows, but fine-tuning servers want {FEWEST_ROWS} at least. Add rows"
            f"{', or raise its share' if split == 'validation' else ''}."
        )
    text = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in _rows(rows, is_chat=is_chat))
    content = text.encode()
    if len(content) > MOST_BYTES:
        raise DataError(
            f"data.{split}: {len(content) / 2**20:,.0f} MiB of rows, but fine-tuning servers take {MOST_BYTES >> 20} at"
            f" most. Set data.max_{split}_rows."
        )
    digest = hashlib.sha256(content).hexdigest()[:32]
    path = cache_dir / "remote" / f"{digest}.jsonl"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content, synced=False)  # other processes may be writing it too
    return JobFile(path, digest, len(rows), len(content))


def _rows(rows: Rows, *, is_chat: bool) -> Sequence[Mapping[str, Any]]:
    if is_chat:
        return [{"messages": list(messages)} for messages in rows.columns["messages"]]
    pairs = zip(rows.columns["prompt"], rows.columns["completion"], strict=True)
    return [{"prompt": prompt, "completion": completion} for prompt, completion in pairs]


def _notes(train: Rows, validation: Rows, *, is_chat: bool) -> list[str]:
    """Say what the makers of such models advise, where the rows are not so."""
    known = [json.dumps(row, sort_keys=True) for row in _rows(train, is_chat=is_chat)]
    notes = []
    n_twice = len(known) - len(set(known))
    if n_twice:
        notes.append(f"train: {n_twice} rows are there more than once, and are paid for each time")
    both = len(set(known) & {json.dumps(row, sort_keys=True) for row in _rows(validation, is_chat=is_chat)})
    if both:
        notes.append(f"validation: {both} rows are also in train, so it says less than it seems to")
    if is_chat:
        return notes
    for split, rows in (("train", train), ("validation", validation)):
        prompts, completions = rows.columns["prompt"], rows.columns["completion"]
        if not _end_alike(prompts):
            notes.append(f"{split}: prompts do not end alike; end each with a separator, as in '\\n\\n###\\n\\n'")
        if not _end_alike(completions):
            notes.append(f"{split}: completions do not end alike; end each with what stops the model, as in ' END'")
        if sum(text[:1].isspace() for text in completions) < _COMMON * len(completions):
            notes.append(f"{split}: completions do not begin with a space, as tokenizers of completion models expect")
    return notes


def _end_alike(texts: Sequence[str]) -> bool:
    """Tell whether nearly all texts end in the same character that is no letter or digit."""
    ends = Counter(text[-1:] for text in texts)
    last, n = ends.most_common(1)[0]
    return not last.isalnum() and n >= _COMMON * len(texts)
