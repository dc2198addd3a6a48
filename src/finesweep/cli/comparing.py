"""Verbs that say what came out: compare sweeps, diff trials, report on a sweep."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from finesweep.cli.talk import json_option, open_database, print_tables, results_option, select_options, trial_name

if TYPE_CHECKING:
    from finesweep.views.selection import Selection


@click.command()
@click.argument("sweep", nargs=-1, required=True)
@select_options
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Write the trials to a .csv, .json, .parquet, .md or .html file.",
)
@click.option("--force", is_flag=True, help="Replace an existing file.")
@results_option
@json_option
def compare(
    sweep: tuple[str, ...],
    selection: Selection,
    output: Path | None,
    force: bool,
    results: str | None,
    as_json: bool,
) -> None:
    """Compare the trials of one or several sweeps on their common parameters."""
    from finesweep.views.compare import compare as gather
    from finesweep.views.compare import comparison_tables

    comparison = gather(open_database(results), sweep)
    if output is None:
        print_tables(comparison_tables(comparison, selection=selection), as_json=as_json)
        return
    from finesweep.export.table_file import export_table

    trials = selection.rows_of(comparison.trials, metric=comparison.metric)
    export_table(trials[selection.columns_of(trials, metric=comparison.metric)], output, force=force)
    click.echo(f"{output}: {len(trials)} trials.")


@click.command()
@click.argument("trial", metavar="SWEEP:NUMBER")
@click.argument("other", metavar="[SWEEP:NUMBER]", required=False)
@results_option
@json_option
def diff(trial: str, other: str | None, results: str | None, as_json: bool) -> None:
    """Show what differs between two trials, or between one and the best of its sweep."""
    from finesweep.views.diff import diff as gather
    from finesweep.views.diff import incumbent_of

    known, one = open_database(results), trial_name(trial)
    second = incumbent_of(known, one[0]) if other is None else trial_name(other)
    print_tables([gather(known, one, second)], as_json=as_json)


@click.command()
@click.argument("sweep")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="File to write.  [default: SWEEP.html]")
@click.option("--force", is_flag=True, help="Replace an existing file.")
@results_option
def report(sweep: str, output: Path | None, force: bool, results: str | None) -> None:
    """Write a sweep as one HTML page to send: words, plots, trials, provenance. It opens without a network."""
    from finesweep.export.whole_file import write_whole
    from finesweep.notebook import open_results

    path = output or Path(f"{sweep}.html")
    page = open_results(open_database(results).url).report(sweep)
    write_whole(path, page.encode(), force=force)
    click.echo(str(path))
