from __future__ import annotations

import io
import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from rich.console import Console

from finesweep.events import (
    AttemptDescribed,
    AttemptStarted,
    Decision,
    Event,
    Report,
    Reported,
    Source,
    SweepHistory,
    TrialFinished,
    TrialInterrupted,
    TrialRecord,
    TrialState,
    TrialSuggested,
)
from finesweep.spec.study import Objective
from finesweep.views.live import PlainView, TerminalView
from finesweep.views.picture import MOST_POINTS, RunningTrial

Events = Callable[..., list[Event]]
OBJECTIVE = Objective(metric="accuracy", direction="maximize")
SHORT = {"batch_size": 16, "learning_rate": 3.2e-05}


def old(number: int, state: TrialState, value: float | None, **others: Any) -> TrialRecord:
    reports = () if value is None else (Report(100, {"accuracy": value, "size": 2000.0}, 100),)
    return TrialRecord(number, state, SHORT, SHORT, {}, Source.SAMPLER, {}, reports, 1, 0, value=value, **others)


HISTORY = SweepHistory(
    (
        old(0, TrialState.COMPLETE, 0.7, value_step=100),
        old(1, TrialState.PRUNED, None),
        old(2, TrialState.COMPLETE, 0.7, reused_from=0),
        old(3, TrialState.INTERRUPTED, None),
    )
)


# --- plain lines --------------------------------------------------------------------------------------------------


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def plain(lines: list[str]) -> PlainView:
    view = PlainView(lines.append)
    view.begin([OBJECTIVE], 4, SweepHistory())
    return view


def test_every_ending_is_a_line(plain: PlainView, lines: list[str], trial_events: Events) -> None:
    plain(trial_events(0, (0.5, 0.75), configuration=SHORT))
    plain(trial_events(1, (0.1,), state=TrialState.PRUNED, reason="rung", configuration=SHORT))
    plain(trial_events(2, (0.6,), configuration=SHORT))
    plain(trial_events(3, (), state=TrialState.FAILED, reason="ValueError: no", configuration=SHORT))
    plain.refresh()
    assert lines == [
        "[1/4] trial 0 COMPLETE accuracy=0.75 at step 200, the best so far: batch_size=16 learning_rate=3.2e-05",
        "[2/4] trial 1 PRUNED (rung) at step 100 with accuracy=0.1: batch_size=16 learning_rate=3.2e-05",
        "[3/4] trial 2 COMPLETE accuracy=0.6 at step 100: batch_size=16 learning_rate=3.2e-05",
        "[4/4] trial 3 FAILED (ValueError: no): batch_size=16 learning_rate=3.2e-05",
    ]


def test_an_early_end_and_divergence_say_so(plain: PlainView, lines: list[str], trial_events: Events) -> None:
    plain(trial_events(0, (0.5,), reason="early stopping", configuration=SHORT))
    reason = "diverged at step 200"
    plain(trial_events(1, (0.5, math.nan), state=TrialState.PRUNED, reason=reason, configuration=SHORT))
    configuration = "batch_size=16 learning_rate=3.2e-05"
    assert lines == [
        f"[1/4] trial 0 COMPLETE accuracy=0.5 at step 100, the best so far (early stopping): {configuration}",
        f"[2/4] trial 1 PRUNED (diverged at step 200): {configuration}",
    ]


@pytest.mark.parametrize(("effective", "told"), [(4, " (warm-up 4 of 1,000 steps)"), (1000, "")])
def test_less_warmup_than_asked_is_told(
    plain: PlainView, lines: list[str], trial_events: Events, effective: int, told: str
) -> None:
    facts = {"warmup_steps_asked": 1000, "warmup_steps": effective}
    plain(trial_events(0, (0.5,), configuration={"warmup_steps": 1000}, facts=facts))
    assert lines == [f"[1/4] trial 0 COMPLETE accuracy=0.5 at step 100, the best so far: warmup_steps=1000{told}"]


def test_a_result_taken_over_is_told_and_not_counted(plain: PlainView, lines: list[str], trial_events: Events) -> None:
    plain(trial_events(0, (0.5,), configuration=SHORT))
    plain([TrialSuggested(1, SHORT, SHORT, {}, Source.SAMPLER, {}, {}, twin_of=0)])
    plain([TrialFinished(1, TrialState.COMPLETE, None, 0.5, 100, reused_from=0)])
    assert lines[1].startswith("[1/4] trial 1 same configuration as trial 0, whose result it takes over (COMPLETE): ")


def test_interruptions_totals_and_words_are_lines(plain: PlainView, lines: list[str]) -> None:
    plain([TrialInterrupted(3)])
    plain.set_total(9)
    plain.say("Stopping.")
    assert lines == [
        "trial 3 interrupted; it goes on under its own number",
        "the total is now 9 trials",
        "Stopping.",
    ]


@pytest.mark.parametrize(("direction", "is_best"), [("maximize", False), ("minimize", True)])
def test_a_resumed_sweep_counts_what_there_was(
    lines: list[str], trial_events: Events, direction: Any, is_best: bool
) -> None:
    view = PlainView(lines.append)
    view.begin([Objective(metric="accuracy", direction=direction)], 4, HISTORY)
    view([AttemptStarted(3, 2)])
    view(trial_events(4, (0.6,)))
    assert lines[0].startswith("[3/4] trial 4 COMPLETE accuracy=0.6 at step 100")
    assert (", the best so far" in lines[0]) == is_best


def test_with_several_objectives_all_values_are_told_and_who_is_on_the_front(lines: list[str]) -> None:
    view = PlainView(lines.append)
    view.begin([OBJECTIVE, Objective(metric="size", direction="minimize")], 9, HISTORY)
    for number, accuracy, size in ((4, 0.8, 66_362_880.0), (5, 0.75, 66_362_881.0), (6, 0.6, 100.0), (7, 0.9, 50.0)):
        view([TrialSuggested(number, SHORT, SHORT, {}, Source.SAMPLER, {}, {}), AttemptStarted(number, 1)])
        view([TrialFinished(number, TrialState.COMPLETE, None, accuracy, 100, other_values=(size,))])
    told = [line.split(" trial ")[1].split(":")[0] for line in lines]
    assert told == [
        "4 COMPLETE accuracy=0.8 size=66,362,880 at step 100, on the front",
        "5 COMPLETE accuracy=0.75 size=66,362,881 at step 100",
        "6 COMPLETE accuracy=0.6 size=100 at step 100, on the front",
        "7 COMPLETE accuracy=0.9 size=50 at step 100, on the front",
    ]


# --- the picture on a terminal ------------------------------------------------------------------------------------


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def picture(view: TerminalView) -> list[str]:
    """Render the view; give its lines without what only pads them."""
    console = Console(width=110, record=True, file=open_nowhere())
    console.print(view.render())
    return [" ".join(line.split()) for line in console.export_text().splitlines()]


def open_nowhere() -> io.StringIO:
    return io.StringIO()


def running(number: int) -> list[Event]:
    report = Report(1200, {"accuracy": 0.5}, 1204)
    return [
        TrialSuggested(number, SHORT, SHORT, {}, Source.SAMPLER, {}, {}),
        AttemptStarted(number, 1),
        AttemptDescribed(number, 1, {"device": "H100", "last_step": 6000}),
        Reported(number, 1, report, Decision.CONTINUE, {}),
    ]


def test_the_picture_shows_progress_counts_running_trials_and_the_last_endings(trial_events: Events) -> None:
    clock = Clock()
    view = TerminalView(Console(file=open_nowhere()), clock=clock)
    with view:
        view.begin([OBJECTIVE], 10, HISTORY)
        clock.now_s += 60
        for number in (4, 5, 6, 7):
            view(trial_events(number, (0.01 * number,), configuration=SHORT))
        view(running(8))
        clock.now_s += 4
        report = Report(2400, {"accuracy": 0.25}, 2404, telemetry={"memory_gib": 3.14})
        view([Reported(8, 1, report, Decision.CONTINUE, {})])
        clock.now_s -= 4
        progress, counts, header, row, *endings = picture(view)
    assert progress.endswith("6/10 trials 1m00s elapsed, about 1m00s left")
    assert counts == "6 complete, 1 pruned, 0 failed, 1 running, 1 reused, best accuracy 0.7 (trial 0)"
    assert header == "trial step last best curve examples/s memory device configuration"
    assert row == "8 2,400/6,000 0.25 0.5 █▁ 300 3.1 GiB H100 batch_size=16 learning_rate=3.2e-05"
    assert [line.split()[:3] for line in endings] == [
        ["[4/10]", "trial", "5"],
        ["[5/10]", "trial", "6"],
        ["[6/10]", "trial", "7"],
    ]


def test_the_picture_tells_how_long_the_incumbent_has_led(trial_events: Events) -> None:
    clock = Clock()
    view = TerminalView(Console(file=open_nowhere()), clock=clock)
    with view:
        view.begin([OBJECTIVE], 10, HISTORY)
        view(trial_events(4, (0.8,), configuration=SHORT))
        clock.now_s += 185
        view(trial_events(5, (0.1,), configuration=SHORT))
        _, counts, *_ = picture(view)
    assert counts.endswith("best accuracy 0.8 (trial 4, 3m05s and 1 trial ago)")


def test_a_long_curve_is_thinned_and_keeps_its_shape() -> None:
    trial = RunningTrial(0, SHORT)
    for step in range(1000):
        trial.take(Report(step, {}, step), float(step), now_s=float(step))
    assert len(trial.curve) <= MOST_POINTS
    gaps = {after - before for before, after in pairwise(trial.curve)}
    assert len(gaps) == 1, "the points are not even"
    assert trial.examples_per_s == 1.0


def test_the_picture_forgets_what_no_longer_runs(trial_events: Events) -> None:
    view = TerminalView(Console(file=open_nowhere()), clock=Clock())
    with view:
        view.begin([OBJECTIVE], 10, SweepHistory())
        view(running(0))
        view(running(1))
        view([TrialInterrupted(0)])
        view([TrialFinished(1, TrialState.FAILED, "lost", None, None)])
        view([Reported(1, 1, Report(9, {"accuracy": 1.0}, 9), Decision.STOP, {})])
        view([AttemptDescribed(1, 1, {"device": "late"})])
        view([Reported(0, 1, Report(9, {"loss": 1.0}, 9), Decision.STOP, {})])
        progress, counts, *_ = picture(view)
    assert progress.endswith("1/10 trials 0.0s elapsed, about 0.0s left")
    assert counts == "0 complete, 0 pruned, 1 failed, 0 running"


def test_without_an_ending_nothing_is_foretold(trial_events: Events) -> None:
    view = TerminalView(Console(file=open_nowhere()), clock=Clock())
    with view:
        view.begin([OBJECTIVE], 10, SweepHistory())
        view([TrialSuggested(0, SHORT, SHORT, {}, Source.SAMPLER, {}, {}), AttemptStarted(0, 1)])
        view([Reported(0, 1, Report(9, {"accuracy": math.nan}, 9), Decision.STOP, {})])
        progress, _, _, row, *_ = picture(view)
    assert progress.endswith("0/10 trials 0.0s elapsed")
    assert row.startswith("0 9 nan nan")


def test_the_terminal_is_drawn_four_times_a_second_and_words_stay(trial_events: Events) -> None:
    clock = Clock()
    console = Console(width=80, force_terminal=True, record=True, file=open_nowhere())
    with TerminalView(console, clock=clock) as view:
        view.begin([OBJECTIVE], 10, SweepHistory())
        view.set_total(12)
        drawn = []
        for now_s in (100.0, 100.1, 100.2, 100.3, 100.6):
            clock.now_s = now_s
            before = console.file.tell()
            view.refresh()
            drawn.append(console.file.tell() > before)
        view.say("Stopping: running trials write a checkpoint.")
    assert drawn == [True, False, False, True, True]
    text = console.export_text()
    assert "0/12 trials" in text
    assert "Stopping: running trials write a checkpoint." in text
