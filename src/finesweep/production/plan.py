"""From a record and what a user asks to what is trained: a sweep of one trial, its grid, and what is to be said first.

In: an `ExportRecord`, an `Asked`. Out: a `Plan`. It looks at no file of rows and loads no model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finesweep.errors import ExportError
from finesweep.events import Grid
from finesweep.export.record import ExportRecord
from finesweep.spec.faults import unknown
from finesweep.spec.inputs import InputProblem, resolve_data
from finesweep.spec.study import Objective
from finesweep.spec.sweep import TRANSFORMERS, DataSpec, TransformersSweep, read_sweep

SPLITS = ("train", "validation", "test")
TRAIN, TRAIN_AND_VALIDATION = "train", "train and validation"


@dataclass(frozen=True, slots=True)
class Asked:
    """What a user asks of a production training beside the record."""

    files: Mapping[str, Path]  # split -> file of rows, instead of the record's
    full_data: bool = False  # learn from the validation rows as well
    adapter: bool | None = None  # of LoRA: leave the adapter apart, or merge it; None: merge it where that can be
    seed: int | None = None  # None: the record's
    strict: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """A training: `spec` is a sweep of nothing but this trial, whose settings are all fixed."""

    record: ExportRecord
    asked: Asked
    spec: TransformersSweep
    grid: Grid
    stop_percent: int | None  # of the schedule, where the training is to end before it; None: at its end
    adapter: bool  # is what is written
    notes: tuple[str, ...]

    @property
    def trained_on(self) -> str:
        return TRAIN_AND_VALIDATION if self.asked.full_data else TRAIN

    @property
    def objective(self) -> Objective:
        """By which the trial was judged, whatever decides which weights of this training are kept."""
        given = self.record.objective
        return Objective.model_validate(given if isinstance(given, Mapping) else given[0])


def files_asked(texts: Sequence[str], *, folder: Path) -> dict[str, Path]:
    """Read what --data was given: FILE, which is for train, or SPLIT=FILE. Raises ExportError."""
    files: dict[str, Path] = {}
    for text in texts:
        split, sign, path = text.partition("=")
        if not sign or (split not in SPLITS and (folder / text).exists()):
            split, path = "train", text
        if split not in SPLITS:
            raise ExportError(f"--data {text}: {unknown('split', split, SPLITS)}")
        if split in files:
            raise ExportError(f"--data {text}: {split} is given twice. Give one file for it.")
        try:
            files[split] = Path(resolve_data(path, folder))
        except InputProblem as problem:
            raise ExportError(f"--data {text}: {problem}") from None
    return files


def plan_training(record: ExportRecord, asked: Asked) -> Plan:
    """Restate a record as a sweep of one trial. Raises ExportError where it cannot be trained as asked."""
    _refuse_own_trainer(record)
    _refuse_unmet(record, asked)
    data, notes = _data(record, asked.files)
    settings = {**record.settings, "report_to": []}
    if asked.seed is not None:
        settings["seed"] = asked.seed
    objective, grid, stop_percent = record.objective, Grid(**record.grid), None
    if asked.full_data:
        stop_percent = _stop_percent(record)
        settings["early_stopping_patience"] = None
        objective = {"metric": "loss", "direction": "minimize"}  # of its only report: it is kept, whatever it says
        grid = Grid("progress", every=stop_percent or 100, longest=100)
        at = "the end" if stop_percent is None else f"{stop_percent} %"
        notes.append(
            f"The validation rows are learnt from, so nothing is judged by them. Training ends at {at} of its "
            "schedule, as far as the trial's value had come."
        )
    spec = read_sweep(
        {
            "name": record.sweep,
            "study": {"objective": objective, "parameters": _NOTHING_SEARCHED},
            "model": _without_fingerprint(record.model),
            "task": record.task,
            "data": data.model_dump(mode="json"),
            "training": settings,
            "evaluation": _evaluation(record, data, asked),
            "code_dir": record.code_dir,
            "budget": {"trials": 1},
            "artifacts": {"keep": "best"},
        }
    )
    assert isinstance(spec, TransformersSweep), "own trainers are refused"
    return Plan(record, asked, spec, grid, stop_percent, _adapter(record, asked), tuple(notes))


_NOTHING_SEARCHED = {"learning_rate": {"type": "float", "low": 1e-6, "high": 1e-3}}  # a study has a parameter at least


def _refuse_own_trainer(record: ExportRecord) -> None:
    if record.remote is not None:
        tuned = record.remote["made"].get("fine_tuned_model")
        there = f": what it made of the trial is there as {tuned}" if tuned else ""
        raise ExportError(
            f"{record.sweep}:{record.trial} was a job of the fine-tuning server {record.remote['base_url']}, whose "
            f"models cannot be trained here{there}. To begin the same job again: finesweep export "
            f"{record.sweep}:{record.trial} --to openai"
        )
    if record.trainer != TRANSFORMERS:
        raise ExportError(
            f"{record.sweep}:{record.trial} was trained by {record.trainer}, a trainer of your own, and only that "
            "knows what it makes: it cannot be trained here. Call it with the settings of the record; what it kept of "
            "the trial lies in its artifact folder. To train the trial again: finesweep reproduce "
            f"{record.sweep}:{record.trial}"
        )


def _refuse_unmet(record: ExportRecord, asked: Asked) -> None:
    """Raise ExportError if --strict is to hold the training to what cannot be measured."""
    verification = record.verification
    if not asked.strict:
        return
    if verification is None or verification.get("prediction_interval") is None:
        raise ExportError(
            f"--strict holds the training to the prediction interval of a verification, and the record of "
            f"{record.sweep}:{record.trial} has none. Verify the sweep and export it again (finesweep verify "
            f"{record.sweep}; finesweep export {record.sweep}), or leave --strict out."
        )
    if asked.full_data and verification.get("split") != "test":
        raise ExportError(
            "--strict with --full-data: the verification was judged by the validation rows, and a model that has "
            "learnt from them cannot be. Leave one of the two out, or verify with data.test."
        )


def _data(record: ExportRecord, files: Mapping[str, Path]) -> tuple[DataSpec, list[str]]:
    """Lay files over the record's rows; note limits of rows that go on to hold."""
    assert record.data is not None, "only of own trainers"
    values = {key: value for key, value in record.data.items() if key != "fingerprint"}
    if files and values["dataset"] is not None:
        if "train" not in files or ("validation" not in files and isinstance(values["validation"], str)):
            raise ExportError(
                f"--data: the record's rows are splits of {values['dataset']}, which files cannot be mixed with. Give "
                "files for both: --data train=FILE --data validation=FILE."
            )
        if "test" not in files and isinstance(values["test"], str):
            values["test"] = None
        values |= {"dataset": None, "config": None, "revision": None}
    values |= {split: str(path) for split, path in files.items()}
    notes = []
    for split in ("train", "validation"):
        most = values[f"max_{split}_rows"]
        if most is not None:
            notes.append(
                f"data.max_{split}_rows is {most:,}: no more {split} rows are used, as in the sweep. For all, write "
                f"null there in the record."
            )
    return DataSpec.model_validate(values), notes


def _evaluation(record: ExportRecord, data: DataSpec, asked: Asked) -> Mapping[str, Any]:
    """Give what judges beside the task's metrics: what is generated is asked of validation rows."""
    if not asked.full_data:
        return record.evaluation
    return {"metrics": record.evaluation["metrics"] if data.test is not None else {}, "generation": None}


def _stop_percent(record: ExportRecord) -> int | None:
    """Find how much of its schedule the trial had run when its value came; None: all of it, or it is not known."""
    last = record.facts.get("last_step")
    if record.value_step is None or not isinstance(last, int) or last <= 0 or record.value_step >= last:
        return None
    return max(1, min(99, math.floor(100 * record.value_step / last + 0.5)))


def _adapter(record: ExportRecord, asked: Asked) -> bool:
    assert record.model is not None, "only of own trainers"
    quantize = record.model.get("quantize")
    if record.settings["method"] != "lora":
        if asked.adapter:
            raise ExportError(
                f"--adapter: method {record.settings['method']} trains weights of the model itself and has no adapter. "
                "Leave it out."
            )
        return False
    if quantize is not None and asked.adapter is False:
        raise ExportError(
            f"--merge: the base model is held in {quantize} weights, and an adapter merged into these is rounded away. "
            "Leave --merge out: the adapter is written by itself."
        )
    return quantize is not None if asked.adapter is None else asked.adapter


def _without_fingerprint(section: Mapping[str, Any] | None) -> dict[str, Any]:
    assert section is not None, "only of own trainers"
    return {key: value for key, value in section.items() if key != "fingerprint"}
