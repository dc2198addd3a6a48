"""The command line called in this process, with all that `main` adds: messages and exit codes."""

from __future__ import annotations

import click
from click.testing import CliRunner, Result

from finesweep.cli import main


def invoke(*arguments: str, given: str | None = None) -> Result:
    """Run the command line; `given` is what it reads. The result has stdout, stderr and exit_code."""
    return CliRunner().invoke(_command, arguments, input=given)


@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def _command(arguments: tuple[str, ...]) -> None:
    main(arguments)
