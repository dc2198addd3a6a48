"""The command line: verbs, thin. Data goes to stdout, talk to stderr; heavy rooms are imported by the verbs that need
them.

Exit codes: 0 done, 1 the work failed, 2 bad input, 130 interrupted.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from finesweep.errors import FinesweepError, SpecError

if TYPE_CHECKING:
    from finesweep.driver import SweepEnd
    from finesweep.results.frames import Results
    from finesweep.spec.sweep import SweepSpec, TransformersSweep

results_option = click.option(
    "--results",
    metavar="URL",
    help="Results database: a path, sqlite:///path or postgresql://host/name.  "
    "[default: the sweep's own, FINESWEEP_RESULTS, or finesweep.db here]",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
backend_option = click.option(
    "--backend",
    type=click.Choice(["ray", "inline"]),
    default="ray",
    show_default=True,
    help="Where trials run; inline is one after another in this process, for debugging.",
)
set_option = click.option(
    "--set", "overrides", metavar="KEY=VALUE", multiple=True, help="Override a key, as in --set training.seed=1."
)
detach_option = click.option("--detach", is_flag=True, help="Run in the background and give the prompt back.")
file_argument = click.argument("file", type=click.Path(path_type=Path))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit."""
    try:
        sys.exit(cli.main(args=arguments, prog_name="finesweep", standalone_mode=False) or 0)
    except SpecError as error:
        for fault in error.faults:
            _say(str(fault))
        _say(f"{len(error.faults)} fault{'s' if len(error.faults) > 1 else ''}.")
        sys.exit(2)
    except FinesweepError as error:
        _say(f"Error: {error}")
        sys.exit(2)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (KeyboardInterrupt, click.Abort):
        _say("Interrupted.")
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(0)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="finesweep")
def cli() -> None:
    """Find the right hyperparameters for fine-tuning a transformer.

    Optuna decides what to try and what to stop, Ray Tune where and when, transformers trains, one database remembers.
    """


# --- a sweep's life ----------------------------------------------------------------------------------------------


@cli.command()
@file_argument
@set_option
@click.option("--name", help="Use this name instead of the file's.")
@click.option("--load", is_flag=True, help="Also load the model's tokenizer and the data.")
@click.option("--smoke", is_flag=True, help="Also train one step at the largest shape, and estimate the sweep's cost.")
@json_option
def check(file: Path, overrides: tuple[str, ...], name: str | None, load: bool, smoke: bool, as_json: bool) -> int:
    """Find everything wrong in a sweep file and its study. Loads nothing heavy unless asked to."""
    from finesweep.spec.files import check_sweep
    from finesweep.spec.sweep import TransformersSweep

    checked = check_sweep(file, overrides=overrides, name=name)
    if checked.spec is None:
        if as_json:
            click.echo(json.dumps({"faults": [_fault_row(fault) for fault in checked.faults]}, indent=2))
            return 2
        raise SpecError(checked.faults)
    if as_json:
        notes = [_fault_row(note) for note in checked.notes]
        click.echo(json.dumps({"faults": [], "notes": notes, "sweep": checked.spec.model_dump(mode="json")}, indent=2))
    else:
        for note in checked.notes:
            _say(f"note: {note}")
    if (load or smoke) and isinstance(checked.spec, TransformersSweep):
        _check_inputs(checked.spec)
    if smoke and isinstance(checked.spec, TransformersSweep):
        _smoke(checked.spec)
    if not as_json:
        click.echo(f"{file}: no faults.")
    return 0


@cli.command()
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

    with _view() as view:
        end = sweeps.run(spec, view=view, results=results, backend=backend, file=file.absolute(), overrides=overrides)
    return _close(end, sweeps.place_of(spec, results=results).url)


@cli.command()
@click.argument("sweep")
@results_option
@backend_option
@detach_option
def resume(sweep: str, results: str | None, backend: Any, detach: bool) -> int:
    """Go on with a sweep after Ctrl-C, a crash or a reboot."""
    if detach:
        return _detach(["resume", sweep, f"--backend={backend}"], _results(results).spec(sweep), results)
    from finesweep import sweeps

    with _view() as view:
        end = sweeps.resume(sweep, view=view, results=results, backend=backend)
    return _close(end, _results(results).url)


@cli.command()
@click.argument("sweep")
@click.option("--trials", type=click.IntRange(min=1), help="The new total, not an addition.")
@click.option("--hours", type=click.FloatRange(min=0, min_open=True), help="The new total, not an addition.")
@results_option
def extend(sweep: str, trials: int | None, hours: float | None, results: str | None) -> None:
    """Give a finished or running sweep a larger total of trials or hours."""
    from finesweep import sweeps

    if trials is None and hours is None:
        raise click.UsageError("give --trials, --hours or both")
    sweeps.extend(sweep, trials, hours=hours, results=results)
    totals = {"trials": trials, "hours": hours}
    said = " and ".join(f"{total:g} {name}" for name, total in totals.items() if total is not None)
    url = _results(results).url
    if sweeps.is_driven(sweep, url=url):
        click.echo(f"{sweep}: {said} in total from now on.")
    else:
        click.echo(f"{sweep}: {said} in total. Go on with it: finesweep resume {sweep}{_hint(url)}")


@cli.command()
@click.argument("sweep")
@results_option
def stop(sweep: str, results: str | None) -> None:
    """Stop a sweep that runs elsewhere: its trials write a checkpoint and can be resumed."""
    from finesweep import sweeps

    if sweeps.stop(sweep, results=results):
        hint = _hint(_results(results).url)
        click.echo(f"{sweep}: asked to stop. Go on with it later: finesweep resume {sweep}{hint}")
    else:
        click.echo(f"{sweep}: is not running.")


@cli.command()
@click.argument("sweep")
@click.option("--yes", is_flag=True, help="Do not ask.")
@results_option
def delete(sweep: str, yes: bool, results: str | None) -> None:
    """Remove a sweep, its trials and its files for good."""
    from finesweep import sweeps

    n_trials = len(_results(results).trials(sweep))
    if not yes:
        click.confirm(f"Delete sweep {sweep} with its {n_trials} trials and all of its files?", abort=True, err=True)
    sweeps.delete(sweep, results=results)
    click.echo(f"{sweep}: deleted.")


# --- looking -----------------------------------------------------------------------------------------------------


@cli.command()
@click.argument("sweep", required=False)
@results_option
@click.option("--metric", "metrics", multiple=True, help="Show another reported metric as a column.")
@click.option("--top", type=click.IntRange(min=1), help="Show only the best of the trials.")
@json_option
def status(sweep: str | None, results: str | None, metrics: tuple[str, ...], top: int | None, as_json: bool) -> None:
    """List the sweeps of a results database, or one sweep's trials, best first."""
    from finesweep.views.tables import leaderboard, sweeps_table

    known = _results(results)
    table = sweeps_table(known) if sweep is None else leaderboard(known, sweep, metrics=metrics, top=top)
    _print_tables([table], as_json=as_json)


@cli.command()
@click.argument("trial", metavar="SWEEP:NUMBER")
@click.option("-f", "--follow", is_flag=True, help="Go on showing what is added, until the trial has ended.")
@results_option
def logs(trial: str, follow: bool, results: str | None) -> None:
    """Show what a trial printed and logged."""
    from finesweep.layout import log_path

    sweep, number = _trial_name(trial)
    known = _results(results)
    path = log_path(Path(known.provenance(sweep)["artifact_dir"]), number)
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


@cli.command()
@click.argument("sweep", nargs=-1, required=True)
@click.option("--top", type=click.IntRange(min=1), help="Show only the best of the trials.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Write all trials to a .csv, .json, .parquet or .md file."
)
@click.option("--force", is_flag=True, help="Replace an existing file.")
@results_option
@json_option
def compare(
    sweep: tuple[str, ...], top: int | None, output: Path | None, force: bool, results: str | None, as_json: bool
) -> None:
    """Compare the trials of one or several sweeps on their common parameters."""
    from finesweep.views.compare import compare as gather
    from finesweep.views.compare import comparison_tables

    comparison = gather(_results(results), sweep)
    if output is None:
        _print_tables(comparison_tables(comparison, top=top), as_json=as_json)
        return
    from finesweep.export.table_file import export_table

    trials = comparison.trials if top is None else comparison.trials.head(top)
    export_table(trials, output, force=force)
    click.echo(f"{output}: {len(trials)} trials.")


@cli.command()
@click.argument("sweep", metavar="SWEEP[:NUMBER]")
@click.option("--to", "target", type=click.Choice(["json"]), default="json", show_default=True, help="Format.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="File to write.  [default: SWEEP-best.json]")
@click.option("--force", is_flag=True, help="Replace an existing file.")
@results_option
def export(sweep: str, target: str, output: Path | None, force: bool, results: str | None) -> None:
    """Write a trial's configuration, by default the best one's, for production training."""
    from finesweep.export.json_file import export_json
    from finesweep.export.record import export_record

    name, number = _trial_name(sweep) if ":" in sweep else (sweep, None)
    record = export_record(_results(results), name, number)
    path = output or Path(f"{name}-{'best' if number is None else number}.{target}")
    export_json(record, path, force=force)
    click.echo(str(path))


# --- below the verbs ---------------------------------------------------------------------------------------------


def _say(text: str) -> None:
    click.echo(text, err=True)


def _view() -> Any:
    """Give what shows a running sweep, as a context: a picture on a terminal, lines elsewhere."""
    import contextlib

    from rich.console import Console

    from finesweep.views.live import PlainView, TerminalView

    console = Console(stderr=True)
    if console.is_terminal:
        return TerminalView(console)
    return contextlib.nullcontext(PlainView(_say))


def _results(results: str | None) -> Results:
    from finesweep.results.frames import open_results

    return open_results(results or os.environ.get("FINESWEEP_RESULTS"))


def _hint(url: str) -> str:
    """Give the --results that a command needs to find this database; nothing where it is found without."""
    from finesweep.results.url import redacted, resolve_url, sqlite_path

    if url == resolve_url(os.environ.get("FINESWEEP_RESULTS"), folder=Path.cwd()):
        return ""
    path = sqlite_path(url)
    if path is None:
        return f" --results {redacted(url)}"
    return f" --results {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}"


def _is_over(known: Results, sweep: str, number: int) -> bool:
    """Tell whether a trial's log will grow no more: it has ended, or nobody drives the sweep."""
    from finesweep.sweeps import is_driven

    return known.trial(sweep, number).state.is_final or not is_driven(sweep, url=known.url)


def _trial_name(text: str) -> tuple[str, int]:
    sweep, _, number = text.rpartition(":")
    if not sweep or not number.isdecimal():
        raise FinesweepError(f"{text!r} names no trial. Write SWEEP:NUMBER, as in quickstart:3.")
    return sweep, int(number)


def _print_tables(tables: Sequence[Any], *, as_json: bool) -> None:
    from rich.console import Console

    from finesweep.views.printing import show

    if as_json:
        rows = [list(table.rows) for table in tables]
        click.echo(json.dumps(rows[0] if len(rows) == 1 else {"best": rows[0], "trials": rows[1]}, indent=2))
        return
    console = Console()
    for index, table in enumerate(tables):
        if index:
            click.echo()
        show(table, console)


def _fault_row(fault: Any) -> dict[str, Any]:
    return {"file": fault.file, "line": fault.line, "key": fault.key, "message": fault.message}


def _close(end: SweepEnd, url: str) -> int:
    """Show how a sweep ended and say what to do next."""
    from finesweep.driver import HOURS
    from finesweep.results.frames import open_results
    from finesweep.results.schema import SweepState
    from finesweep.results.url import redacted
    from finesweep.views.tables import best_text, leaderboard

    known = open_results(url)
    _print_tables([leaderboard(known, end.name, top=20)], as_json=False)
    hint = _hint(url)
    if end.reason:
        _say(f"{end.name}: {end.reason}.")
    if end.reason == HOURS:
        waiting = f" {end.n_unfinished} trials wait to go on." if end.n_unfinished else ""
        _say(f"For more:{waiting} finesweep extend {end.name} --hours H{hint}, then finesweep resume {end.name}{hint}")
    elif end.state is SweepState.INTERRUPTED:
        waiting = f" ({end.n_unfinished} trials wait to go on)" if end.n_unfinished else ""
        _say(f"{end.name} is interrupted{waiting}. Go on with it:\n\n    finesweep resume {end.name}{hint}\n")
        return 130
    front = known.front(end.name)
    if not front:
        _say(f"{end.name}: no trial was completed. See why: finesweep logs {end.name}:0{hint}")
        return 1
    gap = " " if len(front[0].values) == 1 else "\n"
    exported = end.name if len(front) == 1 else f"{end.name}:{front[0].number}"
    _say(
        f"{best_text(front)}{gap}Next:\n\n"
        f"    finesweep compare {end.name}{hint}\n"
        f"    finesweep export {exported} --to json{hint}\n"
        f"    finesweep extend {end.name} --trials N{hint}\n"
        f"    optuna-dashboard {redacted(url)}\n"
    )
    return 0


def _check_inputs(spec: TransformersSweep) -> None:
    from finesweep.sweeps import cache_dir
    from finesweep.training.prepare import prepare

    prepared = prepare(spec, cache_dir=cache_dir())
    _say(f"{prepared.n_train_rows:,} training and {prepared.n_validation_rows:,} validation rows, {spec.task}.")
    for note in prepared.notes:
        _say(f"note: {note}")


def _smoke(spec: TransformersSweep) -> None:
    from finesweep import sweeps
    from finesweep.forecast import forecast
    from finesweep.views.live import PlainView

    slots = sweeps.slots_here(spec, PlainView(_say))
    if slots is not None:
        sweeps.show_one_device(slots)
    from finesweep.training.smoke import smoke  # imports torch, which must see one device

    result = smoke(spec, cache_dir=sweeps.cache_dir())
    _say(
        f"one step on {result.device}: {result.method}, batch size {result.batch_size} "
        f"({result.device_batch_size} at a time) of {result.max_length} tokens, "
        f"{result.n_trainable:,} of {result.n_parameters:,} parameters trained"
    )
    for line in forecast(spec, result, slots):
        _say(line)


def _detach(arguments: list[str], spec: SweepSpec, results: str | None) -> int:
    """Start a driver of its own session, and wait until it drives the sweep or has said why not."""
    from finesweep.layout import driver_log_path
    from finesweep.sweeps import driver_pid, make_folder, place_of

    place = place_of(spec, results=results)
    log = driver_log_path(place.artifact_dir)
    make_folder(log.parent)
    command = [sys.executable, "-m", "finesweep", *arguments]
    if results is not None:
        command.append(f"--results={results}")
    if arguments[0] == "run":
        command.append(f"--name={spec.name}")
    with log.open("ab") as file:
        began_at = file.tell()
        driver = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True, close_fds=True
        )
    while driver.poll() is None:
        try:
            if driver_pid(spec.name, url=place.url) == driver.pid:
                click.echo(f"{spec.name} runs in the background, process {driver.pid}; log: {log}")
                click.echo(f"See how it is:  finesweep status {spec.name}{_hint(place.url)}")
                return 0
        except FinesweepError:
            pass  # not in the database yet
        time.sleep(0.2)
    _say(log.read_bytes()[began_at:].decode(errors="replace").rstrip())
    return driver.returncode
