"""Sections of a record as the spec's own models, for trials of the trainer that comes with finesweep."""

from __future__ import annotations

from finesweep.export.record import ExportRecord
from finesweep.spec.sweep import METRICS, DataSpec, Task


def data_of(record: ExportRecord) -> DataSpec:
    """Return the data section as a sweep has it: without the fingerprint."""
    assert record.data is not None, "asked of a trainer of the user's own"
    return DataSpec.model_validate({key: value for key, value in record.data.items() if key != "fingerprint"})


def task_of(record: ExportRecord) -> Task:
    return next(task for task in METRICS if task == record.task)
