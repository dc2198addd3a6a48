"""`artifacts`: what the trials of a sweep hold on disk, and making room."""

from __future__ import annotations

import json
import re

import click

from finesweep.cli.talk import json_option, open_database, print_tables, results_option


def _policy(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    from finesweep.spec.sweep import KEEP_PATTERN

    if value is not None and not re.match(KEEP_PATTERN, value):
        raise click.BadParameter(f"{value!r} is no policy. Use none, best, all, or a number of trials as in 'top 3'.")
    return value


@click.command()
@click.argument("sweep")
@click.option("--keep", metavar="POLICY", callback=_policy, help="See by another policy: none, best, 'top 3', all.")
@click.option("--free", is_flag=True, help="Remove what may go; what trials need to go on always stays.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@results_option
@json_option
def artifacts(sweep: str, keep: str | None, free: bool, yes: bool, results: str | None, as_json: bool) -> None:
    """Show what each trial holds on disk and what of it may go and why, or remove that."""
    from finesweep.artifacts import make_room, take_stock
    from finesweep.spec.sweep import RemoteSweep
    from finesweep.sweeps import is_driven
    from finesweep.views.holdings import holdings_table, stock_text, totals
    from finesweep.views.printing import bytes_text

    known = open_database(results)
    stock = take_stock(known, sweep, keep=keep, is_driven=is_driven(sweep, url=known.url))
    table = holdings_table(stock.holdings)
    n_free = totals(table)["free_bytes"] + stock.unknown_bytes
    if not free:
        if as_json:
            whole = {"keep": stock.keep, "quota_bytes": stock.quota_bytes, "unknown_bytes": stock.unknown_bytes}
            click.echo(json.dumps({"sweep": sweep, **whole, **totals(table), "trials": list(table.rows)}, indent=2))
            return
        print_tables([table], as_json=False)
        said = stock_text(table, keep=stock.keep, quota_bytes=stock.quota_bytes, unknown_bytes=stock.unknown_bytes)
        click.echo(said)
        if isinstance(known.spec(sweep), RemoteSweep):
            click.echo("What its jobs made is at the server, and stays there whatever is removed here.")
        if n_free:
            policy = f" --keep {keep!r}" if keep else ""
            click.echo(f"{bytes_text(n_free)} may go: finesweep artifacts {sweep}{policy} --free")
        return
    if n_free and not yes:
        click.confirm(f"Remove {bytes_text(n_free)} of sweep {sweep} for good?", abort=True, err=True)
    make_room(known, sweep, keep=keep)
    click.echo(
        json.dumps({"sweep": sweep, "freed_bytes": n_free}) if as_json else f"{sweep}: {bytes_text(n_free)} freed."
    )
