"""Reading results as pandas frames and records. Never writes; every answer comes from one state of the database."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import sqlalchemy as sa

from finesweep.errors import ResultsError
from finesweep.events import Configuration, Grid, Report, Source, SweepHistory, TrialState, Value
from finesweep.results.columns import (
    COUNT,
    FACT_COLUMNS,
    JOB_COLUMNS,
    NUMBER,
    ON_FRONT,
    SWEEP_COLUMNS,
    TEXT,
    TRIAL_COLUMNS,
    objective_columns,
    parameter_column,
    parameter_columns,
    typed_frame,
)
from finesweep.results.database import read
from finesweep.results.details import artifacts_frame, attempts_frame, metrics_frame, points_frame, telemetry_frame
from finesweep.results.history import read_history, read_reports
from finesweep.results.lease import lease_of
from finesweep.results.names import of_sweeps, sweep_row, sweep_rows
from finesweep.results.objectives import complete_values, objective_values, read_front, stored_objectives
from finesweep.results.schema import (
    SCHEMA_VERSION,
    SweepState,
    artifacts,
    attempts,
    reports,
    stored_version,
    sweeps,
    trials,
)
from finesweep.results.url import redacted, resolve_url, sqlite_path
from finesweep.spec.sweep import REMOTE, SweepSpec, read_sweep

_TRIAL_FIELDS = (
    *("sweep_id", "number", "state", "value", "value_step", "reason", "source", "examples_seen"),
    *("twin_of", "reused_from", "started_at", "finished_at", "configuration", "facts"),
)


@dataclass(frozen=True, slots=True)
class TrialResult:
    """All that is known of one trial."""

    sweep: str
    number: int
    state: TrialState
    value: float | None  # of the leading objective
    values: Mapping[str, float]  # metric -> value of every objective, the leading one first; none unless COMPLETE
    value_step: int | None
    reason: str | None
    source: Source
    configuration: Configuration
    parameters: Mapping[str, Value]  # under the study's names
    facts: Mapping[str, Any]
    examples_seen: int
    started_at: float | None  # seconds since the epoch
    finished_at: float | None
    twin_of: int | None
    reused_from: int | None
    reports: tuple[Report, ...]
    artifacts: Mapping[str, str]  # kind -> path below the sweep's artifact folder; of the last attempt that left one


def open_results(url: str | Path | None = None, *, clock: Callable[[], float] = time.time) -> Results:
    """Open a results database to read: a path, an sqlite:/// or postgresql:// URL. Raises ResultsError."""
    resolved = resolve_url(url, folder=Path())
    version = read(resolved, stored_version)
    if version is None:
        raise ResultsError(
            f"{redacted(resolved)}: holds no sweeps of finesweep. Run one first, or name another with --results."
        )
    if version < SCHEMA_VERSION:
        raise ResultsError(
            f"{redacted(resolved)}: its tables have schema version {version}, made by an older finesweep; this one "
            f"reads {SCHEMA_VERSION}. Migrate them (an SQLite file is copied first): "
            f"finesweep migrate --results {_named(resolved)}"
        )
    return Results(resolved, clock)


def is_older(url: str) -> bool:
    """Tell whether an older finesweep made the tables of a database that is there. Raises ResultsError."""
    version = read(url, stored_version)
    return version is not None and version < SCHEMA_VERSION


@dataclass(frozen=True, slots=True)
class Results:
    """What the database holds. Columns and their types are written in `results.columns`."""

    url: str
    clock: Callable[[], float] = time.time

    def sweeps(self) -> pd.DataFrame:
        """List the sweeps, oldest first, with counts of their trials and the incumbent's value."""
        return read(self.url, self._sweeps)

    def trials(self, sweep: str | None = None) -> pd.DataFrame:
        """List the trials of one sweep or of all, with a column for each parameter."""
        return read(self.url, lambda connection: self._trials(connection, sweep))

    def points(
        self, sweep: str | None = None, *, numbers: Collection[int] | None = None, step: int | None = None
    ) -> pd.DataFrame:
        """List every reported metric, one a row; with `numbers`, of those trials alone; with `step`, of that step."""
        return read(self.url, lambda connection: points_frame(connection, sweep, numbers=numbers, step=step))

    def telemetry(self, sweep: str, *, numbers: Collection[int] | None = None) -> pd.DataFrame:
        """List how workers were at each report, one number a row: memory, use of the device, learning rate, ..."""
        return read(self.url, lambda connection: telemetry_frame(connection, sweep, numbers=numbers))

    def metrics(self, sweep: str, metrics: Sequence[str]) -> pd.DataFrame:
        """Give metrics of each trial that reported: at the step of its value, or at its last report if it has none."""
        return read(self.url, lambda connection: metrics_frame(connection, sweep, metrics))

    def attempts(self, sweep: str | None = None) -> pd.DataFrame:
        """List the attempts at trials: where they ran and how they ended."""
        return read(self.url, lambda connection: attempts_frame(connection, sweep))

    def artifacts(self, sweep: str | None = None) -> pd.DataFrame:
        """List what trials left behind in files."""
        return read(self.url, lambda connection: artifacts_frame(connection, sweep))

    def best(self, sweep: str) -> TrialResult | None:
        """Give the incumbent: the COMPLETE trial that leads the front; None if there is none."""
        return next(iter(self.front(sweep)), None)

    def front(self, sweep: str) -> tuple[TrialResult, ...]:
        """Give the COMPLETE trials that no other beats, best first by the leading objective; of equals the earliest.

        With one objective that is the best trial alone.
        """
        return read(self.url, lambda connection: self._front(connection, sweep))

    def trial(self, sweep: str, number: int) -> TrialResult:
        """Give one trial. Raises ResultsError if there is no such number."""
        return read(self.url, lambda connection: self._trial(connection, sweep_row(connection, sweep), number))

    def spec(self, sweep: str) -> SweepSpec:
        """Give the resolved sweep, with the total of trials that holds now."""
        return read(self.url, lambda connection: read_sweep(sweep_row(connection, sweep).spec))

    def grid(self, sweep: str) -> Grid:
        """Give the axis on which the sweep's trials are compared."""
        return read(self.url, lambda connection: Grid(**sweep_row(connection, sweep).grid))

    def history(self, sweep: str) -> SweepHistory:
        """Give the trials with all of their reports, as a broker would go on from them."""
        return read(self.url, lambda connection: read_history(connection, sweep_row(connection, sweep).id))

    def provenance(self, sweep: str) -> Mapping[str, Any]:
        """Give what was stored with the sweep about versions, host, devices, data and model."""
        provenance: Mapping[str, Any] = read(self.url, lambda connection: sweep_row(connection, sweep).provenance)
        return provenance

    def artifact_dir(self, sweep: str) -> Path:
        """Give the folder of a sweep's files. Raises ResultsError where the database names none."""
        folder = self.provenance(sweep).get("artifact_dir")
        if not isinstance(folder, str) or not Path(folder).is_absolute():
            raise ResultsError(f"what the database says of sweep {sweep!r} names no artifact folder: {folder!r}.")
        return Path(folder)

    # --- queries, each in one transaction -----------------------------------------------------------------------

    def _sweeps(self, connection: sa.Connection) -> pd.DataFrame:
        counts: dict[int, dict[str, int]] = {}
        by_state = sa.select(trials.c.sweep_id, trials.c.state, sa.func.count()).group_by(
            trials.c.sweep_id, trials.c.state
        )
        for sweep_id, state, count in connection.execute(by_state):
            counts.setdefault(sweep_id, {})[state] = count
        rows = connection.execute(sa.select(sweeps).order_by(sweeps.c.id)).all()
        return typed_frame(SWEEP_COLUMNS, [self._sweep_row(connection, row, counts.get(row.id, {})) for row in rows])

    def _sweep_row(self, connection: sa.Connection, row: sa.Row[Any], counts: Mapping[str, int]) -> tuple[Any, ...]:
        lease = lease_of(row)
        is_live = self._is_live(row)
        objective = stored_objectives(row)[0]
        front = read_front(connection, row)
        best = next(iter(front), None)
        running = counts.get(TrialState.RUNNING, 0)
        return (
            row.name,
            row.state if is_live or row.state != SweepState.RUNNING else SweepState.INTERRUPTED,
            objective.metric,
            objective.direction,
            None if best is None else front[best][objective.metric],
            best,
            sum(counts.values()),
            counts.get(TrialState.COMPLETE, 0),
            counts.get(TrialState.PRUNED, 0),
            counts.get(TrialState.FAILED, 0),
            running if is_live else 0,
            counts.get(TrialState.INTERRUPTED, 0) + (0 if is_live else running),
            counts.get(TrialState.WAITING, 0),
            row.budget_trials,
            row.seconds_used,
            row.created_at,
            f"{lease.holder.host} {lease.holder.pid}" if lease and is_live else None,
            _model_name(row.spec.get("remote") or row.spec["model"]),
            row.spec["task"],
            row.end_reason,
            _verified(row.provenance),
        )

    def _trials(self, connection: sa.Connection, sweep: str | None) -> pd.DataFrame:
        chosen = sweep_rows(connection, sweep)
        parameters = parameter_columns(read_sweep(row.spec).study.parameters for row in chosen)
        objectives = objective_columns(map(stored_objectives, chosen))
        columns = TRIAL_COLUMNS | objectives | {parameter_column(name): dtype for name, dtype in parameters.items()}
        names = {row.id: row.name for row in chosen}
        live = {row.id for row in chosen if self._is_live(row)}
        remote = {row.id for row in chosen if row.spec.get("trainer") == REMOTE}
        spent = _spent(connection, names)
        judged = objective_values(connection, chosen) if objectives else {}
        query = sa.select(*(trials.c[name] for name in _TRIAL_FIELDS))
        stored = connection.execute(of_sweeps(query, trials, names)).all()
        facts = {(row.sweep_id, row.number): row.facts for row in stored}
        rows = []
        for row in stored:
            n_attempts, duration_s = spent.get((row.sweep_id, row.number), (0, None))
            fixed = (
                names[row.sweep_id],
                row.number,
                _shown_state(row.state, is_live=row.sweep_id in live),
                *(row.value, row.value_step, row.reason, row.source, row.examples_seen),
                *(duration_s, n_attempts, row.twin_of, row.reused_from, row.started_at, row.finished_at),
                *_counts(facts[row.sweep_id, row.number if row.reused_from is None else row.reused_from]),
                *(_job_values(facts[row.sweep_id, row.number]) if row.sweep_id in remote else _NO_JOB),
            )
            others = map(judged.get((row.sweep_id, row.number), {ON_FRONT: False}).get, objectives)
            rows.append((*fixed, *others, *map(row.configuration.get, parameters)))
        return typed_frame(columns, rows)

    def _front(self, connection: sa.Connection, sweep: str) -> tuple[TrialResult, ...]:
        row = sweep_row(connection, sweep)
        return tuple(self._trial(connection, row, number) for number in read_front(connection, row))

    def _trial(self, connection: sa.Connection, sweep: sa.Row[Any], number: int) -> TrialResult:
        own = (trials.c.sweep_id == sweep.id, trials.c.number == number)
        row = connection.execute(sa.select(trials).where(*own)).first()
        if row is None:
            count = connection.execute(sa.select(sa.func.count()).where(trials.c.sweep_id == sweep.id)).scalar_one()
            known = f"It has 0 to {count - 1}." if count else "It has none yet."
            raise ResultsError(f"trial {sweep.name}:{number} does not exist. {known}")
        kept = sa.select(artifacts.c.kind, artifacts.c.path).where(
            artifacts.c.sweep_id == sweep.id, artifacts.c.number == number, artifacts.c.removed_at.is_(None)
        )
        return TrialResult(
            sweep=sweep.name,
            number=row.number,
            state=TrialState(_shown_state(row.state, is_live=self._is_live(sweep))),
            value=row.value,
            values=complete_values(connection, sweep, number).get(number, {}),
            value_step=row.value_step,
            reason=row.reason,
            source=Source(row.source),
            configuration=row.configuration,
            parameters=row.parameters,
            facts=row.facts,
            examples_seen=row.examples_seen,
            started_at=row.started_at,
            finished_at=row.finished_at,
            twin_of=row.twin_of,
            reused_from=row.reused_from,
            reports=tuple(read_reports(connection, sweep.id, number)[number]),
            artifacts={row.kind: row.path for row in connection.execute(kept.order_by(artifacts.c.attempt))},
        )

    def _is_live(self, sweep: sa.Row[Any]) -> bool:
        lease = lease_of(sweep)
        return lease is not None and lease.is_live(self.clock())


def ranked(trials: pd.DataFrame) -> pd.DataFrame:
    """Choose the trials that are ranked: COMPLETE ones that were trained, of a frame like `Results.trials`."""
    return trials[(trials["state"] == TrialState.COMPLETE) & trials["reused_from"].isna()]


def _verified(provenance: Mapping[str, Any]) -> str | None:
    """Name the sweep that one verifies, as `verification.plan` stores it."""
    plan = provenance.get("verification")
    return str(plan["of"]) if isinstance(plan, Mapping) and "of" in plan else None


def _named(url: str) -> str:
    return str(sqlite_path(url) or redacted(url))


def _counts(facts: Mapping[str, Any]) -> Iterable[int | None]:
    """Give the fact columns: what the transformers trainer told. A trainer of the user's own may tell anything."""
    told = (facts.get(key) for key in FACT_COLUMNS.values())
    return (value if isinstance(value, int) else None for value in told)


def _job_values(facts: Mapping[str, Any]) -> Iterable[Any]:
    """Give the columns of a job: what the remote trainer told, as far as it has."""
    kinds = {TEXT: str, COUNT: int, NUMBER: int | float}
    told = ((facts.get(name), kinds[TRIAL_COLUMNS[name]]) for name in JOB_COLUMNS)
    return (value if isinstance(value, kind) else None for value, kind in told)


_NO_JOB = (None,) * len(JOB_COLUMNS)


def _model_name(model: str | Mapping[str, Any] | None) -> str | None:
    """Name a stored sweep's model, which earlier versions kept as text; a trainer of the user's own may have none.

    Of a server's model, the section `remote` names it.
    """
    return model if isinstance(model, str | None) else str(model["model"] if "base_url" in model else model["name"])


def _spent(connection: sa.Connection, sweep_ids: Iterable[int]) -> dict[tuple[int, int], tuple[int, float]]:
    """Count the attempts of each trial and add up their seconds; an open one counts up to its last report."""
    key = ("sweep_id", "number", "attempt")
    last_report = sa.select(sa.func.max(reports.c.reported_at)).where(
        *(reports.c[name] == attempts.c[name] for name in key)
    )
    until = sa.func.coalesce(attempts.c.ended_at, last_report.scalar_subquery(), attempts.c.started_at)
    took = sa.case((until > attempts.c.started_at, until - attempts.c.started_at), else_=0.0)  # clocks are set back
    query = sa.select(attempts.c.sweep_id, attempts.c.number, sa.func.count(), sa.func.sum(took))
    rows = connection.execute(of_sweeps(query, attempts, sweep_ids).group_by(attempts.c.sweep_id, attempts.c.number))
    return {(sweep_id, number): (count, seconds) for sweep_id, number, count, seconds in rows}


def _shown_state(state: str, *, is_live: bool) -> str:
    return TrialState.INTERRUPTED if state == TrialState.RUNNING and not is_live else state
