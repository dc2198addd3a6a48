from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from finesweep.events import AttemptResult, Decision, Ending, Report, TrialSpec
from finesweep.layout import log_path
from finesweep.scheduling.attempt_log import capture_logs
from finesweep.scheduling.backend import StrictReporter, run_attempt
from finesweep.trainer import Reporter

TRIAL = TrialSpec(7, 2, {"learning_rate": 0.1})


class Driver:
    """Answers as it is told to."""

    def __init__(self, *answers: Decision) -> None:
        self.answers = list(answers)
        self.reports: list[Report] = []
        self.facts: list[Mapping[str, Any]] = []

    def describe(self, facts: Mapping[str, Any]) -> None:
        self.facts.append(facts)

    def report(self, report: Report) -> Decision:
        self.reports.append(report)
        return self.answers.pop(0) if self.answers else Decision.CONTINUE

    def poll(self) -> Decision:
        return self.answers.pop(0) if self.answers else Decision.CONTINUE


class Fraction:
    """A number of another library."""

    def __float__(self) -> float:
        return 0.25


def test_numbers_of_any_library_are_reported_as_floats() -> None:
    driver = Driver()
    StrictReporter(driver).report(Report(100, {"accuracy": Fraction(), "n": 3, "huge": 10**400}, 101, final=True))  # type: ignore[dict-item]
    [report] = driver.reports
    assert report == Report(100, {"accuracy": 0.25, "n": 3.0, "huge": math.inf}, 101, final=True)
    assert {type(value) for value in report.metrics.values()} == {float}


@pytest.mark.parametrize("value", [None, "high", [0.1], 1j])
def test_a_metric_that_is_no_number_is_refused(value: Any) -> None:
    driver = Driver()
    with pytest.raises(TypeError, match=r"metric 'accuracy' is .*: metrics are numbers"):
        StrictReporter(driver).report(Report(100, {"accuracy": value}, 100))
    assert driver.reports == []


def test_steps_must_rise_and_not_be_negative() -> None:
    reporter = StrictReporter(Driver())
    with pytest.raises(ValueError, match="step -1: steps count from 0"):
        reporter.report(Report(-1, {}, 0))
    reporter.report(Report(0, {}, 0))
    reporter.report(Report(200, {}, 200))
    for step in (200, 100):
        with pytest.raises(ValueError, match=f"step {step} after one at step 200: steps must rise"):
            reporter.report(Report(step, {}, step))


@pytest.mark.parametrize("ask_first", [True, False])
def test_after_a_stop_nothing_more_is_told_and_the_answer_stays(ask_first: bool) -> None:
    driver = Driver(Decision.STOP)
    reporter = StrictReporter(driver)
    assert (reporter.poll() if ask_first else reporter.report(Report(100, {}, 100))) is Decision.STOP
    n_reports = len(driver.reports)
    assert reporter.report(Report(200, {}, 200)) is Decision.STOP
    assert reporter.poll() is Decision.STOP
    assert len(driver.reports) == n_reports


@pytest.mark.parametrize("ask_first", [True, False])
def test_a_pause_is_not_forgotten_between_reports(ask_first: bool) -> None:
    reporter = StrictReporter(Driver(Decision.PAUSE))
    assert (reporter.poll() if ask_first else reporter.report(Report(100, {}, 100))) is Decision.PAUSE
    assert reporter.poll() is Decision.PAUSE


def test_facts_pass_through() -> None:
    driver = Driver()
    StrictReporter(driver).describe({"device": "cpu"})
    assert driver.facts == [{"device": "cpu"}]


class Raising:
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def run(self, trial: TrialSpec, reporter: Reporter) -> AttemptResult:
        raise self.error


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError("two\n  lines"), "ValueError: two lines"),
        (RuntimeError(), "RuntimeError: no message"),
        (SystemExit(3), "SystemExit: 3"),
        (ValueError("x" * 1000), "ValueError: " + "x" * 488),
    ],
)
def test_whatever_a_trainer_raises_is_a_failed_attempt(error: BaseException, reason: str) -> None:
    result = run_attempt(Raising(error), TRIAL, Driver(), log=nullcontext())
    assert (result.ending, result.reason) == (Ending.FAILED, reason)
    assert result.traceback is not None
    assert "raise self.error" in result.traceback


def test_the_user_may_interrupt_a_trainer() -> None:
    with pytest.raises(KeyboardInterrupt):
        run_attempt(Raising(KeyboardInterrupt()), TRIAL, Driver(), log=nullcontext())


def test_a_log_that_cannot_be_opened_is_a_failed_attempt(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    log = capture_logs(tmp_path / "file", [TRIAL], redirect=False)
    result = run_attempt(Raising(ValueError()), TRIAL, Driver(), log=log)
    assert result.ending is Ending.FAILED
    assert "NotADirectoryError" in (result.reason or "")


class Talking:
    def run(self, trial: TrialSpec, reporter: Reporter) -> AttemptResult:
        import sys

        sys.stdout.write("to stdout\n")
        sys.stderr.write("to stderr\n")
        logging.getLogger("somebody").warning("a record")
        return AttemptResult(Ending.DONE)


@pytest.mark.parametrize("redirect", [True, False])
def test_a_trials_log_holds_its_attempts(tmp_path: Path, redirect: bool, capfd: pytest.CaptureFixture[str]) -> None:
    for attempt in (1, 2):
        trial = TrialSpec(7, attempt, {"learning_rate": 0.1})
        run_attempt(Talking(), trial, Driver(), log=capture_logs(tmp_path, [trial], redirect=redirect))
    logging.getLogger("somebody").warning("after the end")
    text = log_path(tmp_path, 7).read_text(encoding="utf-8")
    for attempt in (1, 2):
        assert f"--- trial 7, attempt {attempt}, " in text
    assert "{'learning_rate': 0.1}" in text
    assert text.count("WARNING somebody: a record") == 2
    assert "after the end" not in text
    assert (text.count("to stdout"), text.count("to stderr")) == ((2, 2) if redirect else (0, 0))
    assert ("to stdout" in capfd.readouterr().out) != redirect


def test_the_traceback_of_a_failed_trial_is_in_its_log(tmp_path: Path) -> None:
    log = capture_logs(tmp_path, [TRIAL], redirect=False)
    run_attempt(Raising(ValueError("no luck")), TRIAL, Driver(), log=log)
    text = log_path(tmp_path, 7).read_text(encoding="utf-8")
    assert "ERROR finesweep.trial: trial 7 failed:" in text
    assert "ValueError: no luck" in text
