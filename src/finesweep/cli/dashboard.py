"""The verb that shows results in a browser."""

from __future__ import annotations

import click

from finesweep.cli.talk import open_database
from finesweep.errors import ResultsError


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
def dashboard(url: str | None, host: str, port: int, token: str | None) -> None:
    """Show a results database in the browser: sweeps, trials and comparisons, live. It only reads.

    URL is a path, sqlite:///path or postgresql://host/name; by default FINESWEEP_RESULTS, or finesweep.db here.
    """
    known = open_database(url)
    try:
        from finesweep.dashboard.serving import serve
    except ModuleNotFoundError as error:
        raise ResultsError(f"the dashboard needs {error.name}. Run: pip install 'finesweep[dashboard]'.") from error
    from finesweep.notebook import open_results

    serve(open_results(known.url), host=host, port=port, token=token or None, say=_tell)


def _tell(text: str) -> None:
    """Say it on stderr as it stands: `say` would take out the token, which must be handed over once."""
    click.echo(text, err=True)
