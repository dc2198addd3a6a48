"""A trainer of the user's own: what it is told, where its reports fall on the grid, and how an attempt ends."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from finesweep.errors import FunctionError, SpecError
from finesweep.events import AttemptResult, Decision, Ending, Grid, Report, TrialSpec
from finesweep.spec.sweep import FunctionSweep, read_sweep
from finesweep.training.function import FunctionTrainer, Reporter, Trial, load_trainer

EVERY_100 = Grid(unit="examples", every=100, longest=0)
PERCENT = Grid(unit="progress", every=20, longest=100)


class Script:
    """The sweep's side: answers as told, continue where nothing is said, and keeps what it hears."""

    def __init__(self, answers: Mapping[int, Decision] | None = None, polls: Mapping[int, Decision] | None = None):
        self.answers, self.polls = dict(answers or {}), dict(polls or {})
        self.reports: list[Report] = []
        self.facts: dict[str, Any] = {}
        self.n_polls = 0

    def describe(self, facts: Mapping[str, Any]) -> None:
        self.facts |= facts

    def report(self, report: Report) -> Decision:
        self.reports.append(report)
        return self.answers.get(report.step, Decision.CONTINUE)

    def poll(self) -> Decision:
        self.n_polls += 1
        return self.polls.get(self.n_polls, Decision.CONTINUE)

    @property
    def steps(self) -> list[tuple[int, int, bool]]:
        return [(report.step, report.examples_seen, report.final) for report in self.reports]


def sweep(**sections: Any) -> FunctionSweep:
    content = {
        "name": "own",
        "trainer": "shop.train:train",
        "study": {
            "objective": {"metric": "accuracy", "direction": "maximize"},
            "parameters": {"rate": {"type": "float", "low": 0, "high": 1}},
        },
        "training": {"seed": 3, "layers": [1, 2]},
        "budget": {"trials": 2},
    }
    spec = read_sweep(content | sections)
    assert isinstance(spec, FunctionSweep)
    return spec


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., tuple[AttemptResult, Script]]:
    def run_one(
        function: Callable[[Trial, Reporter], object],
        *,
        script: Script | None = None,
        grid: Grid = EVERY_100,
        attempt: int = 1,
        configuration: Mapping[str, Any] | None = None,
        **sections: Any,
    ) -> tuple[AttemptResult, Script]:
        script = script or Script()
        trial = TrialSpec(number=7, attempt=attempt, configuration=configuration or {"rate": 0.5})
        return FunctionTrainer(function, sweep(**sections), grid, tmp_path).run(trial, script), script

    return run_one


Run = Callable[..., tuple[AttemptResult, Script]]


def reporting(*seen: int, **options: Any) -> Callable[[Trial, Reporter], None]:
    def train(trial: Trial, reporter: Reporter) -> None:
        for examples in seen:
            if reporter.report(examples, {"accuracy": examples / 1000}, **options).must_return:
                return

    return train


@pytest.mark.parametrize(
    ("seen", "steps"),
    [
        ((100, 200, 300), [(100, 100, False), (200, 200, False), (300, 300, False)]),
        ((104, 208, 304), [(100, 104, False), (200, 208, False), (300, 304, False)]),  # batches of 8
        ((40, 80, 120, 160, 200), [(100, 120, False), (200, 200, False)]),
        ((40, 80, 120, 160), [(100, 120, False), (160, 160, True)]),  # what follows the grid is the trial's end
        ((350, 380, 420), [(300, 350, False), (400, 420, False)]),  # each step counts for the trials that reached it
        ((0, 100), [(0, 0, False), (100, 100, False)]),  # before any training
        ((40,), [(40, 40, True)]),
    ],
)
def test_reports_count_for_the_step_of_the_grid_that_they_have_reached(run: Run, seen: Any, steps: Any) -> None:
    result, script = run(reporting(*seen))
    assert script.steps == steps
    assert result.ending is Ending.DONE


def test_the_last_report_is_final_where_the_length_is_known_or_said(run: Run) -> None:
    _, script = run(reporting(100, 200), training={"total_examples": 200})
    assert script.steps == [(100, 100, False), (200, 200, True)]
    assert script.facts["last_step"] == 200
    _, script = run(reporting(100, 200), configuration={"total_examples": 200.0})  # derived: epochs * rows
    assert script.steps[-1] == (200, 200, True)
    _, script = run(lambda trial, reporter: reporter.report(150, {"accuracy": 1}, final=True))
    assert script.steps == [(150, 150, True)]


def test_progress_counts_percent_of_the_length_that_the_trainer_tells(run: Run) -> None:
    def train(trial: Trial, reporter: Reporter) -> None:
        reporter.total_examples = 80
        reporting(10, 20, 40, 64, 84)(trial, reporter)

    _, script = run(train, grid=PERCENT)
    assert script.steps == [(20, 20, False), (40, 40, False), (80, 64, False), (100, 84, True)]
    with pytest.raises(ValueError, match=r"reporter.total_examples must be set before the first report"):
        run(reporting(10), grid=PERCENT)


def test_a_loss_that_is_not_finite_is_told_at_once(run: Run) -> None:
    told: list[Decision] = []

    def train(trial: Trial, reporter: Reporter) -> None:
        told.append(reporter.report(100, {"accuracy": 0.5}))
        told.append(reporter.report(120, {"accuracy": 0.5, "spearman": math.nan}))  # undefined, which may be
        told.append(reporter.report(130, {"accuracy": 0.5, "loss": math.inf}))

    result, script = run(train, script=Script({130: Decision.STOP}))
    assert script.steps == [(100, 100, False), (130, 130, False)]
    assert told == [Decision.CONTINUE, Decision.CONTINUE, Decision.STOP]
    assert result.ending is Ending.STOPPED


@pytest.mark.parametrize(("word", "ending"), [(Decision.STOP, Ending.STOPPED), (Decision.PAUSE, Ending.PAUSED)])
def test_a_trainer_that_returns_when_told_ends_as_told(run: Run, word: Decision, ending: Ending) -> None:
    result, script = run(reporting(100, 200, 300), script=Script({200: word}))
    assert [step for step, _, _ in script.steps] == [100, 200]
    assert result.ending is ending


@pytest.mark.parametrize(("word", "ending"), [(Decision.STOP, Ending.STOPPED), (Decision.PAUSE, Ending.PAUSED)])
def test_a_trainer_that_does_not_listen_is_ended_at_its_next_report(run: Run, word: Decision, ending: Ending) -> None:
    reached, cleaned = [], []

    def train(trial: Trial, reporter: Reporter) -> None:
        for seen in range(100, 1000, 100):
            try:
                reporter.report(seen, {"accuracy": 0.5})
                reached.append(seen)
            except Exception:
                raise AssertionError("not to be caught by those who catch errors") from None
            finally:
                cleaned.append(seen)

    result, _ = run(train, script=Script({200: word}))
    assert reached == [100, 200]
    assert cleaned == [100, 200, 300]
    assert result.ending is ending


def test_it_can_ask_between_reports_and_hears_at_reports_off_the_grid(run: Run) -> None:
    def train(trial: Trial, reporter: Reporter) -> None:
        assert not reporter.should_stop()
        assert reporter.should_stop()
        assert reporter.should_stop()  # still

    result, script = run(train, script=Script(polls={2: Decision.PAUSE}))
    assert result.ending is Ending.PAUSED
    assert script.n_polls == 2
    result, script = run(reporting(100, 150, 160), script=Script(polls={1: Decision.PAUSE}))
    assert script.steps == [(100, 100, False)]  # a pause is no end: what is held is reported again, or passed
    assert result.ending is Ending.PAUSED


def test_it_is_told_its_trial_and_finds_its_folder_again(run: Run, tmp_path: Path) -> None:
    told: list[Trial] = []

    def train(trial: Trial, reporter: Reporter) -> None:
        told.append(trial)
        with (trial.folder / "steps.txt").open("a") as file:
            file.write(f"{trial.attempt}\n")
        reporter.report(100, {"accuracy": 0.5})

    result, script = run(train, script=Script({100: Decision.PAUSE}))
    assert result == AttemptResult(Ending.PAUSED)
    assert script.facts["resumed_from"] is None
    result, script = run(train, attempt=2)
    kept = {"folder": "trial-0007/folder"}
    assert result == AttemptResult(Ending.DONE, artifacts=kept, artifact_bytes={"folder": 4})
    assert script.facts["resumed_from"] == "trial-0007/folder"
    first, second = told
    assert (first.number, first.attempt, second.attempt, first.seed) == (7, 1, 2, 3)
    assert first.configuration == {"rate": 0.5}
    assert first.settings["layers"] == [1, 2]
    assert first.settings["seed"] == 3
    assert (first.model, first.model_path, first.task, first.data) == (None, None, None, None)
    assert (tmp_path / "trial-0007" / "folder" / "steps.txt").read_text() == "1\n2\n"


def test_model_and_data_are_passed_on_where_they_are_given(run: Run) -> None:
    told: list[Trial] = []
    data = {"train": "/t.csv", "validation": 0.1}
    run(lambda trial, reporter: told.append(trial), model="package:transformers/models", task="regression", data=data)
    assert told[0].data is not None and told[0].data.train == "/t.csv"
    assert told[0].task == "regression"
    assert told[0].model_path is not None and Path(told[0].model_path).is_dir()
    run(lambda trial, reporter: told.append(trial), model="org/name")
    assert told[1].model_path == "org/name"


@pytest.mark.parametrize(
    ("say", "told"),
    [
        (
            lambda reporter: reporter.report(100, {"accuracy": "high"}),
            "metric 'accuracy' is 'high': metrics are numbers",
        ),
        (lambda reporter: reporter.report(100, 0.9), r'metrics is 0.9: give them by name, as in {"accuracy": 0.9}'),
        (lambda reporter: reporter.report(-1, {"accuracy": 1}), r"examples_seen is -1, .* Count the training examples"),
        (lambda reporter: reporter.report(50, {"accuracy": 1}), "is 50, and the report before was at 90"),
        (lambda reporter: setattr(reporter, "total_examples", 0), "reporter.total_examples is 0: give the number of"),
    ],
)
def test_a_report_that_makes_no_sense_is_refused(run: Run, say: Callable[[Reporter], object], told: str) -> None:
    def train(trial: Trial, reporter: Reporter) -> None:
        reporter.report(90, {"accuracy": 0.9})
        say(reporter)

    with pytest.raises((TypeError, ValueError), match=told):
        run(train)


def test_what_can_be_a_number_is_one(run: Run) -> None:
    import numpy as np

    _, script = run(lambda trial, reporter: reporter.report(np.int64(100), {"accuracy": np.float32(0.5), "n": True}))
    assert script.reports[0].metrics == {"accuracy": 0.5, "n": 1.0}
    assert type(script.reports[0].examples_seen) is int


def test_sys_exit_is_a_failure_that_says_so(run: Run) -> None:
    def train(trial: Trial, reporter: Reporter) -> None:
        raise SystemExit(3)

    result, _ = run(train)
    assert result.ending is Ending.FAILED
    assert result.reason is not None and "sys.exit(3)" in result.reason
    assert result.traceback is not None and "SystemExit" in result.traceback


def test_what_is_returned_is_not_read_and_said_so(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    result, _ = run(lambda trial, reporter: 0.93)
    assert result.ending is Ending.DONE  # the broker fails the trial: nothing was reported
    assert "the trainer returned 0.93, which nobody reads" in caplog.text


def test_a_derived_length_that_is_none_is_told(run: Run) -> None:
    with pytest.raises(SpecError, match=r"total_examples"):
        run(reporting(100), configuration={"total_examples": 0.5})


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (
            "def train(): ...",
            r"shop_loop:train cannot be called with .* `def train\(trial, reporter",
        ),
        ("def train(trial, reporter, rate): ...", "cannot be called with"),
    ],
)
def test_a_trainer_of_other_arguments_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, told: str
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "shop_loop", raising=False)
    (tmp_path / "shop_loop.py").write_text(code)
    with pytest.raises(FunctionError, match=told):
        load_trainer(sweep(trainer="shop_loop:train", code_dir=str(tmp_path)))
