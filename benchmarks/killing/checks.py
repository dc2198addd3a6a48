"""What must be true of a sweep that was killed and resumed: looked up in its database and its folder afterwards.

In: a `Sweep` that has come to its end, what its database held when its drivers died, what was to go wrong in its
trials. Out: `Findings`, a sentence for everything that is not as it must be. No return code is believed.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from killing import trainer
from killing.sweep import NAME, Sweep

KINDS = ("lost", "doubled", "wrong", "zombie", "left")
_FINAL = "('COMPLETE', 'PRUNED', 'FAILED')"

Rows = Mapping[int, tuple[tuple[Any, ...], ...]]  # of a finished trial: everything stored of it


@dataclass
class Findings:
    """What is not as it must be, in sentences."""

    lost: list[str] = field(default_factory=list)  # trials or reports that are not there, or have no outcome
    doubled: list[str] = field(default_factory=list)  # trials, reports or work that is there twice
    wrong: list[str] = field(default_factory=list)  # values, outcomes, rows that changed, drivers that ended otherwise
    zombie: list[str] = field(default_factory=list)  # trials that seem to run, leases, processes
    left: list[str] = field(default_factory=list)  # files that nobody will ask for

    @property
    def all(self) -> list[str]:
        return [f"{kind}: {what}" for kind in KINDS for what in getattr(self, kind)]

    def counts(self) -> dict[str, int]:
        return {kind: len(getattr(self, kind)) for kind in KINDS}


def finished_rows(sweep: Sweep) -> Rows:
    """Read every column that is stored of the trials that have an outcome; of their attempts, those that have ended."""
    if not sweep.is_known():
        return {}
    found: defaultdict[int, tuple[tuple[Any, ...], ...]] = defaultdict(tuple)
    finished = f"select number from finesweep_trials where state in {_FINAL}"
    for table, more in (("trials", ""), ("attempts", "and ended_at is not null"), ("reports", "")):
        for row in sweep.rows(f"select number, * from finesweep_{table} where number in ({finished}) {more}"):
            found[row[0]] += ((table, *row[1:]),)
    return dict(found)


def examine(sweep: Sweep, *, before: Sequence[Rows], failing: Mapping[int, str] | None = None) -> Findings:
    """Look at all there is of a sweep that is over.

    Args:
        before: `finished_rows` of every time that its driver died.
        failing: trials that were to fail, with how their reason begins.
    """
    findings = Findings()
    if not sweep.is_known():
        findings.lost.append("the sweep")
        return findings
    _examine_sweep(sweep, findings)
    _examine_trials(sweep, findings, failing or {})
    _examine_reports(sweep, findings)
    _examine_work(sweep, findings)
    _examine_study(sweep, findings)
    _examine_changes(sweep, findings, before)
    _examine_files(sweep, findings)
    return findings


def _examine_sweep(sweep: Sweep, findings: Findings) -> None:
    [(state, holder)] = sweep.rows(f"select state, holder_pid from finesweep_sweeps where name = '{NAME}'")
    if state != "FINISHED":
        findings.lost.append(f"the sweep's end: it is {state}")
    if holder is not None:
        findings.zombie.append(f"the lease: process {holder} holds it")
    [(integrity,)] = sweep.rows("pragma integrity_check")
    if integrity != "ok":
        findings.wrong.append(f"the database: {integrity}")
    if violated := sweep.rows("pragma foreign_key_check"):
        findings.wrong.append(f"the database: rows without the row that they belong to: {violated[:3]}")


def _examine_trials(sweep: Sweep, findings: Findings, failing: Mapping[int, str]) -> None:
    query = "select number, state, value, value_step, reason, finished_at, configuration from finesweep_trials"
    rows = sweep.rows(f"{query} order by number")
    numbers = [row[0] for row in rows]
    findings.lost += [f"trial {number}" for number in range(sweep.n_trials) if number not in numbers]
    findings.doubled += [f"trial {number}: more than were asked for" for number in numbers if number >= sweep.n_trials]
    same = Counter(row[-1] for row in rows)
    findings.doubled += [f"configuration {text} in {n} trials" for text, n in same.items() if n > 1]
    steps = reported_steps(sweep)
    for number, state, value, step, reason, finished_at, configuration in rows:
        name = f"trial {number}, {state}"
        rate = json.loads(configuration)["rate"]
        best, at = max((trainer.score(rate, i), -i) for i in range(1, trainer.N_REPORTS + 1))
        if state in ("RUNNING", "WAITING", "INTERRUPTED"):
            findings.zombie.append(name)
        elif finished_at is None:
            findings.wrong.append(f"{name}: no time of its end")
        if (state == "FAILED") != (number in failing) or not (reason or "").startswith(failing.get(number, "")):
            findings.wrong.append(f"{name}: {reason}")
        if state == "COMPLETE" and (value, step) != (best, -at * trainer.EVERY):
            findings.wrong.append(f"{name}: value {value} at {step} is not {best} at {-at * trainer.EVERY}")
        if state != "COMPLETE" and (value, step) != (None, None):
            findings.wrong.append(f"{name}: has a value, {value} at {step}")
        if state == "COMPLETE" and len(steps[number]) != trainer.N_REPORTS:
            findings.lost.append(f"{name}: reports, there are those at {steps[number]}")
    is_open = sweep.rows("select number, attempt from finesweep_attempts where ended_at is null or ending is null")
    findings.zombie += [f"attempt {attempt} of trial {number}" for number, attempt in is_open]
    spans = sweep.rows("select number, min(attempt), max(attempt), count(*) from finesweep_attempts group by number")
    findings.lost += [f"attempts of trial {n}: {low} to {high}, {count} of them"
                      for n, low, high, count in spans if (low, high) != (1, count)]  # fmt: skip


def reported_steps(sweep: Sweep) -> Mapping[int, list[int]]:
    steps: defaultdict[int, list[int]] = defaultdict(list)
    for number, step in sweep.rows("select number, step from finesweep_reports order by number, step"):
        steps[number].append(step)
    return steps


def _examine_reports(sweep: Sweep, findings: Findings) -> None:
    rates = {
        n: json.loads(text)["rate"] for n, text in sweep.rows("select number, configuration from finesweep_trials")
    }
    for number, steps in reported_steps(sweep).items():
        if steps != [trainer.EVERY * (i + 1) for i in range(len(steps))]:
            findings.lost.append(f"reports of trial {number}: there are those at {steps}")
    stopped = set()
    for number, step, metrics, decision in sweep.rows("select number, step, metrics, decision from finesweep_reports"):
        told = json.loads(metrics)[trainer.MEASURING]
        if number in rates and told != trainer.score(rates[number], step // trainer.EVERY):
            findings.wrong.append(f"report of trial {number} at {step}: {told}")
        if decision == "stop":
            stopped.add(number)
    pruned = {number for (number,) in sweep.rows("select number from finesweep_trials where state = 'PRUNED'")}
    findings.wrong += [
        f"trial {number}: pruned and not told so, or told so and not pruned" for number in pruned ^ stopped
    ]


def _examine_work(sweep: Sweep, findings: Findings) -> None:
    """Nothing is trained twice but the unit after the last checkpoint of an attempt that died.

    A worker that outlives its driver, or a driver that was taken over, trains until it reports next: a unit at most.
    An attempt whose driver died before it heard of it has the number of the next one.
    """
    last: dict[int, tuple[int, int]] = {}  # trial -> its newest attempt and how far that has come
    late: Counter[tuple[int, int]] = Counter()  # attempt -> units trained after a later one had begun
    n_repeated = 0
    for number, attempt, unit in sweep.units():
        newest, reached = last.get(number, (attempt, 0))
        if attempt < newest:
            late[number, attempt] += 1
            continue
        if unit not in (reached, reached + 1):
            findings.doubled.append(f"unit {unit} of trial {number} in attempt {attempt}, after {reached} in {newest}")
        n_repeated += unit == reached
        last[number] = (attempt, unit)
    findings.doubled += [f"attempt {attempt} of trial {number} trained {units} units after a later one had begun"
                         for (number, attempt), units in late.items() if units > 1]  # fmt: skip
    died = "('lost', 'stalled', 'abandoned')"
    [(n_died,)] = sweep.rows(f"select count(*) from finesweep_attempts where ending in {died}")
    if n_repeated > n_died + sweep.n_slots * (sweep.n_drivers - 1):
        findings.doubled.append(f"{n_repeated} units were trained twice")


def _examine_study(sweep: Sweep, findings: Findings) -> None:
    """Optuna's tables, read by Optuna, say of every trial what ours say."""
    import optuna

    storage = optuna.storages.RDBStorage(f"sqlite:///{sweep.database}")
    theirs = optuna.load_study(study_name=NAME, storage=storage).get_trials(deepcopy=False)
    storage.remove_session()
    storage.engine.dispose()
    query = "select number, state, value, parameters from finesweep_trials order by number"
    ours = {number: row for number, *row in sweep.rows(query)}
    if [trial.number for trial in theirs] != list(ours):
        findings.wrong.append(f"Optuna's study has {len(theirs)} trials, ours {len(ours)}")
        return
    scores: defaultdict[int, dict[int, float]] = defaultdict(dict)
    for number, step, metrics in sweep.rows("select number, step, metrics from finesweep_reports"):
        scores[number][step] = json.loads(metrics)[trainer.MEASURING]
    for trial in theirs:
        state, value, parameters = ours[trial.number]
        if trial.state.name == "RUNNING":
            findings.zombie.append(f"trial {trial.number} of Optuna's study")
        named = {"FAILED": "FAIL"}.get(state, state)
        same_value = state != "COMPLETE" or trial.value == value
        if trial.state.name != named or not same_value or trial.params != json.loads(parameters):
            findings.wrong.append(f"trial {trial.number} of Optuna's study: {trial.state.name} {trial.value}")
        if trial.intermediate_values != scores[trial.number]:
            findings.wrong.append(f"reports of trial {trial.number} of Optuna's study: {trial.intermediate_values}")


def _examine_changes(sweep: Sweep, findings: Findings, before: Sequence[Rows]) -> None:
    after = finished_rows(sweep)
    for rows in before:
        changed = [number for number, stored in rows.items() if not set(stored) <= set(after.get(number, ()))]
        findings.wrong += [f"rows of trial {number}, which was finished: they have changed" for number in changed]


def _examine_files(sweep: Sweep, findings: Findings) -> None:
    """Only the best trial's folder is kept, and no file in it is half-written."""
    best = sweep.rows("select number from finesweep_trials where state = 'COMPLETE' order by value desc limit 1")
    kept = {f"trial-{number:04d}" for (number,) in best}
    for path in _folders(sweep):
        if path.parent.name not in kept:
            findings.left.append(f"folder of {path.parent.name}, which is not the best")
        if halves := [half.name for half in path.iterdir() if half.suffix == ".half-written"]:
            findings.left.append(f"half-written files of {path.parent.name}: {', '.join(halves)}")
    if missing := kept - {path.parent.name for path in _folders(sweep)}:
        findings.lost.append(f"the files of the best trial, {', '.join(missing)}")


def _folders(sweep: Sweep) -> Iterator[Any]:
    yield from sweep.artifact_dir.glob("trial-*/folder")
