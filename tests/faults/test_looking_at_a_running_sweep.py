"""Every way of looking at a sweep, on a database that the sweep is writing to at that moment."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from killing.sweep import NAME, Driver, Sweep, patience
from tests.commandline import invoke

FINAL = ("COMPLETE", "PRUNED", "FAILED")
N_TRIALS = 12


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    return Sweep(tmp_path / "sweep", "inline", n_trials=N_TRIALS, n_slots=1, pause_s=0.03)


@pytest.fixture
def driver(sweep: Sweep) -> Iterator[Driver]:
    started = sweep.go_on()
    with patience("the first report") as turn:
        while not sweep.is_known() or not sweep.rows("select 1 from finesweep_reports"):
            turn()
    yield started
    assert started.wait() == 0, started.output


def test_status_compare_and_report_answer_while_it_writes(sweep: Sweep, driver: Driver, tmp_path: Path) -> None:
    results = ("--results", str(sweep.database))
    seen: list[list[dict[str, Any]]] = []
    while not driver.is_over:
        answers = [invoke(verb, NAME, "--json", *results) for verb in ("status", "compare")]
        answers.append(invoke("report", NAME, "--force", "-o", str(tmp_path / "sweep.html"), *results))
        assert [answer.exit_code for answer in answers] == [0, 0, 0], [answer.stderr for answer in answers]
        seen.append(json.loads(answers[0].stdout))
        page = (tmp_path / "sweep.html").read_text(encoding="utf-8")
        assert page.endswith("</html>\n")
    n_ended = [sum(row["state"] in FINAL for row in rows) for rows in seen]
    assert n_ended == sorted(n_ended)  # nothing that was seen to end is seen to run again
    assert n_ended[-1] > 0
    assert n_ended[0] < N_TRIALS  # it was looked at while it ran
    for rows in seen:
        assert all((row["value"] is not None) == (row["state"] == "COMPLETE") for row in rows)


def test_a_copy_of_the_file_as_a_backup_takes_it_is_whole(sweep: Sweep, driver: Driver, tmp_path: Path) -> None:
    """What people do: copy the database with its WAL while the sweep runs, and look at the copy."""
    import sqlite3
    from contextlib import closing

    copy = tmp_path / "copy.db"
    with closing(sqlite3.connect(sweep.database)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    answer = invoke("status", NAME, "--json", "--results", str(copy))
    assert answer.exit_code == 0, answer.stderr
    assert json.loads(answer.stdout)


def test_the_dashboard_answers_while_it_writes(sweep: Sweep, driver: Driver) -> None:
    testclient = pytest.importorskip("starlette.testclient")
    from finesweep.dashboard.app import make_app
    from finesweep.notebook import open_results

    marks: set[str] = set()
    with testclient.TestClient(make_app(open_results(str(sweep.database))), base_url="http://127.0.0.1") as asking:
        while not driver.is_over:
            marks.add(asking.get("/marks").json()[NAME])
            for path in ("/", f"/sweep/{NAME}", f"/sweep/{NAME}/figures/curves", f"/sweep/{NAME}/trial/0"):
                answer = asking.get(path)
                assert answer.status_code == 200, (path, answer.text)
            assert "nothing" not in asking.get(f"/sweep/{NAME}/figures/curves").json()
    assert len(marks) > 1  # news was seen as such
