"""What docs/faults.md says is what the rounds have found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import document
from killing.kinds import KINDS

import faults


def kept_in(folder: Path, **found: list[str]) -> Path:
    """Keep a round of every kind, the first of which found something."""
    nothing: dict[str, list[str]] = {finding: [] for finding in faults.FINDINGS}
    lines: list[dict[str, Any]] = [
        {
            "kind": kind.name,
            "backend": kind.backend,
            "seed": 0,
            "struck": ["random moment"],
            "n_trials": 6,
            "n_drivers": 2,
            "seconds": 1.0,
            "found": {**nothing, **(found if kind is KINDS[0] else {})},
        }
        for kind in KINDS
    ]
    (folder / "rounds.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    (folder / "machine.json").write_text('["2 cores"]', encoding="utf-8")
    return folder


def test_what_a_round_has_lost_stands_in_its_row_and_in_the_sum(tmp_path: Path) -> None:
    table = faults.blocks(kept_in(tmp_path, lost=["trial 3", "trial 4"]))["faults"]
    assert f"| {KINDS[0].name} | 1 | 1 | 6 | 2 | 0 | 0 | 0 | 0 |" in table
    n_kinds = sum(kind.backend == KINDS[0].backend for kind in KINDS)
    assert f"| all | {n_kinds} | {n_kinds} | {6 * n_kinds} | 2 | 0 | 0 | 0 | 0 |" in table


def test_no_two_kinds_are_of_one_name() -> None:
    assert len({kind.key for kind in KINDS}) == len(KINDS)


def test_a_full_run_is_as_large_as_it_is_said_to_be() -> None:
    assert sum(kind.n_rounds for kind in KINDS) >= 200
    assert sum(kind.n_rounds for kind in KINDS if kind.backend == "ray") >= 60


def test_the_page_shows_what_the_rounds_have_found() -> None:
    page = faults.PAGE.read_text(encoding="utf-8")
    assert document.fill(page, faults.blocks(faults.RESULTS_DIR)) == page
