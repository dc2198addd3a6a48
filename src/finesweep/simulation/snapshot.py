"""What stands in an SQLite results database at a moment, read with plain SQL: not by the code that wrote it.

In: a connection. Out: the rows of one sweep, ours and Optuna's. It must not know brokers or drivers.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from finesweep.results.values import from_json, to_json

if TYPE_CHECKING:
    from optuna.study import Study

Row = tuple[Any, ...]  # a row as SQLite gives it


@dataclass(frozen=True, slots=True)
class StoredTrial:
    number: int
    state: str
    reason: str | None
    value: float | None
    value_step: int | None
    configuration: str
    parameters: str
    attributes: str
    twin_of: int | None
    reused_from: int | None
    row: Row  # all of its columns

    @property
    def is_final(self) -> bool:
        return self.state in ("COMPLETE", "PRUNED", "FAILED")


@dataclass(frozen=True, slots=True)
class StoredAttempt:
    attempt: int
    ending: str | None
    is_open: bool
    row: Row


@dataclass(frozen=True, slots=True)
class StoredReport:
    step: int
    attempt: int
    decision: str
    metrics: Mapping[str, float]
    row: Row


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The rows of one sweep."""

    state: str
    is_held: bool
    budget_trials: int
    trials: tuple[StoredTrial, ...]
    attempts: Mapping[int, Sequence[StoredAttempt]]  # by trial
    reports: Mapping[int, Sequence[StoredReport]]  # by trial, in rising steps

    def trial(self, number: int) -> StoredTrial | None:
        return next((trial for trial in self.trials if trial.number == number), None)

    def origin(self, trial: StoredTrial) -> int:
        """Give the trial that was trained for the result of this one."""
        return trial.number if trial.reused_from is None else trial.reused_from

    def is_charged(self, trial: StoredTrial) -> bool:
        """Tell whether a trial counts as work: it was trained, or is to be."""
        waits = trial.twin_of is not None and not trial.is_final and not self.attempts.get(trial.number)
        return trial.reused_from is None and not waits

    def text(self) -> str:
        """Write all of it down, for comparison."""
        lines = [f"{self.state} held={self.is_held} budget={self.budget_trials}"]
        lines += [repr(trial.row) for trial in self.trials]
        for rows in (self.attempts, self.reports):
            lines += [repr(found.row) for number in sorted(rows) for found in rows[number]]
        return "\n".join(lines)


def read_snapshot(connection: sqlite3.Connection, name: str) -> Snapshot:
    """Read the rows of a sweep, all of the same moment."""
    connection.execute("BEGIN")
    try:
        sweep = connection.execute(
            "SELECT id, state, holder_host IS NOT NULL, budget_trials FROM finesweep_sweeps WHERE name = ?", (name,)
        ).fetchone()
        sweep_id, state, is_held, budget_trials = sweep
        rows: list[Row] = [(*row[:10], row) for row in connection.execute(_TRIALS, (sweep_id,))]
        attempts: dict[int, list[StoredAttempt]] = defaultdict(list)
        for row in connection.execute(_ATTEMPTS, (sweep_id,)):
            attempts[row[0]].append(StoredAttempt(row[1], row[2], row[3] is None, row))
        reports: dict[int, list[StoredReport]] = defaultdict(list)
        for row in connection.execute(_REPORTS, (sweep_id,)):
            metrics = {key: float(value) for key, value in json.loads(row[4]).items()}
            reports[row[0]].append(StoredReport(row[1], row[2], row[3], metrics, row))
    finally:
        connection.execute("COMMIT")
    return Snapshot(
        state, bool(is_held), budget_trials, tuple(StoredTrial(*row) for row in rows), dict(attempts), dict(reports)
    )


_TRIALS = """
    SELECT number, state, reason, value, value_step, configuration, parameters, attributes, twin_of, reused_from,
           source, distributions, started_at, finished_at, facts, examples_seen
    FROM finesweep_trials WHERE sweep_id = ? ORDER BY number"""
_ATTEMPTS = """
    SELECT number, attempt, ending, ended_at, started_at, reason, traceback, facts
    FROM finesweep_attempts WHERE sweep_id = ? ORDER BY number, attempt"""
_REPORTS = """
    SELECT number, step, attempt, decision, metrics, examples_seen, final, reported_at
    FROM finesweep_reports WHERE sweep_id = ? ORDER BY number, step"""


EMPTY = Snapshot("NEW", False, 0, (), {}, {})


@dataclass(frozen=True, slots=True)
class MirroredTrial:
    """A trial in Optuna's tables, or in a study of Optuna's."""

    number: int
    state: str
    values: tuple[float, ...]
    parameters: Mapping[str, Any]  # by name, rising, as the rest
    intermediate: Mapping[int, float]
    attributes: Mapping[str, Any]  # what sampler and pruner keep


def mirrored(study: Study) -> list[MirroredTrial]:
    """Read a study of Optuna's."""
    return [
        MirroredTrial(
            trial.number,
            trial.state.name,
            tuple(trial.values or ()),
            dict(sorted(trial.params.items())),
            dict(sorted(trial.intermediate_values.items())),
            from_json(to_json(dict(sorted(trial.system_attrs.items())))),
        )
        for trial in study.get_trials(deepcopy=False)
    ]


def read_mirror(connection: sqlite3.Connection, name: str) -> list[MirroredTrial]:
    """Read a study from Optuna's tables; nothing if it is not there."""
    connection.execute("BEGIN")
    try:
        values, parameters, steps, attributes = (
            _by_trial(connection.execute(_PARTS.format(*names), (name,)))
            for names in (
                ("trial_values", "objective", "value", "value_type"),
                ("trial_params", "param_name", "param_value", "distribution_json"),
                ("trial_intermediate_values", "step", "intermediate_value", "intermediate_value_type"),
                ("trial_system_attributes", "key", "value_json", "NULL"),
            )
        )
        rows = connection.execute(_MIRROR, (name,)).fetchall()
    finally:
        connection.execute("COMMIT")
    return [
        MirroredTrial(
            number,
            state,
            tuple(_number(*value) for value in values[trial].values()),
            {key: _parameter(*value) for key, value in parameters[trial].items()},
            {step: _number(*value) for step, value in steps[trial].items()},
            {key: json.loads(text) for key, (text, _) in attributes[trial].items()},
        )
        for trial, number, state in rows
    ]


_MIRROR = """
    SELECT trial_id, number, state FROM trials JOIN studies USING (study_id) WHERE study_name = ? ORDER BY number"""
_PARTS = """
    SELECT trial_id, {1}, {2}, {3} FROM {0} JOIN trials USING (trial_id) JOIN studies USING (study_id)
    WHERE study_name = ? ORDER BY trial_id, {1}"""


def _by_trial(rows: Iterable[Row]) -> defaultdict[int, dict[Any, Row]]:
    found: defaultdict[int, dict[Any, Row]] = defaultdict(dict)
    for trial_id, key, *value in rows:
        found[trial_id][key] = tuple(value)
    return found


def _number(value: float | None, kind: str) -> float:
    """Read a number as Optuna keeps it: non-finite ones by name."""
    if value is None:
        return {"INF_POS": math.inf, "INF_NEG": -math.inf}.get(kind, math.nan)
    return value


def _parameter(value: float, distribution: str) -> Any:
    """Read a parameter as Optuna keeps it: choices by their place."""
    kind = json.loads(distribution)
    match kind["name"]:
        case "CategoricalDistribution":
            return kind["attributes"]["choices"][int(value)]
        case "IntDistribution":
            return int(value)
        case _:
            return value
