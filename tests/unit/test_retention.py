from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from finesweep.events import (
    AttemptEnded,
    AttemptResult,
    AttemptStarted,
    Ending,
    TrialFinished,
    TrialState,
)
from finesweep.layout import log_path, trial_dir
from finesweep.retention import Retention
from finesweep.spec.sweep import SweepSpec

Specs = Callable[..., SweepSpec]


class Shelf:
    """An artifact folder, and the trials that ended in it."""

    def __init__(
        self,
        folder: Path,
        spec: SweepSpec,
        *,
        front: Mapping[int, Sequence[float]] | None = None,
        kept: tuple[int, ...] = (),
    ) -> None:
        self.folder = folder
        self.removed: list[int] = []
        for number in kept:
            self.write(number)
        self.retention = Retention(spec, folder, front=front or {}, removed=self.removed.append)

    def write(self, number: int) -> None:
        for name in ("attempt-1", "best"):
            (trial_dir(self.folder, number) / name).mkdir(parents=True)
            (trial_dir(self.folder, number) / name / "model.safetensors").write_bytes(b"weights")
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
    shelf = make_shelf("best", front={3: (0.7,)}, kept=(3,))
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
    shelf = Shelf(tmp_path, spec, front={3: (0.7, 2.0), 4: (0.6, 1.0)}, kept=(3, 4))
    for number, values in {5: (0.5, 0.5), 6: (0.55, 1.5), 7: (0.7, 0.9)}.items():
        shelf.begin(number)
        shelf.end(number, values[0], TrialState.COMPLETE, *values[1:])
    assert shelf.kept() == {5, 7}
    assert sorted(shelf.removed) == [3, 4, 6]


def test_a_result_taken_over_changes_nothing(make_shelf: Callable[..., Shelf]) -> None:
    shelf = make_shelf("best", front={3: (0.7,)}, kept=(3,))
    shelf.retention([TrialFinished(4, TrialState.COMPLETE, None, 0.9, 100, reused_from=3)])
    assert (shelf.kept(), shelf.removed) == ({3}, [])


def test_a_trial_that_wrote_nothing_is_no_fault(make_shelf: Callable[..., Shelf]) -> None:
    shelf = make_shelf("none")
    shelf.retention([TrialFinished(0, TrialState.FAILED, "no", None, None)])
    assert shelf.removed == []


@pytest.mark.parametrize(("keep", "kept"), [("best", {1}), ("all", {0, 1, 2}), ("none", set())])
def test_what_a_driver_that_died_had_still_to_remove_goes_when_the_next_one_begins(
    tmp_path: Path, make_spec: Specs, keep: str, kept: set[int]
) -> None:
    spec = make_spec(artifacts={"keep": keep})
    shelf = Shelf(tmp_path, spec, front={1: (0.9,)}, kept=(0, 1, 2))
    shelf.retention.catch_up([0, 1, 2])
    assert shelf.kept() == kept
    assert set(shelf.removed) == {0, 1, 2} - kept
    shelf.retention.catch_up([0, 1, 2])
    assert len(shelf.removed) == 3 - len(kept)  # nothing is noted twice
