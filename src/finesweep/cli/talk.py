"""What verbs share: options, where results are, and how things are said. Data goes to stdout, talk to stderr."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from finesweep.errors import FinesweepError
from finesweep.secrets import hide
from finesweep.spec.sweep import MOST_TRIALS

if TYPE_CHECKING:
    from finesweep.results.frames import Results

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


# Arguments that the list of processes is not to show, as JSON: those of a detached driver that hold a password.
MORE_ARGUMENTS = "FINESWEEP_MORE_ARGUMENTS"


def select_options(verb: Callable[..., Any]) -> Callable[..., Any]:
    """Give a verb the options that choose among trials, handed to it as one `selection`."""

    @click.option("--where", metavar="CONDITION", help='Only trials of which it holds: "learning_rate < 1e-4".')
    @click.option("--sort", multiple=True, metavar="COLUMN", help="Order by a column; -COLUMN: largest first.")
    @click.option("--columns", metavar="A,B,...", help="Show these columns, in this order.")
    @click.option("--top", type=click.IntRange(min=1), help="Show only the first of the trials.")
    @functools.wraps(verb)
    def selecting(where: str | None, sort: tuple[str, ...], columns: str | None, top: int | None, **rest: Any) -> Any:
        from finesweep.views.selection import Selection

        chosen = [name.strip() for name in (columns or "").split(",") if name.strip()]
        return verb(selection=Selection(where=where, sort=sort, columns=chosen, top=top), **rest)

    return selecting


def say(text: str) -> None:
    """Say something on stderr, but for secrets and for what a terminal would obey."""
    shown = "".join(letter if letter.isprintable() or letter in "\n\t" else _escaped(letter) for letter in hide(text))
    click.echo(shown, err=True)


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")


def open_database(results: str | None) -> Results:
    from finesweep.results.frames import open_results

    return open_results(results or os.environ.get("FINESWEEP_RESULTS"))


def database_hint(url: str) -> str:
    """Give the --results that a command needs to find this database; nothing where it is found without."""
    from finesweep.results.url import redacted, resolve_url, sqlite_path

    if url == resolve_url(os.environ.get("FINESWEEP_RESULTS"), folder=Path.cwd()):
        return ""
    path = sqlite_path(url)
    if path is None:
        return f" --results {redacted(url)}"
    return f" --results {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}"


def trial_name(text: str) -> tuple[str, int]:
    sweep, _, number = text.rpartition(":")
    if not sweep or not number.isdecimal() or int(number[:20]) >= MOST_TRIALS:
        raise FinesweepError(f"{text!r} names no trial. Write SWEEP:NUMBER, as in quickstart:3.")
    return sweep, int(number)


def print_tables(tables: Sequence[Any], *, as_json: bool) -> None:
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
