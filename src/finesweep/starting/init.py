"""`finesweep init`: look at the rows, decide, write a study and a sweep that run as they are. Never overwrites."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from finesweep.errors import DataError, FinesweepError, ModelError
from finesweep.spec.faults import show
from finesweep.spec.inputs import InputProblem, resolve_data, resolve_model
from finesweep.spec.sweep import SweepName, Task
from finesweep.starting.guess import Asked, Guess, guess
from finesweep.starting.look import Measured, Table, measure, read_table
from finesweep.starting.plan import PACKED_TOKENS, Plan, make_plan
from finesweep.starting.write import Inputs, study_text, sweep_text

_LEAST_ROWS = 10  # fewer are no data set


@dataclass(frozen=True, slots=True)
class Started:
    """What was written, and what was taken for what."""

    study: Path
    sweep: Path
    remarks: tuple[str, ...]


def init(
    model: str,
    data: Path,
    *,
    cache_dir: Path,
    validation: Path | None = None,
    task: Task | None = None,
    columns: Mapping[str, str] | None = None,
    name: str | None = None,
    folder: Path,
) -> Started:
    """Write studies/NAME.yaml and sweeps/NAME.yaml below `folder`.

    Args:
        model: as a sweep names it; relative to the current folder.
        columns: key of the data section (text, label, ...) -> column, where the user says so.
        name: of the sweep; None: that of the data file.

    Raises:
        DataError, ModelError, or FinesweepError where a file is there already.
    """
    folder = folder.absolute()
    name = _checked(name) if name else _name_of(data)
    study, sweep = folder / "studies" / f"{name}.yaml", folder / "sweeps" / f"{name}.yaml"
    _refuse_existing(study, sweep)
    model, train, held_out = _resolved(model, data, validation)
    table = read_table(train, key="data")
    guessed = guess(table.columns, Asked(task, columns or {}), where=f"--data {data}")
    other = None if held_out is None else _matching(read_table(held_out, key="validation"), guessed)
    if held_out is None and guessed.task == "classification":
        _refuse_lonely(table, guessed.columns["label"])
    measured = measure(table, list(guessed.columns.values()), model, cache_dir=cache_dir)
    plan = _planned(guessed, table, other, measured)
    used = [table, *([other] if other else [])]
    n_incomplete = sum(_n_incomplete(one, guessed) for one in used)
    inputs = Inputs(name, model, train, held_out, len(table.rows), leave_out=n_incomplete > 0)
    _write(study, study_text(inputs, guessed, plan))
    _write(sweep, sweep_text(inputs, guessed, plan, folder=folder))
    return Started(study, sweep, tuple(_remarks(guessed, plan, inputs, measured, n_incomplete)))


def _name_of(data: Path) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", data.stem).strip("-._")[:80] or "sweep"


def _checked(name: str) -> str:
    try:
        return TypeAdapter(SweepName).validate_python(name)
    except ValidationError:
        raise FinesweepError(
            f"--name: {show(name)} is no name: it must begin with a letter or digit and hold only letters, digits, "
            "dots, dashes and underscores, at most 80."
        ) from None


def _refuse_existing(*paths: Path) -> None:
    for path in paths:
        if path.exists():
            raise FinesweepError(f"{path} is there already, and init overwrites nothing. Give another --name or --dir.")


def _resolved(model: str, data: Path, validation: Path | None) -> tuple[str, Path, Path | None]:
    here = Path.cwd()
    try:
        model = resolve_model(model, here)
    except InputProblem as problem:
        raise ModelError(f"--model: {_seen_from_here(problem)}") from None
    files = []
    for key, path in (("data", data), ("validation", validation)):
        try:
            files.append(Path(resolve_data(str(path), here)) if path is not None else None)
        except InputProblem as problem:
            raise DataError(f"--{key}: {_seen_from_here(problem)}") from None
    train, held_out = files
    assert train is not None, "it is given"
    return model, train, held_out


def _seen_from_here(problem: InputProblem) -> str:
    return str(problem).replace("relative to the file that names them", "relative to the current folder")


def _matching(other: Table, guessed: Guess) -> Table:
    names = [column.name for column in other.columns]
    for key, name in guessed.columns.items():
        if name not in names:
            raise DataError(
                f"--validation {other.path}: it has no column {show(name)}, which is the {key} of the training rows. "
                f"It has: {', '.join(names)}."
            )
    return other


def _refuse_lonely(table: Table, label: str) -> None:
    """Raise DataError for classes of one row, which could not be both learnt and judged."""
    counts = Counter(table.rows[label])
    lonely = [value for value, n in counts.items() if n == 1 and value not in (None, "")]
    if lonely:
        listed = ", ".join(show(value) for value in lonely[:3]) + (", ..." if len(lonely) > 3 else "")
        raise DataError(
            f"--data {table.path}: {len(lonely)} of {len(counts)} classes have one row only ({listed}), which cannot "
            "be both learnt from and judged by. Give them more rows, remove them, or give a --validation file; "
            f"if {label} is not of classes, say --label or --task."
        )


def _planned(guessed: Guess, table: Table, other: Table | None, measured: Measured) -> Plan:
    def n_units(rows: int) -> int:
        """Count rows; of texts that are packed, those that packing makes of them."""
        per_row = sum(measured.lengths) / max(1, len(measured.lengths))
        return rows if guessed.format != "text" else max(1, round(rows * per_row / PACKED_TOKENS))

    n_rows = n_units(len(table.rows))
    if n_rows < _LEAST_ROWS:
        what = "rows" if guessed.format != "text" else f"rows of {PACKED_TOKENS} tokens"
        raise DataError(
            f"--data {table.path}: {n_rows} {what} are too few to fine-tune on. Give {_LEAST_ROWS} or more."
        )
    return make_plan(
        guessed,
        n_rows=n_rows,
        n_validation_rows=None if other is None else n_units(len(other.rows)),
        lengths=measured.lengths,
        positions=measured.positions,
        layers=measured.layers,
    )


def _n_incomplete(table: Table, guessed: Guess) -> int:
    """Count the values that are missing among those that a row needs."""
    return sum(column.n_missing for column in table.columns if column.name in guessed.columns.values())


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("x", encoding="utf-8") as file:
        file.write(text)


def _remarks(guessed: Guess, plan: Plan, inputs: Inputs, measured: Measured, n_incomplete: int) -> list[str]:
    size = f"{inputs.n_rows:,} rows" if inputs.train.suffix != ".txt" else f"about {sum(measured.lengths):,} tokens"
    lines = [f"{inputs.train.name}: {size}", *guessed.reasons]
    if measured.note:
        lines.append(measured.note)
    if guessed.format != "text":
        cut = sum(length > plan.max_length for length in measured.lengths) / len(measured.lengths)
        longest = max(measured.lengths)
        lines.append(f"max_length {plan.max_length}: the longest row has about {longest} tokens, {cut:.0%} are cut")
    lines.append(f"objective {plan.metric}: {plan.why_metric}")
    if inputs.validation is None:
        lines.append(f"validation: {plan.validation_share:.0%} of the rows are set aside, as no --validation is given")
    if n_incomplete:
        lines.append(f"{n_incomplete} values are missing: rows without text or label are left out (data.incomplete)")
    return lines
