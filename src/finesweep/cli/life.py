"""Verbs of a sweep's life: run, resume, extend, stop, delete."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from finesweep.cli.talk import (
    MORE_ARGUMENTS,
    backend_option,
    database_hint,
    detach_option,
    file_argument,
    open_database,
    print_tables,
    results_option,
    say,
    set_option,
)
from finesweep.errors import DriveError, FinesweepError, RemoteError, ServerAwayError
from finesweep.secrets import hide
from finesweep.spec.sweep import MOST_TRIALS

if TYPE_CHECKING:
    from finesweep.driver import SweepEnd
    from finesweep.results.frames import Results
    from finesweep.spec.sweep import SweepSpec


@click.command()
@file_argument
@set_option
@click.option("--name", help="Use this name instead of the file's.")
@results_option
@backend_option
@detach_option
def run(
    file: Path, overrides: tuple[str, ...], name: str | None, results: str | None, backend: Any, detach: bool
) -> int:
    """Run a sweep to its end. Ctrl-C once stops it cleanly, to be resumed."""
    from finesweep.spec.files import load_sweep

    spec = load_sweep(file, overrides=overrides, name=name)
    if detach:
        return _detach(
            ["run", str(file), *(f"--set={item}" for item in overrides), f"--backend={backend}"], spec, results
        )
    from finesweep import sweeps

    drive = partial(sweeps.run, spec, results=results, backend=backend, file=file.absolute(), overrides=overrides)
    return see_through(drive, spec.name, sweeps.place_of(spec, results=results).url)


@click.command()
@click.argument("sweep")
@results_option
@backend_option
@detach_option
@click.option("--take-over", is_flag=True, help="Also from a holder that seems alive; it then stores nothing more.")
def resume(sweep: str, results: str | None, backend: Any, detach: bool, take_over: bool) -> int:
    """Go on with a sweep after Ctrl-C, a crash or a reboot."""
    if detach:
        arguments = ["resume", sweep, f"--backend={backend}", *(["--take-over"] if take_over else [])]
        return _detach(arguments, _open_to_write(results).spec(sweep), results)
    from finesweep import sweeps

    drive = partial(sweeps.resume, sweep, results=results, backend=backend, take_over=take_over)
    return see_through(drive, sweep, _open_to_write(results).url)


@click.command()
@click.argument("sweep")
@click.option("--trials", type=click.IntRange(min=1, max=MOST_TRIALS), help="The new total, not an addition.")
@click.option("--hours", type=click.FloatRange(min=0, min_open=True), help="The new total, not an addition.")
@click.option("--tokens", type=click.IntRange(min=1), help="The new total of trained tokens, of trainer remote.")
@click.option("--money", type=click.FloatRange(min=0, min_open=True), help="The new total cost, of trainer remote.")
@results_option
def extend(
    sweep: str,
    trials: int | None,
    hours: float | None,
    tokens: int | None,
    money: float | None,
    results: str | None,
) -> None:
    """Give a finished or running sweep a larger total of trials, hours, tokens or money."""
    from finesweep import sweeps

    totals = {"trials": trials, "hours": hours, "tokens": tokens, "money": money}
    if all(total is None for total in totals.values()):
        raise click.UsageError("give --trials, --hours, --tokens or --money")
    for name, total in totals.items():
        if total is not None and not math.isfinite(total):
            raise click.UsageError(f"--{name} is {total}, but must be a number of {name}")
    sweeps.extend(sweep, trials, hours=hours, tokens=tokens, money=money, results=results)
    said = " and ".join(f"{total:,g} {name}" for name, total in totals.items() if total is not None)
    url = open_database(results).url
    if sweeps.is_driven(sweep, url=url):
        click.echo(f"{sweep}: {said} in total from now on.")
    else:
        click.echo(f"{sweep}: {said} in total. Go on with it: finesweep resume {sweep}{database_hint(url)}")


@click.command()
@click.argument("sweep")
@results_option
def stop(sweep: str, results: str | None) -> None:
    """Stop a sweep that runs elsewhere: its trials write a checkpoint and can be resumed."""
    from finesweep import sweeps

    if sweeps.stop(sweep, results=results):
        hint = database_hint(open_database(results).url)
        click.echo(f"{sweep}: asked to stop. Go on with it later: finesweep resume {sweep}{hint}")
    else:
        click.echo(f"{sweep}: is not running.")


@click.command()
@click.argument("sweep")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--leave-jobs", is_flag=True, help="Of trainer remote: do not cancel jobs that may run at the server.")
@results_option
def delete(sweep: str, yes: bool, leave_jobs: bool, results: str | None) -> None:
    """Remove a sweep, its trials and its files for good."""
    from finesweep import sweeps

    n_trials = len(_open_to_write(results).trials(sweep))
    if not yes:
        click.confirm(f"Delete sweep {sweep} with its {n_trials} trials and all of its files?", abort=True, err=True)
    try:
        left = sweeps.delete(sweep, leave_jobs=leave_jobs, results=results)
    except (RemoteError, ServerAwayError) as error:
        raise type(error)(f"{error} Jobs of {sweep} may run there; --leave-jobs deletes it all the same.") from error
    click.echo(f"{sweep}: deleted.")
    if left:
        say(f"Not made by finesweep, and left: {', '.join(map(str, left))}")


def _open_to_write(results: str | None) -> Results:
    """Open a database that will be written to: one of an older finesweep is migrated, and that is said."""
    from finesweep import sweeps

    sweeps.migrate(results=results, say=say)
    return open_database(results)


def _view() -> Any:
    """Give what shows a running sweep, as a context: a picture on a terminal, lines elsewhere."""
    import contextlib

    from rich.console import Console

    from finesweep.views.live import PlainView, TerminalView

    console = Console(stderr=True)
    if console.is_terminal:
        return TerminalView(console)
    return contextlib.nullcontext(PlainView(say))


def see_through(drive: Callable[..., SweepEnd], sweep: str, url: str, *, as_json: bool = False) -> int:
    """Drive a sweep, told of its `view`, and show how it ended, however that is."""
    try:
        with _view() as view:
            end = drive(view=view)
        return _close(end, url, as_json=as_json)
    except DriveError as error:
        return _give_up(error, url)
    except KeyboardInterrupt:  # also one that comes while the table is made
        return _stop_at_once(sweep, url)


def _close(end: SweepEnd, url: str, *, as_json: bool = False) -> int:
    """Show how a sweep ended and say what to do next."""
    from finesweep.driver import HOURS, STOPS
    from finesweep.remote.ledger import SPENT
    from finesweep.results.frames import open_results
    from finesweep.results.schema import SweepState
    from finesweep.results.url import redacted
    from finesweep.verification.plan import plan_of
    from finesweep.views.selection import Selection
    from finesweep.views.tables import best_text, leaderboard

    known = open_results(url)
    plan = plan_of(known.provenance(end.name))
    if plan is None:
        print_tables([leaderboard(known, end.name, selection=Selection(top=20))], as_json=False)
    hint = database_hint(url)
    if end.reason:
        say(f"{end.name}: {end.reason}.")
    used_up = {HOURS: "--hours H", SPENT: "--tokens N"}
    if end.reason in used_up:
        waiting = f" {end.n_unfinished} trials wait to go on." if end.n_unfinished else ""
        more = f"finesweep extend {end.name} {used_up[end.reason]}{hint}"
        say(f"For more:{waiting} {more}, then finesweep resume {end.name}{hint}")
    elif end.state is SweepState.INTERRUPTED:
        waiting = f" ({end.n_unfinished} trials wait to go on)" if end.n_unfinished else ""
        say(f"{end.name} is interrupted{waiting}. Go on with it:\n\n    finesweep resume {end.name}{hint}\n")
        return 130 if end.reason in STOPS else 1
    if plan is not None:
        from finesweep.cli.verifying import close_verification

        return close_verification(end, url, as_json=as_json)
    front = known.front(end.name)
    if not front:
        say(f"{end.name}: no trial was completed. See why: finesweep logs {end.name}:0{hint}")
        return 1
    gap = " " if len(front[0].values) == 1 else "\n"
    exported = end.name if len(front) == 1 else f"{end.name}:{front[0].number}"
    say(
        f"{best_text(front)}{gap}Next:\n\n"
        f"    finesweep compare {end.name}{hint}\n"
        f"    finesweep verify {end.name}{hint}\n"
        f"    finesweep export {exported} --to json{hint}\n"
        f"    finesweep extend {end.name} --trials N{hint}\n"
        f"    optuna-dashboard {redacted(url)}\n"
    )
    return 0


def _give_up(error: DriveError, url: str) -> int:
    say(f"Error: {error}")
    say(
        f"{error.sweep} is interrupted; then go on with it:\n\n    finesweep resume {error.sweep}{database_hint(url)}\n"
    )
    return 1


def _stop_at_once(sweep: str, url: str) -> int:
    """Say what a second Ctrl-C leaves; one that came before the sweep was stored leaves nothing."""
    from finesweep.results.frames import open_results

    say("Stopped at once.")
    try:
        open_results(url).spec(sweep)
    except FinesweepError:
        return 130
    say(f"{sweep} is interrupted. Go on with it:\n\n    finesweep resume {sweep}{database_hint(url)}\n")
    return 130


def _detach(arguments: list[str], spec: SweepSpec, results: str | None) -> int:
    """Start a driver of its own session, and wait until it drives the sweep or has said why not."""
    from finesweep.layout import driver_log_path
    from finesweep.sweeps import driver_pid, make_folder, place_of

    place = place_of(spec, results=results)
    log = driver_log_path(place.artifact_dir)
    make_folder(log.parent)
    if results is not None:
        arguments = [*arguments, f"--results={results}"]
    if arguments[0] == "run":
        arguments = [*arguments, f"--name={spec.name}"]
    hidden = [argument for argument in arguments if hide(argument) != argument]
    command = [sys.executable, "-m", "finesweep", *(argument for argument in arguments if argument not in hidden)]
    with log.open("ab") as file:
        began_at = file.tell()
        driver = subprocess.Popen(
            command,
            env={**os.environ, MORE_ARGUMENTS: json.dumps(hidden)},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
            close_fds=True,
        )
    while driver.poll() is None:
        try:
            if driver_pid(spec.name, url=place.url) == driver.pid:
                click.echo(f"{spec.name} runs in the background, process {driver.pid}; log: {log}")
                click.echo(f"See how it is:  finesweep status {spec.name}{database_hint(place.url)}")
                return 0
        except FinesweepError:
            pass  # not in the database yet
        time.sleep(0.2)
    say(log.read_bytes()[began_at:].decode(errors="replace").rstrip())
    return driver.returncode
