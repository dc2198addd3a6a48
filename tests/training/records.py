"""A sweep of one trial of a tiny model, run as users run it, and the record that is exported of the trial."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finesweep import run
from finesweep.export.reading import read_record
from finesweep.export.record import ExportRecord, export_record
from finesweep.export.record_text import export_text
from finesweep.results.frames import Results, open_results
from finesweep.spec.sweep import SweepSpec


@dataclass(frozen=True)
class Finished:
    """A sweep that is done, of which trial 0 is looked at."""

    results: Results
    sweep: str
    folder: Path

    def record(self, **changes: Any) -> ExportRecord:
        """Read the trial's record from the file that is written of it; keys of it may be changed there."""
        return read_record(self.file(**changes))

    def file(self, **changes: Any) -> Path:
        import dataclasses

        path = self.folder / "record.json"
        record = dataclasses.replace(export_record(self.results, self.sweep, 0), **changes)
        path.write_text(export_text(record), encoding="utf-8")
        return path

    @property
    def best_dir(self) -> Path:
        """Tell where the trial's own weights lie."""
        return self.results.artifact_dir(self.sweep) / self.results.trial(self.sweep, 0).artifacts["best"]


def run_one(spec: SweepSpec, folder: Path, *, configuration: Mapping[str, Any] | None = None) -> Finished:
    start = (configuration or {"learning_rate": 1e-3},)
    one = spec.model_copy(update={"start_with": start, "try_defaults": False})
    run(one, results=str(folder / "results.db"), backend="inline")
    return Finished(open_results(folder / "results.db"), spec.name, folder)
