"""A sweep in a real results database, with what every backend must have made of it in the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from optuna.samplers import BaseSampler

from finesweep.events import (
    AttemptEnded,
    AttemptStarted,
    Decision,
    Ending,
    Event,
    Grid,
    Report,
    Reported,
    SweepHistory,
    TrialFinished,
    TrialSpec,
    TrialState,
    TrialSuggested,
)
from finesweep.results.writer import ResultsWriter
from finesweep.scheduling.simulated import Says, Stage
from finesweep.search.broker import TrialBroker
from finesweep.spec.sweep import SweepSpec, read_sweep

GRID = Grid("examples", every=100, longest=300)
ASHA = {"type": "asha", "first_rung": 100, "reduction_factor": 2}


def no_tick() -> None:
    pass


def says(step: int, accuracy: float, *, after_s: float = 1.0) -> Says:
    return Says(after_s, Report(step, {"accuracy": accuracy}, step, final=step == GRID.longest))


def climbing(trial: TrialSpec) -> Sequence[Stage]:
    """Three reports that depend on nothing but the number."""
    level = (7 * trial.number % 10) / 10
    return [says(step, level + step / 10_000) for step in (100, 200, 300)]


class StoredSweep:
    """A stored sweep and its brokers, one after another as after restarts."""

    def __init__(self, writer: ResultsWriter, spec: SweepSpec) -> None:
        self.writer, self.spec = writer, spec
        writer.create_sweep(spec, grid=GRID, provenance={})
        self.events: list[Event] = []
        self._store = writer.listener(spec.name)

    def broker(
        self,
        *,
        also: Callable[[Sequence[Event]], None] | None = None,
        sampler: BaseSampler | None = None,
        retry_on: Collection[Ending] = (Ending.LOST,),
    ) -> TrialBroker:
        def hear(events: Sequence[Event]) -> None:
            self._store(events)
            self.events.extend(events)
            if also is not None:
                also(events)

        return TrialBroker(
            self.spec.study,
            name=self.spec.name,
            grid=GRID,
            n_trials=self.spec.budget.trials,
            retries=self.spec.budget.retries,
            retry_on=retry_on,
            listener=hear,
            history=self.history(),
            sampler=sampler,
        )

    def history(self) -> SweepHistory:
        return self.writer.history(self.spec.name)

    def heard(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


def sweep_spec(name: str, trials: int, retries: int, pruner: Mapping[str, Any]) -> SweepSpec:
    study = {
        "objective": {"metric": "accuracy", "direction": "maximize"},
        "sampler": {"type": "random", "seed": 0},
        "pruner": pruner,
        "parameters": {"learning_rate": {"type": "float", "low": 1e-5, "high": 1e-3, "log": True}},
    }
    content = {
        "name": name,
        "model": "none",
        "task": "classification",
        "data": {"train": "/t.jsonl", "validation": "/v.jsonl"},
        "budget": {"trials": trials, "retries": retries},
        "study": study,
    }
    return read_sweep(content)


def assert_whole(sweep: StoredSweep, broker: TrialBroker) -> None:
    """Each suggested trial ended once, each begun attempt too; study and results agree; nothing is reported twice."""
    records = sweep.history().trials
    suggested = [event.number for event in sweep.heard(TrialSuggested)]
    assert suggested == list(range(len(records)))
    assert sorted(event.number for event in sweep.heard(TrialFinished)) == suggested
    begun = Counter((event.number, event.attempt) for event in sweep.heard(AttemptStarted))
    ended = Counter((event.number, event.attempt) for event in sweep.heard(AttemptEnded))
    assert begun == ended
    assert set(begun.values()) <= {1}
    reports = Counter((event.number, event.report.step) for event in sweep.heard(Reported))
    assert set(reports.values()) <= {1}
    for record, trial in zip(records, broker.study.get_trials(deepcopy=False), strict=True):
        assert record.state is {"FAIL": TrialState.FAILED}.get(trial.state.name) or record.state == trial.state.name
        assert record.parameters == trial.params
        assert [report.step for report in record.reports] == sorted(trial.intermediate_values)
        assert record.value == (trial.value if record.state is TrialState.COMPLETE else None)
    told_to_stop = {event.number for event in sweep.heard(Reported) if event.decision is Decision.STOP}
    pruned = {record.number for record in records if record.state is TrialState.PRUNED}
    assert pruned == told_to_stop


def most_at_once(events: Sequence[Event]) -> int:
    running, most = 0, 0
    for event in events:
        running += isinstance(event, AttemptStarted) - isinstance(event, AttemptEnded)
        most = max(most, running)
    return most
