"""How events change the tables. Every event may come twice: the second time changes nothing.

Works inside the transaction it is given. Statements are made once, and events of one kind that follow each other, as
the reports of a stack do, are stored by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from finesweep.errors import ResultsError
from finesweep.events import (
    AttemptDescribed,
    AttemptEnded,
    AttemptStarted,
    Ending,
    Event,
    Reported,
    TrialFinished,
    TrialInterrupted,
    TrialState,
    TrialSuggested,
)
from finesweep.results.schema import artifacts, attempts, reports, sweeps, trials
from finesweep.results.values import metrics_to_json


def record(connection: sa.Connection, sweep_id: int, events: Sequence[Event], *, now_s: float) -> None:
    """Store events of a sweep in their order. Raises ResultsError for a trial that was never suggested."""
    sweep = _Sweep(connection, sweep_id, now_s)
    sweep.read_trials({event.number for event in events if not isinstance(event, TrialSuggested)})
    for kind, alike in groupby(events, key=type):
        _HANDLERS[kind](sweep, list(alike))


def abandon_open(connection: sa.Connection, sweep_id: int, *, reason: str) -> None:
    """End the attempts that a dead driver has left open, at what was last heard of each."""
    connection.execute(_ABANDON_ATTEMPTS, {"of_sweep": sweep_id, "why": reason})
    connection.execute(_INTERRUPT_TRIALS, {"of_sweep": sweep_id})


@dataclass(slots=True)
class _Trial:
    """What is stored of a trial and decides what an event changes."""

    state: TrialState
    started_at: float | None
    examples_seen: int
    attributes: Mapping[str, Any]


@dataclass(slots=True)
class _Sweep:
    """A sweep within a transaction, with the trials that its events are about."""

    connection: sa.Connection
    sweep_id: int
    now_s: float
    trials: dict[int, _Trial] = field(default_factory=dict)

    def read_trials(self, numbers: set[int]) -> None:
        if len(numbers) == 1:  # a statement without a list of varying length need not be written anew
            [number] = numbers
            rows = self.connection.execute(_SELECT_TRIAL, {"of_sweep": self.sweep_id, "of_number": number})
        elif numbers:
            rows = self.connection.execute(_SELECT_TRIALS, {"of_sweep": self.sweep_id, "of_numbers": list(numbers)})
        else:
            return
        for number, state, *rest in rows:
            self.trials[number] = _Trial(TrialState(state), *rest)

    def trial(self, number: int) -> _Trial:
        if number not in self.trials:
            raise ResultsError(f"trial {number} was never suggested in this sweep. Tell TrialSuggested first.")
        return self.trials[number]

    def update_trial(self, number: int, **values: Any) -> None:
        self.connection.execute(_UPDATE_TRIAL, {"of_sweep": self.sweep_id, "of_number": number, **values})

    def update_trials(self, rows: Iterable[tuple[int, Mapping[str, Any]]]) -> None:
        """Update the same columns of several trials."""
        given = [{"of_sweep": self.sweep_id, "of_number": number, **values} for number, values in rows]
        if given:
            self.connection.execute(_UPDATE_TRIAL, given)

    def attempt(self, number: int, attempt: int) -> sa.Row[Any, Any]:
        where = {"of_sweep": self.sweep_id, "of_number": number, "of_attempt": attempt}
        row = self.connection.execute(_SELECT_ATTEMPT, where).first()
        if row is None:
            raise ResultsError(f"attempt {attempt} of trial {number} was never started. Tell AttemptStarted first.")
        return row

    def update_attempt(self, number: int, attempt: int, **values: Any) -> None:
        where = {"of_sweep": self.sweep_id, "of_number": number, "of_attempt": attempt}
        self.connection.execute(_UPDATE_ATTEMPT, {**where, **values})

    def insert_new(self, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> set[tuple[Any, ...]]:
        """Insert the rows whose key is not there; give these keys, without the sweep's."""
        if not rows:
            return set()
        statement = _INSERT_NEW[self.connection.dialect.name, table.name]
        given = [{"sweep_id": self.sweep_id, **row} for row in rows]
        return {tuple(key) for key in self.connection.execute(statement, given if len(given) > 1 else given[0])}

    def keep_study_attributes(self, attributes: Mapping[str, Any]) -> None:
        where = {"of_sweep": self.sweep_id}
        known = self.connection.execute(_SELECT_STUDY_ATTRIBUTES, where).scalar_one()
        if any(key not in known or known[key] != value for key, value in attributes.items()):
            self.connection.execute(_UPDATE_SWEEP, {**where, "study_attributes": {**known, **attributes}})


def _suggested(sweep: _Sweep, events: Sequence[TrialSuggested]) -> None:
    rows = [
        {
            "number": event.number,
            "state": TrialState.WAITING,
            "source": event.source,
            "configuration": event.configuration,
            "parameters": event.parameters,
            "distributions": event.distributions,
            "attributes": event.attributes,
            "twin_of": event.twin_of,
            "facts": {},
            "examples_seen": 0,
        }
        for event in events
    ]
    new = sweep.insert_new(trials, rows)
    sweep.read_trials({event.number for event in events} - sweep.trials.keys())
    for event in events:
        if (event.number,) in new:
            sweep.keep_study_attributes(event.study_attributes)


def _attempt_started(sweep: _Sweep, events: Sequence[AttemptStarted]) -> None:
    known = {event.number: sweep.trial(event.number) for event in events}
    rows = [
        {"number": event.number, "attempt": event.attempt, "started_at": sweep.now_s, "facts": {}} for event in events
    ]
    for number, _ in sorted(sweep.insert_new(attempts, rows)):
        trial = known[number]
        if not trial.state.is_final:
            trial.state = TrialState.RUNNING
            trial.started_at = sweep.now_s if trial.started_at is None else trial.started_at
            sweep.update_trial(number, state=trial.state, started_at=trial.started_at)


def _attempt_described(sweep: _Sweep, events: Sequence[AttemptDescribed]) -> None:
    for event in events:
        sweep.trial(event.number)
        attempt = sweep.attempt(event.number, event.attempt)
        if attempt.ended_at is None:
            sweep.update_attempt(event.number, event.attempt, facts={**attempt.facts, **event.facts})
            where = {"of_sweep": sweep.sweep_id, "of_number": event.number}
            known = sweep.connection.execute(_SELECT_FACTS, where).scalar_one()
            sweep.update_trial(event.number, facts={**known, **event.facts})


def _reported(sweep: _Sweep, events: Sequence[Reported]) -> None:
    taken = [event for event in events if not sweep.trial(event.number).state.is_final]
    rows = [
        {
            "number": event.number,
            "step": event.report.step,
            "attempt": event.attempt,
            "examples_seen": event.report.examples_seen,
            "final": event.report.final,
            "decision": event.decision,
            "metrics": metrics_to_json(event.report.metrics, event.report.telemetry),
            "reported_at": sweep.now_s,
        }
        for event in taken
    ]
    new = sweep.insert_new(reports, rows)
    further, noted = set(), set()
    for event in taken:
        if (event.number, event.report.step) not in new:
            continue
        trial = sweep.trial(event.number)
        further.add(event.number)
        trial.examples_seen = max(trial.examples_seen, event.report.examples_seen)
        attributes = {**trial.attributes, **event.attributes}
        if attributes != trial.attributes:  # JSON that did not change is not written again
            trial.attributes = attributes
            noted.add(event.number)
    sweep.update_trials((number, {"examples_seen": sweep.trial(number).examples_seen}) for number in sorted(further))
    sweep.update_trials((number, {"attributes": sweep.trial(number).attributes}) for number in sorted(noted))


def _attempt_ended(sweep: _Sweep, events: Sequence[AttemptEnded]) -> None:
    for event in events:
        if sweep.attempt(event.number, event.attempt).ended_at is not None:
            continue
        result = event.result
        sweep.update_attempt(
            event.number,
            event.attempt,
            ending=result.ending,
            reason=result.reason,
            traceback=result.traceback,
            ended_at=sweep.now_s,
        )
        key = {"number": event.number, "attempt": event.attempt}
        rows = [
            {**key, "kind": kind, "path": path, "n_bytes": result.artifact_bytes.get(kind), "created_at": sweep.now_s}
            for kind, path in result.artifacts.items()
        ]
        sweep.insert_new(artifacts, rows)


def _finished(sweep: _Sweep, events: Sequence[TrialFinished]) -> None:
    for event in events:
        trial = sweep.trial(event.number)
        if trial.state.is_final:
            continue
        trial.state = event.state
        attributes = {**trial.attributes, **event.attributes}
        changed = {"attributes": attributes} if attributes != trial.attributes else {}
        sweep.update_trial(
            event.number,
            state=event.state,
            reason=event.reason,
            value=event.value,
            value_step=event.value_step,
            reused_from=event.reused_from,
            finished_at=sweep.now_s,
            **changed,
        )
        sweep.keep_study_attributes(event.study_attributes)


def _interrupted(sweep: _Sweep, events: Sequence[TrialInterrupted]) -> None:
    for event in events:
        trial = sweep.trial(event.number)
        if not trial.state.is_final and not _is_last_attempt_open(sweep, event.number):
            trial.state = TrialState.INTERRUPTED
            sweep.update_trial(event.number, state=trial.state)


def _is_last_attempt_open(sweep: _Sweep, number: int) -> bool:
    """Tell whether a trial was begun again since: then an interruption told twice is an old one."""
    last = sweep.connection.execute(_SELECT_LAST_END, {"of_sweep": sweep.sweep_id, "of_number": number}).first()
    return last is not None and last.ended_at is None


_HANDLERS: Mapping[type, Callable[[_Sweep, Any], None]] = {
    TrialSuggested: _suggested,
    AttemptStarted: _attempt_started,
    AttemptDescribed: _attempt_described,
    Reported: _reported,
    AttemptEnded: _attempt_ended,
    TrialFinished: _finished,
    TrialInterrupted: _interrupted,
}


# --- statements: to make one takes four times as long as to execute it again ------------------------------------

_OF_SWEEP: sa.BindParameter[int] = sa.bindparam("of_sweep")
_OF_NUMBER: sa.BindParameter[int] = sa.bindparam("of_number")
_OF_ATTEMPT: sa.BindParameter[int] = sa.bindparam("of_attempt")
_THIS_TRIAL = (trials.c.sweep_id == _OF_SWEEP, trials.c.number == _OF_NUMBER)
_ITS_ATTEMPTS = (attempts.c.sweep_id == _OF_SWEEP, attempts.c.number == _OF_NUMBER)
_THIS_ATTEMPT = (*_ITS_ATTEMPTS, attempts.c.attempt == _OF_ATTEMPT)
_THIS_SWEEP = sweeps.c.id == _OF_SWEEP

_TRIALS = sa.select(trials.c.number, trials.c.state, trials.c.started_at, trials.c.examples_seen, trials.c.attributes)
_SELECT_TRIAL = _TRIALS.where(*_THIS_TRIAL)
_SELECT_TRIALS = _TRIALS.where(
    trials.c.sweep_id == _OF_SWEEP, trials.c.number.in_(sa.bindparam("of_numbers", expanding=True))
)
_SELECT_FACTS = sa.select(trials.c.facts).where(*_THIS_TRIAL)
_SELECT_ATTEMPT = sa.select(attempts.c.ended_at, attempts.c.facts).where(*_THIS_ATTEMPT)
_SELECT_LAST_END = (
    sa.select(attempts.c.ended_at).where(*_ITS_ATTEMPTS).order_by(attempts.c.attempt.desc()).limit(sa.literal(1))
)
_SELECT_STUDY_ATTRIBUTES = sa.select(sweeps.c.study_attributes).where(_THIS_SWEEP)

_UPDATE_TRIAL = sa.update(trials).where(*_THIS_TRIAL)  # which columns are set is given with the values
_UPDATE_ATTEMPT = sa.update(attempts).where(*_THIS_ATTEMPT)
_LAST_HEARD = sa.select(sa.func.max(reports.c.reported_at)).where(
    reports.c.sweep_id == attempts.c.sweep_id,
    reports.c.number == attempts.c.number,
    reports.c.attempt == attempts.c.attempt,
)
_ABANDON_ATTEMPTS = (
    sa.update(attempts)
    .where(attempts.c.sweep_id == _OF_SWEEP, attempts.c.ended_at.is_(None))
    .values(
        ending=Ending.ABANDONED,
        reason=sa.bindparam("why"),
        ended_at=sa.func.coalesce(_LAST_HEARD.scalar_subquery(), attempts.c.started_at),
    )
)
_INTERRUPT_TRIALS = (
    sa.update(trials)
    .where(trials.c.sweep_id == _OF_SWEEP, trials.c.state == TrialState.RUNNING)
    .values(state=TrialState.INTERRUPTED)
)
_UPDATE_SWEEP = sa.update(sweeps).where(_THIS_SWEEP)


def _insert_new(insert: Callable[[sa.Table], Any], table: sa.Table) -> sa.Insert:  # Any: the dialects' own Inserts
    key = [column for column in table.primary_key.columns if column.name != "sweep_id"]
    statement: sa.Insert = insert(table).on_conflict_do_nothing().returning(*key)  # not every driver counts rows
    return statement


_INSERT_NEW = {
    (dialect, table.name): _insert_new(insert, table)
    for dialect, insert in {"sqlite": sqlite.insert, "postgresql": postgresql.insert}.items()
    for table in (trials, attempts, reports, artifacts)
}
