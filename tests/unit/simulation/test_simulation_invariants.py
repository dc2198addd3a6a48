"""Each rule sees what it is there for: rows are tampered with behind the writer's back."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from finesweep.simulation import invariants
from finesweep.simulation.drives import Simulation, make_template
from finesweep.simulation.faults import Fault, FaultPlan, Strike
from finesweep.simulation.invariants import Rule, Seen, Truth, violations
from finesweep.simulation.snapshot import EMPTY, read_mirror, read_snapshot
from finesweep.simulation.workload import STEPS, Workload, said, simulated_spec

NAME = "simulated"
RULES: tuple[Rule, ...] = (
    *invariants.EVER,
    invariants.nothing_is_open,
    invariants.mirror_is_whole,
    invariants.mirror_is_not_ahead,
    invariants.everything_is_done,
)
SPEC = simulated_spec("random", {"type": "asha"}, seed=0, retries=1)
Tampered = Callable[[str], set[str]]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the database of a sweep that lost a worker and is finished."""
    folder = tmp_path_factory.mktemp("finished")
    plan = FaultPlan(((Strike(Fault.WORKER_LOST, 1), Strike(Fault.WORKER_LOST, 9)),))
    template = make_template(folder / "template.db")
    simulation = Simulation(Workload(SPEC), folder, template=template, plan=plan)
    simulation.run()
    assert simulation.broken == []
    assert {trial.state for trial in simulation.now.trials} == {"COMPLETE", "PRUNED", "FAILED"}
    assert any(trial.reused_from is not None for trial in simulation.now.trials)
    return folder / "finesweep.db"


@pytest.fixture
def tampered(finished: Path, tmp_path: Path) -> Iterator[Tampered]:
    """Change a copy of the rows; tell which rules they then break."""
    with closing(sqlite3.connect(finished)) as source, closing(sqlite3.connect(tmp_path / "copy.db")) as copy:
        source.backup(copy)
        copy.isolation_level = None

        def tamper(statement: str) -> set[str]:
            before = read_snapshot(copy, NAME)
            assert copy.execute(statement).rowcount > 0, "it changes something"
            mirror = read_mirror(copy, NAME)
            truth = Truth(SPEC, said, STEPS)
            now = read_snapshot(copy, NAME)
            from_nothing = [rule for rule in RULES if rule is not invariants.nothing_is_trained_twice]
            found: set[str] = set()
            for earlier, rules in ((before, RULES), (EMPTY, from_nothing)):
                seen = Seen(truth, earlier, now, study=lambda: mirror, mirror=lambda: mirror)
                found |= {violation.rule for violation in violations(rules, seen)}
            return found

        yield tamper


def test_a_finished_sweep_breaks_no_rule(tampered: Tampered) -> None:
    assert tampered("UPDATE finesweep_sweeps SET seconds_used = 1") == set()


COMPLETE = "state = 'COMPLETE' AND reused_from IS NULL"
FIRST = "number = (SELECT min(number) FROM finesweep_trials WHERE state = '{}' AND reused_from IS NULL)"


@pytest.mark.parametrize(
    ("statement", "rule"),
    [
        ("DELETE FROM finesweep_trials WHERE number = 1", "numbers_are_dense"),
        ("DELETE FROM finesweep_trials WHERE number = 1", "finished_trials_are_byte_equal"),
        (f"UPDATE finesweep_trials SET state = 'FAILED', value = NULL WHERE {COMPLETE}", "outcomes_fit_reports"),
        (f"UPDATE finesweep_trials SET reason = 'another' WHERE {COMPLETE}", "finished_trials_are_byte_equal"),
        (f"UPDATE finesweep_trials SET value = value + 1e-12 WHERE {COMPLETE}", "outcomes_fit_reports"),
        ("UPDATE trial_values SET value = value + 1e-12", "mirror_is_whole"),
        (f"UPDATE finesweep_trials SET value = 0.5, value_step = 100 WHERE {FIRST.format('PRUNED')}", "outcomes_fit"),
        ("UPDATE finesweep_trials SET state = 'COMPLETE' WHERE state = 'PRUNED'", "outcomes_fit_reports"),
        ("UPDATE finesweep_trials SET state = 'RUNNING' WHERE number = 2", "nothing_is_open"),
        ("UPDATE finesweep_trials SET state = 'INTERRUPTED' WHERE number = 2", "everything_is_done"),
        ("UPDATE finesweep_trials SET state = 'INTERRUPTED' WHERE number = 2", "mirror_is_not_ahead"),
        ("UPDATE finesweep_trials SET reused_from = NULL WHERE reused_from IS NOT NULL", "budget_is_kept"),
        ("UPDATE finesweep_trials SET value_step = 1 WHERE reused_from IS NOT NULL", "reused_results"),
        ("UPDATE finesweep_sweeps SET budget_trials = 9", "everything_is_done"),
        (f"DELETE FROM finesweep_reports WHERE step = 300 AND {FIRST.format('COMPLETE')}", "everything_is_done"),
        ("DELETE FROM finesweep_reports WHERE step = 100 AND number = 0", "stored_reports_stand"),
        ("UPDATE finesweep_reports SET attempt = 7 WHERE step = 100 AND number = 0", "stored_reports_stand"),
        ('UPDATE finesweep_reports SET metrics = \'{"accuracy":0.5,"size":1.0}\'', "reports_are_true"),
        ("UPDATE finesweep_attempts SET ending = NULL, ended_at = NULL WHERE number = 0", "nothing_is_open"),
        ("UPDATE finesweep_attempts SET ending = NULL, ended_at = NULL WHERE number = 0", "running_trials_are_run"),
        ("UPDATE finesweep_attempts SET attempt = attempt + 5", "attempts_are_counted"),
        ("UPDATE finesweep_attempts SET reason = 'another'", "attempts_are_counted"),
        ("UPDATE finesweep_attempts SET ending = 'failed' WHERE ending = 'lost'", "retries_are_limited"),
        ("UPDATE trials SET state = 'RUNNING' WHERE number = 0", "mirror_is_whole"),
        ("UPDATE trials SET state = 'FAIL' WHERE state = 'COMPLETE'", "mirror_is_not_ahead"),
        ("DELETE FROM trial_intermediate_values", "mirror_is_whole"),
        ("UPDATE trial_params SET param_value = 1", "mirror_is_whole"),
    ],
)
def test_a_rule_sees_what_was_tampered_with(tampered: Tampered, statement: str, rule: str) -> None:
    assert any(found.startswith(rule) for found in tampered(statement))


def test_a_configuration_that_is_trained_again_is_seen(tampered: Tampered) -> None:
    """A repeat that did not take over the result it waited for."""
    again = "SELECT sweep_id, number, 1, NULL, NULL, NULL, 0.0, NULL, '{}' FROM finesweep_trials"
    columns = "sweep_id, number, attempt, ending, reason, traceback, started_at, ended_at, facts"
    found = tampered(f"INSERT INTO finesweep_attempts ({columns}) {again} WHERE reused_from IS NOT NULL LIMIT 1")
    assert {"nothing_is_trained_twice", "reused_results_are_those_of_their_origin"} <= found
