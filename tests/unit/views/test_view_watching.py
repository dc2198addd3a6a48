"""Following a sweep through its database; what happens meanwhile happens while the watcher sleeps."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rich.console import Console

from finesweep.errors import SweepNameError
from finesweep.events import Event, Grid, TrialState
from finesweep.results.frames import open_results
from finesweep.results.lease import Holder
from finesweep.results.schema import SweepState
from finesweep.results.writer import ResultsWriter, open_writer
from finesweep.spec.sweep import SweepSpec
from finesweep.views.selection import EVERYTHING
from finesweep.views.watching import watch

Events = Callable[..., list[Event]]


@pytest.fixture
def writer(tmp_path: Path, make_spec: Callable[..., SweepSpec]) -> Iterator[ResultsWriter]:
    with open_writer(tmp_path / "r.db") as writer:
        writer.create_sweep(make_spec(budget={"trials": 3}), grid=Grid("examples", 100, 1000), provenance={})
        writer.acquire("tickets", Holder.this_process())
        writer.set_state("tickets", SweepState.RUNNING)
        yield writer


def followed(writer: ResultsWriter, meanwhile: list[Callable[[], None]], *, is_terminal: bool) -> str:
    """Follow the sweep; each time the watcher sleeps, the next thing happens. Asking for more than there is fails."""
    ahead = iter(meanwhile)
    console = Console(file=io.StringIO(), force_terminal=is_terminal, width=120)
    watch(open_results(writer.url), "tickets", console, sleep=lambda _: next(ahead)(), selection=EVERYTHING)
    assert next(ahead, None) is None, "the watcher left too soon"
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def end(writer: ResultsWriter) -> None:
    writer.set_state("tickets", SweepState.FINISHED)
    writer.release("tickets")


def test_in_a_pipe_each_ending_is_a_line_told_once(writer: ResultsWriter, trial_events: Events) -> None:
    listen = writer.listener("tickets")
    listen(trial_events(0, [0.5]))
    text = followed(
        writer,
        [
            lambda: listen(trial_events(1, [0.25], state=TrialState.PRUNED, reason="rung")),
            lambda: listen(trial_events(2, [0.75])),
            lambda: end(writer),
        ],
        is_terminal=False,
    )
    assert [line.split(":")[0] for line in text.splitlines()] == [
        "trial 0 COMPLETE accuracy 0.5 at step 100",
        "trial 1 PRUNED (rung)",
        "trial 2 COMPLETE accuracy 0.75 at step 100",
        "tickets FINISHED",
    ]
    assert "3/3 trials, 2 complete, 1 pruned" in text.splitlines()[-1]
    assert "\x1b" not in text


def test_a_terminal_shows_what_runs_and_ends_with_the_leaderboard(writer: ResultsWriter, trial_events: Events) -> None:
    listen = writer.listener("tickets")
    listen(trial_events(0, [0.25, 0.5, 0.75], state=None, facts={"device": "H100", "last_step": 900}))
    text = followed(writer, [lambda: listen(trial_events(0, [0.25, 0.5, 0.75])), lambda: end(writer)], is_terminal=True)
    first, last = text.partition("FINISHED")[::2]
    assert "300/900" in first
    assert "▁▅█" in first
    assert "H100" in first
    assert "COMPLETE" in last
    assert "▁▅█" not in last


def test_a_sweep_that_nobody_drives_is_shown_once(writer: ResultsWriter) -> None:
    writer.release("tickets")
    assert followed(writer, [], is_terminal=False).startswith("tickets INTERRUPTED: 0/3 trials")


def test_an_unknown_sweep_is_said(writer: ResultsWriter) -> None:
    with pytest.raises(SweepNameError, match="nothing"):
        watch(
            open_results(writer.url), "nothing", Console(file=io.StringIO()), sleep=lambda _: None, selection=EVERYTHING
        )
