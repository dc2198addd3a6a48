"""Verbs that look after a results database: migrate."""

from __future__ import annotations

import click

from finesweep.cli.talk import results_option, say


@click.command()
@results_option
def migrate(results: str | None) -> None:
    """Bring a database that an older finesweep made up to this one; an SQLite file is copied first.

    Verbs that write do the same when they meet such a database; those that only read ask for it.
    """
    from finesweep import sweeps

    url = sweeps.migrate(results=results, say=say)
    click.echo(f"{url}: has the schema of this finesweep.")
