"""How each event changes the tables. Every event may come twice: the second time changes nothing.

Works inside the transaction it is given.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from finesweep.errors import ResultsError
from finesweep.events import (
    AttemptDescribed,
    AttemptEnded,
    AttemptStarted,
    Event,
    Reported,
    TrialFinished,
    TrialInterrupted,
    TrialState,
    TrialSuggested,
)
from finesweep.results.schema import artifacts, attempts, reports, sweeps, trials
from finesweep.results.values import metrics_to_json


def record(connection: sa.Connection, sweep_id: int, event: Event, *, now_s: float) -> None:
    """Store an event of a sweep. Raises ResultsError for a trial that was never suggested."""
    match event:
        case TrialSuggested():
            _suggested(connection, sweep_id, event)
        case AttemptStarted():
            _attempt_started(connection, sweep_id, event, now_s)
        case AttemptDescribed():
            _attempt_described(connection, sweep_id, event)
        case Reported():
            _reported(connection, sweep_id, event, now_s)
        case AttemptEnded():
            _attempt_ended(connection, sweep_id, event, now_s)
        case TrialFinished():
            _finished(connection, sweep_id, event, now_s)
        case TrialInterrupted():
            _interrupted(connection, sweep_id, event)


def _suggested(connection: sa.Connection, sweep_id: int, event: TrialSuggested) -> None:
    is_new = _insert_new(
        connection,
        trials,
        sweep_id=sweep_id,
        number=event.number,
        state=TrialState.WAITING,
        source=event.source,
        configuration=event.configuration,
        parameters=event.parameters,
        distributions=event.distributions,
        attributes=event.attributes,
        twin_of=event.twin_of,
        facts={},
        examples_seen=0,
    )
    if is_new:
        _keep_study_attributes(connection, sweep_id, event.study_attributes)


def _attempt_started(connection: sa.Connection, sweep_id: int, event: AttemptStarted, now_s: float) -> None:
    trial = _trial(connection, sweep_id, event.number)
    is_new = _insert_new(
        connection,
        attempts,
        sweep_id=sweep_id,
        number=event.number,
        attempt=event.attempt,
        started_at=now_s,
        facts={},
    )
    if is_new and not TrialState(trial.state).is_final:
        started_at = now_s if trial.started_at is None else trial.started_at
        _update_trial(connection, sweep_id, event.number, state=TrialState.RUNNING, started_at=started_at)


def _attempt_described(connection: sa.Connection, sweep_id: int, event: AttemptDescribed) -> None:
    trial = _trial(connection, sweep_id, event.number)
    attempt = _attempt(connection, sweep_id, event.number, event.attempt)
    if attempt.ended_at is None:
        _update_attempt(connection, attempt, facts={**attempt.facts, **event.facts})
        _update_trial(connection, sweep_id, event.number, facts={**trial.facts, **event.facts})


def _reported(connection: sa.Connection, sweep_id: int, event: Reported, now_s: float) -> None:
    trial = _trial(connection, sweep_id, event.number)
    if TrialState(trial.state).is_final:
        return
    report = event.report
    is_new = _insert_new(
        connection,
        reports,
        sweep_id=sweep_id,
        number=event.number,
        step=report.step,
        attempt=event.attempt,
        examples_seen=report.examples_seen,
        final=report.final,
        decision=event.decision,
        metrics=metrics_to_json(report.metrics),
        reported_at=now_s,
    )
    if is_new:
        _update_trial(
            connection,
            sweep_id,
            event.number,
            examples_seen=max(trial.examples_seen, report.examples_seen),
            attributes={**trial.attributes, **event.attributes},
        )


def _attempt_ended(connection: sa.Connection, sweep_id: int, event: AttemptEnded, now_s: float) -> None:
    attempt = _attempt(connection, sweep_id, event.number, event.attempt)
    if attempt.ended_at is not None:
        return
    result = event.result
    _update_attempt(
        connection, attempt, ending=result.ending, reason=result.reason, traceback=result.traceback, ended_at=now_s
    )
    for kind, path in result.artifacts.items():
        _insert_new(
            connection,
            artifacts,
            sweep_id=sweep_id,
            number=event.number,
            attempt=event.attempt,
            kind=kind,
            path=path,
            created_at=now_s,
        )


def _finished(connection: sa.Connection, sweep_id: int, event: TrialFinished, now_s: float) -> None:
    trial = _trial(connection, sweep_id, event.number)
    if TrialState(trial.state).is_final:
        return
    _update_trial(
        connection,
        sweep_id,
        event.number,
        state=event.state,
        reason=event.reason,
        value=event.value,
        value_step=event.value_step,
        reused_from=event.reused_from,
        attributes={**trial.attributes, **event.attributes},
        finished_at=now_s,
    )
    _keep_study_attributes(connection, sweep_id, event.study_attributes)


def _interrupted(connection: sa.Connection, sweep_id: int, event: TrialInterrupted) -> None:
    trial = _trial(connection, sweep_id, event.number)
    if TrialState(trial.state).is_final or _is_last_attempt_open(connection, sweep_id, event.number):
        return
    _update_trial(connection, sweep_id, event.number, state=TrialState.INTERRUPTED)


def _is_last_attempt_open(connection: sa.Connection, sweep_id: int, number: int) -> bool:
    """Tell whether a trial was begun again since: then an interruption told twice is an old one."""
    last = connection.execute(
        sa.select(attempts.c.ended_at)
        .where(attempts.c.sweep_id == sweep_id, attempts.c.number == number)
        .order_by(attempts.c.attempt.desc())
        .limit(1)
    ).first()
    return last is not None and last.ended_at is None


def _trial(connection: sa.Connection, sweep_id: int, number: int) -> sa.Row[Any]:
    row = connection.execute(sa.select(trials).where(trials.c.sweep_id == sweep_id, trials.c.number == number)).first()
    if row is None:
        raise ResultsError(f"trial {number} was never suggested in this sweep. Tell TrialSuggested first.")
    return row


def _attempt(connection: sa.Connection, sweep_id: int, number: int, attempt: int) -> sa.Row[Any]:
    where = (attempts.c.sweep_id == sweep_id, attempts.c.number == number, attempts.c.attempt == attempt)
    row = connection.execute(sa.select(attempts).where(*where)).first()
    if row is None:
        raise ResultsError(f"attempt {attempt} of trial {number} was never started. Tell AttemptStarted first.")
    return row


def _update_trial(connection: sa.Connection, sweep_id: int, number: int, **values: Any) -> None:
    connection.execute(sa.update(trials).where(trials.c.sweep_id == sweep_id, trials.c.number == number).values(values))


def _update_attempt(connection: sa.Connection, row: sa.Row[Any], **values: Any) -> None:
    key = (attempts.c.sweep_id == row.sweep_id, attempts.c.number == row.number, attempts.c.attempt == row.attempt)
    connection.execute(sa.update(attempts).where(*key).values(values))


def _keep_study_attributes(connection: sa.Connection, sweep_id: int, attributes: Mapping[str, Any]) -> None:
    own = sweeps.c.id == sweep_id
    known = connection.execute(sa.select(sweeps.c.study_attributes).where(own)).scalar_one()
    if any(key not in known or known[key] != value for key, value in attributes.items()):
        connection.execute(sa.update(sweeps).where(own).values(study_attributes={**known, **attributes}))


def _insert_new(connection: sa.Connection, table: sa.Table, **values: Any) -> bool:
    """Insert a row unless its key is there. Tell whether it was inserted."""
    insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    statement = insert(table).values(values).on_conflict_do_nothing().returning(sa.literal(1))
    return connection.execute(statement).first() is not None  # not every driver counts the rows of an insert
