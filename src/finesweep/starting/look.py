"""Read a file of rows, and ask a model how long they are. In: paths. Out: columns, lengths. Imports what trains."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets

from finesweep.errors import ModelError
from finesweep.spec.sweep import ModelSpec
from finesweep.starting.columns import Column, profile
from finesweep.training.files import open_file
from finesweep.training.model_files import ModelSource, resolve_model
from finesweep.training.models import load_config, load_tokenizer, max_positions
from finesweep.training.prepare import quiet

_MOST_MEASURED = 1000  # rows whose lengths are taken
_MOST_CHARACTERS = 20_000  # of a row; a book is measured by its beginning
_CHARACTERS_PER_TOKEN = 4  # of English text, where no tokenizer can be asked
_LAYERS_UNKNOWN = 2


@dataclass(frozen=True, slots=True)
class Table:
    path: Path
    rows: datasets.Dataset
    columns: tuple[Column, ...]

    @property
    def is_document(self) -> bool:
        return self.path.suffix == ".txt"


@dataclass(frozen=True, slots=True)
class Measured:
    lengths: tuple[int, ...]  # tokens of some rows
    positions: int | None
    layers: int
    note: str | None  # what could not be asked


def read_table(path: Path, *, key: str) -> Table:
    """Read a file and look through its columns. Raises DataError."""
    quiet()
    with tempfile.TemporaryDirectory() as scratch:
        rows = open_file(path, where=f"--{key}: {path}", text_column="text", scratch_dir=Path(scratch))
    columns = [profile(name, rows[name][:], is_text=path.suffix == ".csv") for name in rows.column_names]
    return Table(path, rows, tuple(columns))


def measure(table: Table, columns: Sequence[str], model: str, *, cache_dir: Path) -> Measured:
    """Count the tokens of some rows. A hub model that cannot be had now is guessed at. Raises ModelError."""
    step = max(1, len(table.rows) // _MOST_MEASURED)
    some = table.rows.select(range(0, len(table.rows), step))
    whole = [" ".join(_as_text(row[name]) for name in columns) for row in some]
    texts = [text[:_MOST_CHARACTERS] for text in whole]
    try:
        source = resolve_model(ModelSpec(name=model), cache_dir=cache_dir)
        tokenizer = load_tokenizer(source)
    except ModelError as error:
        if model.startswith("package:") or Path(model).is_absolute():
            raise
        lengths = [len(text) // _CHARACTERS_PER_TOKEN + 2 for text in whole]
        return Measured(tuple(lengths), None, _LAYERS_UNKNOWN, f"lengths are guessed from characters: {error}")
    counted = [len(ids) for ids in tokenizer(texts)["input_ids"]]
    lengths = [n * len(text) // max(1, len(cut)) for n, text, cut in zip(counted, whole, texts, strict=True)]
    return Measured(tuple(lengths), max_positions(source, tokenizer), _layers(source), None)


def _as_text(value: Any) -> str:
    if isinstance(value, list):  # a chat
        return " ".join(str(turn.get("content") or "") for turn in value if isinstance(turn, dict))
    return "" if value is None else str(value)


def _layers(source: ModelSource) -> int:
    return int(getattr(load_config(source).get_text_config(), "num_hidden_layers", _LAYERS_UNKNOWN))
