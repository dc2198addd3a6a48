"""Nothing that a sweep, a trainer or a database says leads out of the sweep's own folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.commandline import invoke

from finesweep import sweeps
from finesweep.artifacts import make_room
from finesweep.errors import FinesweepError, ResultsError, SpecError
from finesweep.events import AttemptResult, Decision, Ending, Event, Grid, Report, TrialSpec
from finesweep.layout import is_below, is_ours
from finesweep.results.frames import open_results
from finesweep.results.schema import SweepState
from finesweep.results.writer import open_writer
from finesweep.scheduling.lanes import run_assignment
from finesweep.spec.files import load_sweep
from finesweep.trainer import Reporter

NAMES = ("con", "nul.txt", "A", "0", "a..b", "a-", "x" * 80)
NO_NAMES = ("", ".", "..", "a/b", "/a", "../a", "a\\b", "a b", "-a", ".a", "~", "a\n", "a\0", "ü", "a\u202eb",
            "e\u0301", "x" * 81, "$(id)", "a;b", "*")  # fmt: skip
SWEEP = """\
trainer: mine:train
study:
  objective: {metric: score, direction: maximize}
  parameters: {rate: {type: float, low: 0, high: 1}}
budget: {trials: 1}
"""


@pytest.fixture
def sweep_file(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text("def train(trial, reporter): ...\n")
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    return tmp_path / "sweep.yaml"


@pytest.mark.parametrize("name", NAMES)
def test_names_that_are_safe_for_files(sweep_file: Path, name: str) -> None:
    spec = load_sweep(sweep_file, name=name)
    place = sweeps.place_of(spec, results=str(sweep_file.parent / "x.db"))
    assert place.artifact_dir == sweep_file.parent / "artifacts" / name
    sweeps.make_folder(place.artifact_dir)


@pytest.mark.parametrize("name", NO_NAMES)
def test_names_that_are_not(sweep_file: Path, name: str) -> None:
    with pytest.raises(SpecError, match="begin with a letter or digit"):
        load_sweep(sweep_file, name=name)


@pytest.mark.parametrize("path", ["trial-0001/folder", "a", "a/b c/ü", "a/..b", "./a"])
def test_artifacts_within_the_folder(path: str) -> None:
    assert is_below(path)


@pytest.mark.parametrize(
    "path", ["", ".", "..", "/etc/passwd", "../x", "a/../../x", "a/..", "a\\..\\x", "a\0b", "a\nb", 3, None, "//a"]
)
def test_artifacts_that_are_not(path: object) -> None:
    assert not is_below(path)


class Naming:
    """A trainer that names an artifact."""

    def __init__(self, path: Any) -> None:
        self.path = path

    def run(self, trial: TrialSpec, reporter: Reporter) -> AttemptResult:
        return AttemptResult(Ending.DONE, artifacts={"best": self.path})


class Listening:
    def __init__(self) -> None:
        self.results: list[AttemptResult] = []

    def describe(self, number: int, facts: Mapping[str, Any]) -> None: ...

    def report(self, reports: Mapping[int, Report]) -> Mapping[int, Decision]:
        return dict.fromkeys(reports, Decision.CONTINUE)

    def poll(self, number: int) -> Decision:
        return Decision.CONTINUE

    def end(self, number: int, result: AttemptResult) -> None:
        self.results.append(result)


def ending_of(path: Any) -> AttemptResult:
    from contextlib import nullcontext

    listening = Listening()
    run_assignment(Naming(path), [TrialSpec(0, 1, {})], listening, logs=lambda trials: nullcontext())
    [result] = listening.results
    return result


def test_a_trainer_that_names_an_artifact_elsewhere_has_failed() -> None:
    assert ending_of("trial-0000/best") == AttemptResult(Ending.DONE, artifacts={"best": "trial-0000/best"})
    result = ending_of("../other/best")
    assert (result.ending, dict(result.artifacts)) == (Ending.FAILED, {})
    assert result.reason == "the trainer names an artifact outside of the sweep's folder: '../other/best'"


# --- delete -----------------------------------------------------------------------------------------------------


Store = Callable[[Any], Path]


@pytest.fixture
def store(tmp_path: Path, make_spec: Callable[..., Any], trial_events: Callable[..., Sequence[Event]]) -> Store:
    """Return a function that makes a database whose sweep "tickets" says that its files are in some folder."""

    def make(artifact_dir: Any) -> Path:
        with open_writer(tmp_path / "finesweep.db") as writer:
            writer.create_sweep(make_spec(), grid=Grid("examples", 100, 200), provenance={"artifact_dir": artifact_dir})
            writer.listener("tickets")(trial_events(0))
            writer.set_state("tickets", SweepState.FINISHED)
        return tmp_path / "finesweep.db"

    return make


def fill(folder: Path, *names: str) -> Path:
    """Make files of these names below a folder."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    return folder


OURS = ("trial-0000/log.txt", "trial-12345/attempt-1/best-100/model.safetensors", "driver.log", "fitting.json",
        "fitting.lock", ".room.lock", "unknown/trial-0007/x", "tensorboard/tickets-0/events", "mlflow.lock",
        "wandb/x")  # fmt: skip


def test_delete_removes_what_finesweep_makes(store: Store, tmp_path: Path) -> None:
    folder = fill(tmp_path / "artifacts/tickets", *OURS)
    assert sweeps.delete("tickets", results=str(store(str(folder)))) == ()
    assert not folder.exists()
    assert open_results(tmp_path / "finesweep.db").sweeps().empty


def test_delete_leaves_what_somebody_else_put_there(store: Store, tmp_path: Path) -> None:
    folder = fill(tmp_path / "artifacts/tickets", *OURS, "notes.txt", "trial-notes/x", "trial-1/x")
    results = store(str(folder))
    said = invoke("delete", "tickets", "--yes", "--results", str(results))
    assert said.exit_code == 0
    assert "left: " in said.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["notes.txt", "trial-1", "trial-notes"]


@pytest.mark.parametrize("of", ["home", "artifacts/other-tickets", "artifacts"])
def test_a_database_that_names_another_folder_has_nothing_removed(store: Store, tmp_path: Path, of: str) -> None:
    folder = fill(tmp_path / of, *OURS, "dear.txt")
    assert sweeps.delete("tickets", results=str(store(str(folder)))) == (folder,)
    assert (folder / "dear.txt").exists()
    assert (folder / "trial-0000/log.txt").exists()


@pytest.mark.parametrize("folder", [None, 3, "", "tickets", "../tickets"])
def test_a_database_that_names_no_folder_is_said_to(store: Store, folder: Any) -> None:
    with pytest.raises(ResultsError, match="names no artifact folder"):
        sweeps.delete("tickets", results=str(store(folder)))


def test_delete_follows_no_links(store: Store, tmp_path: Path) -> None:
    elsewhere = fill(tmp_path / "elsewhere", "dear.txt", "trial-0000/dear.txt")
    folder = fill(tmp_path / "artifacts/tickets", "trial-0001/log.txt")
    (folder / "trial-0000").symlink_to(elsewhere)
    (folder / "trial-0001/inside").symlink_to(elsewhere)
    (folder / "driver.log").symlink_to(elsewhere / "dear.txt")
    assert sweeps.delete("tickets", results=str(store(str(folder)))) == ()
    assert not folder.exists()
    assert sorted(path.name for path in elsewhere.rglob("*")) == ["dear.txt", "dear.txt", "trial-0000"]


def test_a_folder_that_is_gone_is_deleted(store: Store, tmp_path: Path) -> None:
    assert sweeps.delete("tickets", results=str(store(str(tmp_path / "nowhere/tickets")))) == ()


@pytest.mark.parametrize("name", ["trial-", "trial-1", "trial-0000 ", "trial-000x", "driver.log.txt", "..", "a"])
def test_names_that_are_not_ours(name: str) -> None:
    assert not is_ours(name)


def test_a_database_that_names_another_folder_has_no_room_made_there(store: Store, tmp_path: Path) -> None:
    folder = fill(tmp_path / "home", "unknown/dear.txt", "trial-0000/attempt-9/dear.txt")
    with pytest.raises(FinesweepError, match="is no folder of sweep 'tickets'"):
        make_room(open_results(store(str(folder))), "tickets")
    assert len([path for path in folder.rglob("*") if path.is_file()]) == 2
