from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from finesweep.events import Event, Grid
from finesweep.export.record import ExportRecord, export_record
from finesweep.results.frames import Results, open_results
from finesweep.results.writer import ResultsWriter, open_writer
from finesweep.spec.sweep import SweepSpec

PROVENANCE = {
    "file": "my sweeps/tickets.yaml",
    "versions": {"torch": "2.13"},
    "model_fingerprint": "sha256:m",
    "data_fingerprint": "sha256:d",
    "labels": ["no", "yes"],
}


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[ResultsWriter]:
    with open_writer(tmp_path / "r.db") as writer:
        yield writer


@pytest.fixture
def launch(writer: ResultsWriter, make_spec: Callable[..., SweepSpec]) -> Callable[..., Results]:
    """Store a sweep of which the given batches of events came."""

    def launch(*batches: list[Event], provenance: Mapping[str, Any] = PROVENANCE, **sections: Any) -> Results:
        writer.create_sweep(make_spec(**sections), grid=Grid("examples", 100, 1000), provenance=provenance)
        for batch in batches:
            writer.listener("tickets")(batch)
        return open_results(writer.url)

    return launch


@pytest.fixture
def make_record(
    launch: Callable[..., Results], trial_events: Callable[..., list[Event]]
) -> Callable[..., ExportRecord]:
    """Make the record of a COMPLETE trial; keyword arguments replace whole sections of the sweep."""

    def make(
        *, configuration: Mapping[str, Any] | None = None, facts: Mapping[str, Any] | None = None, **sections: Any
    ) -> ExportRecord:
        told = {"learning_rate": 3.2e-05, "batch_size": 16} if configuration is None else configuration
        return export_record(launch(trial_events(0, configuration=told, facts=facts), **sections), "tickets")

    return make
