"""Samples of what a trial's model wrote: which are shown, and how."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.commandline import invoke

from finesweep.events import Event, Grid, TrialFinished, TrialState
from finesweep.layout import samples_path
from finesweep.results.writer import open_writer


def line(step: int, row: int, output: str) -> str:
    return json.dumps({"step": step, "row": row, "prompt": f"p{row}", "reference": f"r{row}", "output": output})


@pytest.fixture
def stored(tmp_path: Path, make_spec: Callable[..., Any], trial_events: Callable[..., Sequence[Event]]) -> Path:
    """Two trials with reports at 100 and 200: the first is judged by that at 200, the other runs; and a repeat."""
    path, artifact_dir = tmp_path / "finesweep.db", tmp_path / "artifacts"
    with open_writer(path) as writer:
        writer.create_sweep(
            make_spec(), grid=Grid("examples", 100, 300), provenance={"artifact_dir": str(artifact_dir)}
        )
        listen = writer.listener("tickets")
        listen(trial_events(0))
        listen(trial_events(1, state=None))
        listen([trial_events(2)[0], TrialFinished(2, TrialState.COMPLETE, None, 0.75, 200, reused_from=0)])
    return path


def keep(stored: Path, number: int, *lines: str) -> None:
    path = samples_path(stored.parent / "artifacts", number)
    path.parent.mkdir(parents=True)
    path.write_text("\n".join(lines), encoding="utf-8")


def shown(stored: Path, *arguments: str) -> list[tuple[int, str]]:
    result = invoke("samples", *arguments, "--json", "--results", str(stored))
    assert result.exit_code == 0, result.stderr
    return [(row["step"], row["output"]) for row in json.loads(result.stdout)]


def test_those_are_shown_of_the_report_that_the_trial_is_judged_by(stored: Path) -> None:
    keep(stored, 0, line(100, 1, "a"), line(200, 1, "b"), line(200, 2, "c"), line(300, 1, "d"))
    assert shown(stored, "tickets:0") == [(200, "b"), (200, "c")]
    assert shown(stored, "tickets:2") == [(200, "b"), (200, "c")]
    assert shown(stored, "tickets:0", "--step", "100") == [(100, "a")]
    assert shown(stored, "tickets:0", "--step", "199") == [(100, "a")]  # one evaluation for several steps
    assert shown(stored, "tickets:0", "--step", "300") == [(300, "d")]


def test_of_a_trial_that_runs_the_latest_are_shown(stored: Path) -> None:
    keep(stored, 1, line(100, 1, "a"), line(200, 1, "b"))
    assert shown(stored, "tickets:1") == [(200, "b")]


def test_what_was_told_again_replaces_and_half_a_line_is_nothing(stored: Path) -> None:
    keep(stored, 1, line(100, 1, "a"), line(100, 1, "b"), line(200, 1, "c")[:30])
    assert shown(stored, "tickets:1") == [(100, "b")]


def test_samples_are_laid_out_for_reading(stored: Path) -> None:
    keep(stored, 1, line(1000, 1, "two\nlines"), line(1000, 2, "\x1b[31m"))
    assert invoke("samples", "tickets:1", "--results", str(stored)).stdout == (
        "step 1,000\n\n"
        "prompt:    p1\nreference: r1\noutput:    two\n           lines\n\n"
        "prompt:    p2\nreference: r2\noutput:     [31m\n"
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("tickets:1",), "trial tickets:1 has no samples"),
        (("tickets:0", "--step", "50"), "no samples at step 50. It has those of steps 100, 200."),
        (("tickets:7",), "7"),
    ],
)
def test_where_there_are_none_it_is_said(stored: Path, arguments: tuple[str, ...], words: str) -> None:
    keep(stored, 0, line(100, 1, "a"), line(200, 1, "b"))
    result = invoke("samples", *arguments, "--results", str(stored))
    assert result.exit_code == 2
    assert words in result.stderr
