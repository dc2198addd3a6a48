"""Whose weights stay, as trials end and when a sweep is taken up again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from finesweep.events import (
    AttemptEnded,
    AttemptResult,
    AttemptStarted,
    Ending,
    Report,
    Source,
    TrialFinished,
    TrialRecord,
    TrialState,
)
from finesweep.layout import log_path, trial_dir
from finesweep.retention import Retention
from finesweep.spec.sweep import SweepSpec

Specs = Callable[..., SweepSpec]


def record(number: int, *values: float, state: TrialState = TrialState.COMPLETE, attempts: int = 1) -> TrialRecord:
    """A trial as the database remembers it; values are those of accuracy and loss, at one step."""
    metrics = dict(zip(("accuracy", "loss"), values, strict=False))
    reports = (Report(100, metrics, 100),) if values else ()
    step = 100 if state is TrialState.COMPLETE else None
    return TrialRecord(number, state, {}, {}, {}, Source.SAMPLER, {}, reports, attempts, 0, value_step=step)


class Shelf:
    """An artifact folder, and the trials that ended in it."""

    def __init__(
        self,
        folder: Path,
        spec: SweepSpec,
        *,
        front: Mapping[int, Sequence[float]] | None = None,
    ) -> None:
        """`front`: trials of an earlier drive, with their values, that have their weights."""
        self.folder = folder
        self.removed: list[int] = []
        for number in front or {}:
            self.write(number)
        trials = [record(number, *values) for number, values in (front or {}).items()]
        self.retention = Retention(spec, folder, trials=trials, removed=self.removed.append)

    def write(self, number: int) -> None:
        for name in ("attempt-1/best-100", "folder"):
            write_part(trial_dir(self.folder, number) / name)
        log_path(self.folder, number).write_text("log", encoding="utf-8")

    def begin(self, number: int) -> None:
        self.write(number)
        self.retention([AttemptStarted(number, 1)])

    def end(self, number: int, value: float | None, state: TrialState = TrialState.COMPLETE, *others: float) -> None:
        """End a trial as a backend does: a pruned one's worker has yet to clean up."""
        ended = AttemptEnded(number, 1, AttemptResult(Ending.DONE))
        finished = TrialFinished(number, state, None, value, 100, other_values=others)
        self.retention([finished] if state is TrialState.PRUNED else [ended, finished])

    def kept(self) -> set[int]:
        """Name the trials whose weights are there; every trial keeps its log."""
        numbers = {int(path.name.removeprefix("trial-")) for path in self.folder.iterdir()}
        assert all(log_path(self.folder, number).exists() for number in numbers)
        return {number for number in numbers if any(path.is_dir() for path in trial_dir(self.folder, number).iterdir())}


def write_part(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights")


@pytest.fixture
def make_shelf(tmp_path: Path, make_spec: Specs) -> Callable[..., Shelf]:
    def make(keep: str, direction: str = "maximize", **options: object) -> Shelf:
        return Shelf(tmp_path, make_spec(direction=direction, artifacts={"keep": keep}), **options)  # type: ignore[arg-type]

    return make


@pytest.mark.parametrize(
    ("keep", "direction", "kept"),
    [
        ("best", "maximize", {1}),
        ("best", "minimize", {2}),
        ("best 1", "maximize", {1}),
        ("top 1", "minimize", {2}),
        ("top 2", "maximize", {0, 1}),
        ("best 3", "minimize", {0, 2, 3}),
        ("top 9", "maximize", {0, 1, 2, 3}),
        ("all", "maximize", {0, 1, 2, 3}),
        ("none", "maximize", set()),
    ],
)
def test_weights_are_kept_as_the_sweep_says(
    make_shelf: Callable[..., Shelf], keep: str, direction: str, kept: set[int]
) -> None:
    shelf = make_shelf(keep, direction)
    for number, value in enumerate((0.5, 0.9, 0.1, 0.5)):
        shelf.begin(number)
        shelf.end(number, value)
    assert shelf.kept() == kept
    assert sorted(shelf.removed) == sorted({0, 1, 2, 3} - kept)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_of_equals_the_lower_number_is_kept(make_shelf: Callable[..., Shelf], order: tuple[int, int]) -> None:
    """The one that results call the best, whichever ended first."""
    shelf = make_shelf("best")
    for number in order:
        shelf.begin(number)
    for number in order:
        shelf.end(number, 0.5)
    assert shelf.kept() == {0}


@pytest.mark.parametrize("keep", ["best", "all"])
def test_failed_and_pruned_trials_keep_no_weights(make_shelf: Callable[..., Shelf], keep: str) -> None:
    shelf = make_shelf(keep)
    for number, state in enumerate((TrialState.COMPLETE, TrialState.FAILED)):
        shelf.begin(number)
        shelf.end(number, 0.5 if state is TrialState.COMPLETE else None, state)
    assert shelf.kept() == {0}


def test_a_pruned_trials_files_go_once_its_worker_has_cleaned_up(make_shelf: Callable[..., Shelf]) -> None:
    shelf = make_shelf("best")
    shelf.begin(0)
    shelf.end(0, None, TrialState.PRUNED)
    assert (shelf.kept(), shelf.removed) == ({0}, [])
    shelf.retention([AttemptEnded(0, 1, AttemptResult(Ending.STOPPED))])
    assert (shelf.kept(), shelf.removed) == (set(), [0])


def test_the_best_of_an_earlier_drive_is_beaten_or_stays(make_shelf: Callable[..., Shelf]) -> None:
    shelf = make_shelf("best", front={3: (0.7,)})
    shelf.begin(4)
    shelf.end(4, 0.6)
    assert shelf.kept() == {3}
    shelf.begin(5)
    shelf.end(5, 0.8)
    assert shelf.kept() == {5}
    assert shelf.removed == [4, 3]


def test_with_several_objectives_the_front_is_kept(tmp_path: Path, make_spec: Specs) -> None:
    objective = [{"metric": "accuracy", "direction": "maximize"}, {"metric": "loss", "direction": "minimize"}]
    parameters = {"batch_size": {"type": "categorical", "choices": [8, 16]}}
    spec = make_spec(study={"objective": objective, "parameters": parameters})
    shelf = Shelf(tmp_path, spec, front={3: (0.7, 2.0), 4: (0.6, 1.0)})
    for number, values in {5: (0.5, 0.5), 6: (0.55, 1.5), 7: (0.7, 0.9)}.items():
        shelf.begin(number)
        shelf.end(number, values[0], TrialState.COMPLETE, *values[1:])
    assert shelf.kept() == {5, 7}
    assert sorted(shelf.removed) == [3, 4, 6]


def test_a_result_taken_over_changes_nothing(make_shelf: Callable[..., Shelf]) -> None:
    shelf = make_shelf("best", front={3: (0.7,)})
    shelf.retention([TrialFinished(4, TrialState.COMPLETE, None, 0.9, 100, reused_from=3)])
    assert (shelf.kept(), shelf.removed) == ({3}, [])


def test_a_trial_that_wrote_nothing_is_no_fault(make_shelf: Callable[..., Shelf]) -> None:
    shelf = make_shelf("none")
    shelf.retention([TrialFinished(0, TrialState.FAILED, "no", None, None)])
    assert shelf.removed == []


def test_a_trial_that_falls_out_of_the_best_goes_as_soon_as_it_does(make_shelf: Callable[..., Shelf]) -> None:
    shelf = make_shelf("top 2", front={0: (0.5,), 1: (0.6,)})
    kept = []
    for number, value in ((2, 0.4), (3, 0.7), (4, 0.65)):
        shelf.begin(number)
        shelf.end(number, value)
        kept.append(shelf.kept())
    assert kept == [{0, 1}, {1, 3}, {3, 4}]
    assert shelf.removed == [2, 0, 1]


@pytest.mark.parametrize("keep", ["best", "top 1", "all"])
def test_removals_that_an_earlier_drive_did_not_come_to_are_made_up_for(
    tmp_path: Path, make_spec: Specs, keep: str
) -> None:
    states = (TrialState.PRUNED, TrialState.FAILED, TrialState.COMPLETE, TrialState.COMPLETE)
    trials = [record(number, number / 10, state=state) for number, state in enumerate(states)]
    for number in range(4):
        for name in ("best-100", "checkpoint-7"):
            write_part(trial_dir(tmp_path, number) / "attempt-1" / name)
    removed: list[int] = []
    Retention(make_spec(artifacts={"keep": keep}), tmp_path, trials=trials, removed=removed.append)
    left = {2, 3} if keep == "all" else {3}
    assert parts_in(tmp_path) == {f"trial-000{number}/attempt-1/best-100" for number in left}
    assert removed == sorted({0, 1, 2, 3} - left)


def test_what_unfinished_trials_need_to_go_on_stays(tmp_path: Path, make_spec: Specs) -> None:
    """But what was never finished goes, and attempts that the database lost: theirs will be made anew."""
    trials = [record(0, state=TrialState.INTERRUPTED, attempts=2), record(1, state=TrialState.WAITING, attempts=0)]
    needed = ["trial-0000/attempt-1/checkpoint-7", "trial-0000/attempt-2/best-100", "trial-0000/folder"]
    lost = ["trial-0000/attempt-2/.checkpoint-9.123", "trial-0000/attempt-3/checkpoint-12", "trial-0001/attempt-1"]
    for name in (*needed, *lost):
        write_part(tmp_path / name)
    removed: list[int] = []
    Retention(make_spec(artifacts={"keep": "none"}), tmp_path, trials=trials, removed=removed.append)
    assert parts_in(tmp_path) == set(needed)
    assert not (tmp_path / "trial-0000/attempt-3").exists() and not (tmp_path / "trial-0001/attempt-1").exists()
    assert removed == []


def test_trials_that_the_database_does_not_know_are_set_aside(tmp_path: Path, make_spec: Specs) -> None:
    """Their numbers will be given again: a new trial must not go on from another one's checkpoint."""
    write_part(tmp_path / "trial-0001/attempt-1/checkpoint-7")
    Retention(make_spec(), tmp_path, trials=[record(0, 0.5)], removed=lambda number: None)
    assert parts_in(tmp_path) == {"unknown/trial-0001/attempt-1/checkpoint-7"}


@pytest.mark.parametrize("ending", [Ending.LOST, Ending.BLOCKED])
def test_what_a_dead_worker_was_writing_goes_and_its_checkpoint_stays(
    make_shelf: Callable[..., Shelf], ending: Ending
) -> None:
    shelf = make_shelf("best")
    shelf.retention([AttemptStarted(0, 1)])
    for name in ("checkpoint-7", ".checkpoint-9.123"):
        write_part(trial_dir(shelf.folder, 0) / "attempt-1" / name)
    shelf.retention([AttemptEnded(0, 1, AttemptResult(ending))])
    assert parts_in(shelf.folder) == {"trial-0000/attempt-1/checkpoint-7"}


def parts_in(folder: Path) -> set[str]:
    return {path.parent.relative_to(folder).as_posix() for path in folder.rglob("model.safetensors")}
