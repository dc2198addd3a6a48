from __future__ import annotations

import math
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState as OptunaState
from tests.unit.search.conftest import Desk, MakeDesk

from finesweep.errors import ResultsError
from finesweep.events import Ending
from finesweep.search.mirror import OptunaMirror, delete_study

ASHA = {"type": "asha", "first_rung": 100, "reduction_factor": 3}
OpenMirror = Callable[[Desk], OptunaMirror]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'r.db'}"


@pytest.fixture
def open_mirror(url: str) -> Iterator[OpenMirror]:
    opened: list[OptunaMirror] = []

    def open_one(desk: Desk) -> OptunaMirror:
        opened.append(OptunaMirror(url, desk.broker.study))
        return opened[-1]

    yield open_one
    for mirror in opened:
        mirror.close()


def load(url: str) -> optuna.Study:
    storage = optuna.storages.RDBStorage(url)
    try:
        study = optuna.load_study(study_name="desk", storage=storage)
        study.trials  # noqa: B018  # read while the storage is open
        return study
    finally:
        storage.remove_session()
        storage.engine.dispose()


def shown(study: optuna.Study) -> list[tuple[object, ...]]:
    return [
        (
            trial.number,
            trial.state,
            trial.values,
            trial.params,
            trial.distributions,
            trial.intermediate_values,
            trial.user_attrs,
            trial.system_attrs,
        )
        for trial in study.get_trials()
    ]


def test_optuna_sees_the_whole_study_once_it_is_complete(
    make_desk: MakeDesk, open_mirror: OpenMirror, url: str
) -> None:
    desk = make_desk(pruner=ASHA, direction="minimize")
    mirror = open_mirror(desk)
    desk.train(0.3, step=100)
    kept, rung, diverged, failed, running = (desk.next() for _ in range(5))
    desk.report(kept.number, 100, 0.1)
    desk.report(kept.number, 900, 0.05, final=True)
    desk.finish(kept.number)
    desk.report(rung.number, 100, 0.5)
    desk.report(diverged.number, 100, 0.01)
    desk.report(diverged.number, 200, math.nan)
    desk.finish(failed.number, Ending.FAILED, "ValueError: no")
    desk.report(running.number, 100, 0.001)
    mirror.complete()
    stored = load(url)
    assert shown(stored) == shown(desk.broker.study)
    complete, pruned, fail = OptunaState.COMPLETE, OptunaState.PRUNED, OptunaState.FAIL
    states = [trial.state for trial in stored.trials]
    assert states == [complete, complete, pruned, pruned, fail, OptunaState.RUNNING]
    assert stored.direction is optuna.study.StudyDirection.MINIMIZE
    assert stored.best_trial.number == kept.number
    assert stored.trials[diverged.number].intermediate_values == {100: 0.01, 200: math.inf}
    assert stored.trials[failed.number].user_attrs["reason"] == "ValueError: no"


def test_a_study_follows_without_gaps(make_desk: MakeDesk, open_mirror: OpenMirror, url: str) -> None:
    desk = make_desk()
    mirror = open_mirror(desk)
    desk.train()
    slow = desk.next()
    desk.train()
    mirror.follow()
    mirror.wait()
    assert [trial.number for trial in load(url).trials] == [0]
    desk.report(slow.number, 900, 0.5, final=True)
    desk.finish(slow.number)
    mirror.follow()
    mirror.follow()
    mirror.wait()
    assert shown(load(url)) == shown(desk.broker.study)


def test_trials_interrupted_more_than_once_are_brought_up_to_date(
    make_desk: MakeDesk, open_mirror: OpenMirror, url: str
) -> None:
    desk = make_desk(pruner=ASHA)
    trial = desk.next()
    for step, value in {100: 0.5, 200: 0.4}.items():
        desk.report(trial.number, step, value)
        open_mirror(desk).complete()  # the driver stops, and another one goes on
        assert shown(load(url)) == shown(desk.broker.study)
    desk.report(trial.number, 900, 0.9, final=True)
    desk.finish(trial.number)
    desk.train()
    mirror = open_mirror(desk)
    mirror.follow()
    mirror.wait()
    assert shown(load(url)) == shown(desk.broker.study)
    assert [trial.state for trial in load(url).trials] == [OptunaState.COMPLETE] * 2


def test_what_the_sampler_keeps_with_the_study_is_copied(
    make_desk: MakeDesk, open_mirror: OpenMirror, url: str
) -> None:
    desk = make_desk(sampler="qmc")
    for _ in range(3):
        desk.train()
    open_mirror(desk).complete()
    stored = load(url)
    kept = stored._storage.get_study_system_attrs(stored._study_id)
    assert any(key.startswith("qmc:") for key in kept)
    assert kept == desk.broker.study._storage.get_study_system_attrs(desk.broker.study._study_id)


def test_somebody_elses_study_of_the_same_name_is_refused(
    make_desk: MakeDesk, open_mirror: OpenMirror, url: str
) -> None:
    theirs = make_desk()
    theirs.train()
    open_mirror(theirs).complete()
    with pytest.raises(ResultsError, match=r"a study named 'desk' with trials that this sweep does not have.*--name"):
        OptunaMirror(url, make_desk().broker.study)
    assert len(load(url).trials) == 1


def test_a_study_is_deleted_once_and_no_more(make_desk: MakeDesk, open_mirror: OpenMirror, url: str) -> None:
    desk = make_desk()
    desk.train()
    open_mirror(desk).complete()
    delete_study(url, "another")
    assert len(load(url).trials) == 1
    delete_study(url, "desk")
    delete_study(url, "desk")
    with pytest.raises(KeyError):
        load(url)


def test_a_study_of_several_objectives_is_copied_with_all_values(
    make_desk: MakeDesk, open_mirror: OpenMirror, url: str
) -> None:
    desk = make_desk(pruner=ASHA, others={"size": "minimize"})
    good, small, worse, diverged, running = (desk.next() for _ in range(5))
    for trial, accuracy, size in ((good, 0.9, 9.0), (small, 0.8, 1.0)):
        desk.report(trial.number, 100, accuracy, size=size, final=True)
        desk.finish(trial.number)
    mirror = open_mirror(desk)
    mirror.follow()
    desk.report(running.number, 100, 0.95, size=3.0)
    desk.report(worse.number, 100, 0.1, size=5.0)
    desk.report(diverged.number, 100, 0.5, size=math.nan)
    mirror.complete()
    desk.report(running.number, 900, 0.95, size=2.0, final=True)
    desk.finish(running.number)
    open_mirror(desk).complete()  # another driver went on
    stored = load(url)
    assert shown(stored) == shown(desk.broker.study)
    assert [trial.state.name for trial in stored.trials] == ["COMPLETE", "COMPLETE", "PRUNED", "PRUNED", "COMPLETE"]
    assert [trial.number for trial in stored.best_trials] == [small.number, running.number]
    assert stored.metric_names == ["accuracy", "size"]
    assert not any(trial.intermediate_values for trial in stored.trials)
    assert stored.trials[worse.number].system_attrs == {"completed_rung_0": 0.1}  # which the shadow was given


def wait_until(is_so: Callable[[], bool]) -> None:
    until_s = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < until_s
        time.sleep(0.01)


def test_nothing_waits_for_a_copy_that_waits_for_the_database(
    make_desk: MakeDesk, open_mirror: OpenMirror, url: str
) -> None:
    desk = make_desk()
    desk.train()
    mirror = open_mirror(desk)
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        began_s = time.monotonic()
        mirror.follow()
        desk.train()
        mirror.follow()
        assert time.monotonic() - began_s < 5  # seconds, of the thirty for which the copy would wait
        assert load(url).trials == []
        other.execute("ROLLBACK")
    mirror.wait()
    assert shown(load(url)) == shown(desk.broker.study)


def test_a_copy_that_failed_behind_the_scenes_says_so_at_the_next_turn_and_at_the_end(
    make_desk: MakeDesk, open_mirror: OpenMirror, url: str
) -> None:
    desk = make_desk()
    desk.train()
    mirror = open_mirror(desk)
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as other:
        other.execute("ALTER TABLE trial_params RENAME TO elsewhere")
    mirror.follow()
    with pytest.raises(ResultsError, match=r"no such table: trial_params.*`finesweep resume` completes them"):
        mirror.wait()
    with pytest.raises(ResultsError, match="no such table: trial_params"):
        mirror.complete()

    def has_told() -> bool:
        try:
            mirror.follow()
        except ResultsError:
            return True
        return False

    wait_until(has_told)
    assert load_numbers(url) == []  # of a transaction that failed nothing is there
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as other:
        other.execute("ALTER TABLE elsewhere RENAME TO trial_params")
    open_mirror(desk).complete()
    assert shown(load(url)) == shown(desk.broker.study)


def load_numbers(url: str) -> list[int]:
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
        return [number for (number,) in connection.execute("SELECT number FROM trials ORDER BY trial_id")]


def test_a_copy_that_is_closed_half_way_is_a_beginning_and_is_completed(
    make_desk: MakeDesk, open_mirror: OpenMirror, url: str
) -> None:
    desk = make_desk(n_trials=100)
    for _ in range(100):
        desk.train()
    mirror = open_mirror(desk)
    mirror.follow()
    mirror.close()
    numbers = load_numbers(url)
    assert numbers == list(range(len(numbers)))
    open_mirror(desk).complete()
    assert load_numbers(url) == list(range(100))
    assert shown(load(url)) == shown(desk.broker.study)


SEEDED = """
import optuna
optuna.logging.set_verbosity(optuna.logging.WARNING)
study = optuna.create_study(study_name="desk", sampler=optuna.samplers.RandomSampler(seed=0))
for i in range(400):
    trial = study.ask()
    for step in range(20):
        trial.report(trial.suggest_float("x", 0, 1) + step, step)
    study.tell(trial, i)
"""
KILLED = """
import os, signal, sqlite3, sys, time
from finesweep.search.mirror import OptunaMirror
mirror = OptunaMirror(sys.argv[1], study)
mirror.follow()
connection = sqlite3.connect(sys.argv[1].removeprefix("sqlite:///"))
while not connection.execute("SELECT count(*) FROM trials").fetchone()[0]:
    time.sleep(0.001)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_copy_that_is_killed_half_way_is_completed_by_the_next_driver(url: str) -> None:
    ended = subprocess.run([sys.executable, "-c", SEEDED + KILLED, url], capture_output=True)
    assert ended.returncode == -9, ended.stderr
    numbers = load_numbers(url)
    assert 0 < len(numbers) < 400
    assert numbers == list(range(len(numbers)))
    names: dict[str, optuna.Study] = {}
    exec(SEEDED, names)
    mirror = OptunaMirror(url, names["study"])
    mirror.complete()
    mirror.close()
    assert load_numbers(url) == list(range(400))
    stored = load(url).trials
    assert [(t.number, t.value, t.intermediate_values) for t in stored] == [
        (t.number, t.value, t.intermediate_values) for t in names["study"].trials
    ]


def test_trials_that_somebody_else_writes_meanwhile_are_not_taken_for_ours(
    make_desk: MakeDesk, open_mirror: OpenMirror, url: str
) -> None:
    desk = make_desk()
    desk.train()
    mirror = open_mirror(desk)
    theirs = optuna.storages.RDBStorage(url)
    theirs.create_new_trial(theirs.get_study_id_from_name("desk"))
    theirs.remove_session()
    theirs.engine.dispose()
    mirror.follow()
    with pytest.raises(ResultsError, match="trials that this sweep does not have"):
        mirror.wait()
    assert load_numbers(url) == [0]
