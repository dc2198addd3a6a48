"""What the tests of several rooms share: a sweep, the events of a trial's life, a database server."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest

from finesweep.events import (
    AttemptDescribed,
    AttemptEnded,
    AttemptResult,
    AttemptStarted,
    Decision,
    Ending,
    Event,
    Report,
    Reported,
    Source,
    TrialFinished,
    TrialState,
    TrialSuggested,
)
from finesweep.spec.sweep import SweepSpec, read_sweep
from tests import postgresql as server

CONFIGURATION = {"learning_rate": 3.2e-05, "batch_size": 16, "scheduler": "cosine"}


@pytest.fixture(scope="session")
def postgresql() -> Iterator[server.Server]:
    """Give a server, where one can be started."""
    if reason := server.why_not():
        pytest.skip(reason)
    with server.running_server() as running:
        yield running


@pytest.fixture
def postgresql_url(postgresql: server.Server) -> Iterator[str]:
    """Give an empty database of the server."""
    with postgresql.database() as url:
        yield url


@pytest.fixture
def make_spec() -> Callable[..., SweepSpec]:
    """Make a resolved sweep; keyword arguments replace whole sections, `others` are further objectives."""

    def make(
        name: str = "tickets",
        *,
        metric: str = "accuracy",
        direction: str = "maximize",
        others: Mapping[str, str] | None = None,
        **sections: Any,
    ) -> SweepSpec:
        directions = {metric: direction, **(others or {})}
        objectives = [{"metric": name, "direction": way} for name, way in directions.items()]
        parameters = {
            "learning_rate": {"type": "float", "low": 1e-6, "high": 1e-3, "log": True},
            "batch_size": {"type": "categorical", "choices": [8, 16, 32]},
            "scheduler": {"type": "categorical", "choices": ["linear", "cosine"]},
        }
        content = {
            "name": name,
            "model": "tiny",
            "task": "classification",
            "data": {"train": "/data/train.jsonl", "validation": "/data/validation.jsonl"},
            "budget": {"trials": 10},
            "study": {"objective": objectives, "parameters": parameters},
        }
        return read_sweep(content | sections)

    return make


@pytest.fixture
def trial_events() -> Callable[..., list[Event]]:
    """Make the events of a trial that ran in one attempt, one report each 100 examples."""

    def make(
        number: int,
        values: Sequence[float] = (0.5, 0.75),
        *,
        state: TrialState | None = TrialState.COMPLETE,
        reason: str | None = None,
        configuration: Mapping[str, Any] = CONFIGURATION,
        metric: str = "accuracy",
        facts: Mapping[str, Any] | None = None,
        others: Mapping[str, Sequence[float]] | None = None,
    ) -> list[Event]:
        names = dict.fromkeys(configuration, "{}")
        events: list[Event] = [
            TrialSuggested(number, configuration, configuration, names, Source.SAMPLER, {}, {}),
            AttemptStarted(number, 1),
            AttemptDescribed(number, 1, {"device": "cpu", **(facts or {})}),
        ]
        for step, value in enumerate(values, 1):
            more = {name: by_report[step - 1] for name, by_report in (others or {}).items()}
            report = Report(step * 100, {metric: value, "loss": 1 / step, **more}, step * 100 + 4)
            events.append(Reported(number, 1, report, Decision.CONTINUE, {}))
        if state is None:
            return events
        is_complete = state is TrialState.COMPLETE
        ending = {TrialState.COMPLETE: Ending.DONE, TrialState.PRUNED: Ending.STOPPED}.get(state, Ending.FAILED)
        events.append(AttemptEnded(number, 1, AttemptResult(ending, reason)))
        best = max(values) if is_complete else None
        step = (list(values).index(max(values)) + 1) * 100 if is_complete else None
        at_best = [by_report[list(values).index(max(values))] for by_report in (others or {}).values()]
        more_values = tuple(at_best) if is_complete else ()
        events.append(TrialFinished(number, state, reason, best, step, other_values=more_values))
        return events

    return make
