"""Verbs that look at one sweep or trial: status, logs, samples, export."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from finesweep.cli.talk import (
    json_option,
    open_database,
    print_tables,
    results_option,
    select_options,
    trial_name,
)
from finesweep.errors import FinesweepError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from finesweep.export.stacks.openai_job import Rows
    from finesweep.results.frames import Results
    from finesweep.views.selection import Selection


@click.command()
@click.argument("sweep", required=False)
@results_option
@click.option("--metric", "metrics", multiple=True, help="Show another reported metric as a column.")
@click.option("--watch", "is_watching", is_flag=True, help="Follow a sweep that another process runs.")
@select_options
@json_option
def status(
    sweep: str | None,
    results: str | None,
    metrics: tuple[str, ...],
    is_watching: bool,
    selection: Selection,
    as_json: bool,
) -> None:
    """List the sweeps of a results database, or one sweep's trials, best first."""
    from finesweep.views.tables import leaderboard, sweeps_table

    known = open_database(results)
    if is_watching:
        if sweep is None or as_json:
            raise click.UsageError("--watch follows one sweep: name it; without --json")
        _watch(known, sweep, selection)
        return
    if sweep is None:
        table = sweeps_table(known, selection=selection)
    else:
        table = leaderboard(known, sweep, metrics=metrics, selection=selection)
    print_tables([table], as_json=as_json)
    if sweep is not None and not as_json:
        _say_verified(known, sweep)


@click.command()
@click.argument("trial", metavar="SWEEP:NUMBER")
@click.option("-f", "--follow", is_flag=True, help="Go on showing what is added, until the trial has ended.")
@results_option
def logs(trial: str, follow: bool, results: str | None) -> None:
    """Show what a trial printed and logged."""
    from finesweep.layout import log_path

    sweep, number = trial_name(trial)
    known = open_database(results)
    path = log_path(known.artifact_dir(sweep), number)
    ended = _is_over(known, sweep, number)
    if not path.exists() and not follow:
        raise FinesweepError(f"trial {trial} has no log: {path} is not there. It may not have begun, or ran elsewhere.")
    at = 0
    while True:
        if path.exists():
            with path.open(encoding="utf-8", errors="replace") as file:
                file.seek(at)
                click.echo(file.read(), nl=False)
                at = file.tell()
        if not follow or ended:
            return
        time.sleep(0.5)
        ended = _is_over(known, sweep, number)


@click.command()
@click.argument("trial", metavar="SWEEP:NUMBER")
@click.option("--step", type=click.IntRange(min=0), help="Show those of another report.")
@results_option
@json_option
def samples(trial: str, step: int | None, results: str | None, as_json: bool) -> None:
    """Show what a trial's model wrote at the report that it is judged by, or at its latest."""
    from finesweep.views.samples import read_samples, samples_text

    rows = read_samples(open_database(results), *trial_name(trial), step=step)
    click.echo(json.dumps(rows, indent=2, ensure_ascii=False) if as_json else samples_text(rows))


@click.command()
@click.argument("sweep", metavar="SWEEP[:NUMBER]")
@click.option("--best", "is_best", is_flag=True, help="The best trial, as where no number is given.")
@click.option("--verified", "is_verified", is_flag=True, help="The trial that `verify` found to be the best.")
@click.option(
    "--to",
    "target",
    type=click.Choice(["json", "yaml", "trainer", "script", "axolotl", "llamafactory", "trl", "openai"]),
    default="json",
    show_default=True,
    help="Format.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="File to write.  [default: SWEEP-best.FORMAT]")
@click.option("--devices", "n_devices", type=click.IntRange(min=1), help="Share the batch among so many devices.")
@click.option("--force", is_flag=True, help="Replace existing files.")
@results_option
def export(
    sweep: str,
    is_best: bool,
    is_verified: bool,
    target: str,
    output: Path | None,
    n_devices: int | None,
    force: bool,
    results: str | None,
) -> None:
    """Write a trial's configuration, by default the best one's, for production training."""
    from finesweep.export.record import export_record
    from finesweep.export.targets import ending_of, export_to, needs_rows, write_exported

    name, number = trial_name(sweep) if ":" in sweep else (sweep, None)
    named = () if number is None else (sweep,)
    chosen_by = [*(("--best",) if is_best else ()), *(("--verified",) if is_verified else ()), *named]
    if len(chosen_by) > 1:
        raise click.UsageError(f"{' and '.join(chosen_by)} each choose a trial: leave out all but one")
    known = open_database(results)
    record = export_record(known, name, number, verified=is_verified)
    rows = _rows_of(known, name) if needs_rows(record, target) and n_devices is None else {}
    exported = export_to(record, target, n_devices=n_devices, rows=rows)
    chosen = "verified" if is_verified else "best" if number is None else number
    path = output or Path(f"{name}-{chosen}.{ending_of(target, trainer=record.trainer)}")
    for file in write_exported(exported, path, force=force):
        click.echo(str(file))
    for warning in exported.warnings:
        click.echo(f"note: {warning}", err=True)


def _rows_of(known: Results, sweep: str) -> Mapping[str, Rows]:
    """Prepare the rows that the jobs of a sweep were given. Raises DataError where these are others now."""
    from finesweep.errors import DataError
    from finesweep.export.stacks.openai_job import Rows
    from finesweep.remote.rows import prepare_rows
    from finesweep.spec.sweep import RemoteSweep
    from finesweep.sweeps import cache_dir

    spec = known.spec(sweep)
    assert isinstance(spec, RemoteSweep), "needs_rows tells"
    files = prepare_rows(spec, cache_dir=cache_dir())
    if files.fingerprint != known.provenance(sweep).get("data_fingerprint"):
        raise DataError(
            f"the data of sweep {sweep!r} has changed since it began: what is there now is not what its jobs were "
            "given. Restore the data; or --to json, which has no rows in it."
        )
    split = {"train": files.train, "validation": files.validation}
    return {name: Rows(file.path.name, file.path.read_text(encoding="utf-8")) for name, file in split.items()}


def _say_verified(known: Results, sweep: str) -> None:
    from finesweep.verification.outcome import known_outcome
    from finesweep.views.verified import lines_of

    outcome = known_outcome(known, sweep)
    if outcome is not None:
        click.echo()
        for line in lines_of(outcome):
            click.echo(line)


def _watch(known: Results, sweep: str, selection: Selection) -> None:
    from rich.console import Console

    from finesweep.views.watching import watch

    with contextlib.suppress(KeyboardInterrupt):  # the way to end it
        watch(known, sweep, Console(), sleep=time.sleep, selection=selection)


def _is_over(known: Results, sweep: str, number: int) -> bool:
    """Tell whether a trial's log will grow no more: it has ended, or nobody drives the sweep."""
    from finesweep.sweeps import is_driven

    return known.trial(sweep, number).state.is_final or not is_driven(sweep, url=known.url)
