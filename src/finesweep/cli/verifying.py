"""The verb verify: its cost is told first, then it is driven like any sweep."""

from __future__ import annotations

import json
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from finesweep.cli.life import see_through
from finesweep.cli.talk import backend_option, json_option, print_tables, results_option, say

if TYPE_CHECKING:
    from finesweep.driver import SweepEnd


@click.command()
@click.argument("sweep")
@click.option("--top", type=click.IntRange(1, 100), default=3, show_default=True, help="How many of the best race.")
@click.option(
    "--seeds", type=click.IntRange(1, 500), default=5, show_default=True, help="Of the winner and the baseline."
)
@click.option("--race-seeds", type=click.IntRange(1, 500), default=3, show_default=True, help="Of each in the race.")
@click.option(
    "--baseline",
    metavar="defaults|none|N",
    help="Compare with the library's defaults, nothing, or trial N.  [default: defaults]",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@results_option
@backend_option
@json_option
def verify(
    sweep: str,
    top: int,
    seeds: int,
    race_seeds: int,
    baseline: str | None,
    yes: bool,
    results: str | None,
    backend: Any,
    as_json: bool,
) -> int:
    """Train the best configurations again, with seeds that chose nothing: is the winner really the winner?"""
    from finesweep import verifying
    from finesweep.views.live import PlainView

    verification = verifying.prepare_verification(
        sweep,
        top=top,
        n_seeds=seeds,
        n_race_seeds=race_seeds,
        baseline=baseline,
        results=results,
        view=PlainView(say),
    )
    say(f"{verification.name}: {verification.cost_text()}")
    if not yes and is_terminal():
        click.confirm("Begin?", default=True, abort=True, err=True)
    drive = partial(verifying.verify, verification, backend=backend)
    return see_through(drive, verification.name, verification.place.url, as_json=as_json)


def is_terminal() -> bool:
    """Tell whether somebody sits there who can be asked."""
    return sys.stdin.isatty()


def close_verification(end: SweepEnd, url: str, *, as_json: bool) -> int:
    """Show what a verification found. Exit code 1 if that is nothing."""
    from finesweep.results.frames import open_results
    from finesweep.verification.found import outcome_json
    from finesweep.verification.outcome import read_outcome
    from finesweep.views.verified import lines_of, verification_table

    outcome = read_outcome(open_results(url), end.name)
    assert outcome is not None, "it is a verification"
    if as_json:
        click.echo(json.dumps(outcome_json(outcome), indent=2))
    else:
        print_tables([verification_table(outcome)], as_json=False)
        click.echo()
        for line in lines_of(outcome):
            click.echo(line)
    return 0 if outcome.won is not None and outcome.won.confirmed else 1
