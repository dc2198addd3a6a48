"""The verb that shows results in a browser."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from functools import partial

import click

from finesweep.cli.talk import MORE_ARGUMENTS, open_database
from finesweep.errors import ResultsError
from finesweep.secrets import hide


@click.command()
@click.argument("url", required=False)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at; another needs a token.")
@click.option(
    "--port", default=8765, show_default=True, type=click.IntRange(0, 65535), help="Port; 0 takes a free one."
)
@click.option(
    "--token",
    envvar="FINESWEEP_DASHBOARD_TOKEN",
    help="Whoever opens it needs this; on another address than the loopback one is made if none is given.  "
    "[default: FINESWEEP_DASHBOARD_TOKEN]",
)
@click.option("--control", is_flag=True, help="Have buttons that stop, resume and extend sweeps; else it only reads.")
def dashboard(url: str | None, host: str, port: int, token: str | None, control: bool) -> None:
    """Show a results database in the browser: sweeps, trials and comparisons, live.

    URL is a path, sqlite:///path or postgresql://host/name; by default FINESWEEP_RESULTS, or finesweep.db here.
    """
    known = open_database(url)
    try:
        from finesweep.dashboard.serving import serve
    except ModuleNotFoundError as error:
        raise ResultsError(f"the dashboard needs {error.name}. Run: pip install 'finesweep[dashboard]'.") from error
    from finesweep.notebook import open_results

    verb = partial(_verb, known.url) if control else None
    serve(open_results(known.url), host=host, port=port, token=token or None, say=_tell, verb=verb)


def _verb(url: str, words: Sequence[str]) -> str:
    """Run a verb on the database in a process of its own, as from a command line, and give what it says."""
    done = subprocess.run(
        [sys.executable, "-m", "finesweep", *words],
        env={**os.environ, MORE_ARGUMENTS: json.dumps([f"--results={url}"])},  # it may hold a password
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    return hide(done.stdout.strip()) or f"it ended with {done.returncode} and said nothing"


def _tell(text: str) -> None:
    """Say it on stderr as it stands: `say` would take out the token, which must be handed over once."""
    click.echo(text, err=True)
