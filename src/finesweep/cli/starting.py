"""`init`: a first study and sweep for a file of rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import click

from finesweep.cli.talk import say
from finesweep.spec.sweep import Task

_COLUMNS = {
    "text": "Column of the text that is judged, or that is learnt to be written.",
    "text-pair": "Column of a second text, as in question and passage.",
    "label": "Column of what is to be told of the text: class, classes or number.",
    "prompt": "Column of prompts.",
    "completion": "Column of what is to be written after them.",
    "messages": "Column of chats.",
}


def column_options(command: Any) -> Any:
    for name, text in reversed(_COLUMNS.items()):
        command = click.option(f"--{name}", metavar="COLUMN", help=text)(command)
    return command


@click.command()
@click.option("--model", required=True, help="Hub id, folder, GGUF file, or package:NAME/folder.")
@click.option("--data", required=True, type=click.Path(path_type=Path), help="File of rows to learn from.")
@click.option("--validation", type=click.Path(path_type=Path), help="File of rows to judge by.  [default: a share]")
@click.option("--task", type=click.Choice(get_args(Task)), help="What is learnt.  [default: guessed from the data]")
@column_options
@click.option("--name", help="Name of the sweep and of both files.  [default: that of the data file]")
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path),
    default=Path(),
    help="Where studies/ and sweeps/ are or will be.  [default: here]",
)
def init(
    model: str,
    data: Path,
    validation: Path | None,
    task: Task | None,
    name: str | None,
    folder: Path,
    **columns: str | None,
) -> None:
    """Look at a file of rows and write a first study and sweep for it. Overwrites nothing."""
    from finesweep.starting.init import init as start
    from finesweep.sweeps import cache_dir

    started = start(
        model,
        data,
        cache_dir=cache_dir(),
        validation=validation,
        task=task,
        columns={key: column for key, column in columns.items() if column is not None},
        name=name,
        folder=folder,
    )
    for remark in started.remarks:
        say(remark)
    sweep = started.sweep.relative_to(Path.cwd()) if started.sweep.is_relative_to(Path.cwd()) else started.sweep
    click.echo(f"finesweep check {sweep} --load\nfinesweep run {sweep}")
    say(f"Written: {started.study}, {started.sweep}. Change them as you like.")
    say(f"`finesweep check {sweep} --smoke` trains a step and estimates what the sweep costs.")
