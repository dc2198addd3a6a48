"""What follows a sweep: `train` a model from a trial's record, `predict` with it, `reproduce` a trial."""

from __future__ import annotations

import json
import os
import shlex
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from finesweep.cli.talk import json_option, open_database, results_option, say, trial_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from finesweep.production.processes import Processes

_INTERRUPTED = 130


@click.command()
@click.argument("record", type=click.Path(path_type=Path))
@click.option("--data", metavar="[SPLIT=]FILE", multiple=True, help="Rows instead of the record's: train=FILE, ...")
@click.option("--full-data", is_flag=True, help="Learn from the validation rows as well; judged on test rows, or not.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), default=Path("model"), show_default=True, help="Folder to fill."
)
@click.option("--merge/--adapter", "is_merged", default=None, help="Of LoRA: merge the adapter, or leave it apart.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), help="Another seed than the record's.")
@click.option("--strict", is_flag=True, help="Exit 1 if the metric is outside the verified prediction interval.")
@click.option("--resume", is_flag=True, help="Go on with a training that was interrupted, if one was.")
@click.option("--force", is_flag=True, help="Replace the files of a model that are in the folder.")
def train(
    record: Path,
    data: tuple[str, ...],
    full_data: bool,
    output: Path,
    is_merged: bool | None,
    seed: int | None,
    strict: bool,
    resume: bool,
    force: bool,
) -> int:
    """Train a model for production from RECORD, which `export` has written: a folder that transformers loads.

    Under torchrun or accelerate launch the processes share each batch.
    """
    from finesweep.export.reading import read_record
    from finesweep.production.plan import Asked, files_asked, plan_training
    from finesweep.production.processes import Processes, refuse_unlike, take_one_device
    from finesweep.sweeps import cache_dir

    refuse_unlike(os.environ)
    processes = Processes.launched(os.environ)
    adapter = None if is_merged is None else not is_merged
    files = files_asked(data, folder=Path.cwd())
    plan = plan_training(read_record(record), Asked(files, full_data, adapter, seed, strict))
    if processes.n == 1:
        take_one_device(plan.spec.resources, os.environ, say)
    from finesweep.production.train import train as train_model

    with _shown(processes) as shown:
        end = train_model(
            plan,
            output.absolute(),
            cache_dir=cache_dir(),
            shown=shown,
            processes=processes,
            resume=resume,
            force=force,
            command=shlex.join(["finesweep", *sys.argv[1:]]),
        )
    if not processes.is_main:
        return _INTERRUPTED if end.state == "interrupted" else int(end.state != "done")
    if end.state == "interrupted":
        say(f"{output}: {end.said}. Go on: the same command with --resume.")
        return _INTERRUPTED
    if end.state != "done":
        say(f"Error: {record}: {end.said}. Nothing is written.")
        return 1
    click.echo(str(output))
    if strict and end.is_broken:
        say("--strict: the verification's prediction interval is not met.")
        return 1
    return 0


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--data", required=True, metavar="FILE", help="Rows to try it on; -: JSON lines from stdin.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="File of JSON lines.  [default: stdout]")
@click.option("--text", "texts", metavar="COLUMN", multiple=True, help="Column to read; twice for pairs of texts.")
@click.option("--top", type=click.IntRange(min=1), default=3, show_default=True, help="Classes shown of each row.")
@click.option("--max-length", type=click.IntRange(min=8), help="Tokens read of a row.  [default: as in training]")
@click.option("--max-new-tokens", type=click.IntRange(min=1), help="Most that is written.  [default: as judged, or 64]")
@click.option("--force", is_flag=True, help="Replace an existing file.")
def predict(
    model: Path,
    data: str,
    output: Path | None,
    texts: tuple[str, ...],
    top: int,
    max_length: int | None,
    max_new_tokens: int | None,
    force: bool,
) -> None:
    """Try the model in folder MODEL on rows: one JSON line a row, in their order."""
    from finesweep.export.whole_file import check_free, write_whole
    from finesweep.production.processes import take_one_device
    from finesweep.spec.sweep import Resources
    from finesweep.sweeps import cache_dir

    if output is not None:
        check_free(output, force=force)
    take_one_device(Resources(), os.environ, say)
    import torch

    from finesweep.production.predict import load_predictor
    from finesweep.production.try_rows import read_tried

    predictor = load_predictor(
        model,
        cache_dir=cache_dir(),
        device="cuda" if torch.cuda.is_available() else "cpu",
        max_length=max_length,
        max_new_tokens=max_new_tokens,
    )
    rows = read_tried(data, predictor.columns_read(texts), stdin=sys.stdin.buffer)
    said: list[Mapping[str, Any]] = [{}] * len(rows)
    for place, answer in _counted(predictor.predict(rows, top=top), len(rows)):
        said[place] = {"row": place + 1, **answer}
    lines = "".join(json.dumps(answer, ensure_ascii=False) + "\n" for answer in said)
    if output is None:
        click.echo(lines, nl=False)
    else:
        write_whole(output, lines.encode(), force=force)
        click.echo(str(output))


@click.command()
@click.argument("trial", metavar="SWEEP:NUMBER")
@click.option(
    "--tolerance",
    type=click.FloatRange(min=0),
    help="Largest gap of a metric, where equality cannot be asked for.  [default: 0.02]",
)
@results_option
@json_option
def reproduce(trial: str, tolerance: float | None, results: str | None, as_json: bool) -> int:
    """Train one trial again from what is stored of it, and compare report by report; exit 1 if it is not met.

    What differs in its surroundings is listed first. Nothing is stored.
    """
    from finesweep.production.processes import take_one_device
    from finesweep.production.reproduce import TOLERANCE, on_its_device, subject
    from finesweep.production.reproduce import reproduce as train_again
    from finesweep.sweeps import cache_dir

    found = subject(open_database(results), *trial_name(trial))
    spec = on_its_device(found)
    take_one_device(spec.resources, os.environ, say)
    end = train_again(
        found, spec, cache_dir=cache_dir(), say=say, tolerance=TOLERANCE if tolerance is None else tolerance
    )
    if as_json:
        rows = [{"step": r.step, "metric": r.metric, "then": r.then, "now": r.now, "gap": r.gap()} for r in end.rows]
        told = {"trial": trial, "is_met": end.is_met, "tolerance": end.tolerance, "why": end.why, "ended": end.ended}
        click.echo(json.dumps({**told, "reports": rows}, indent=2))
        return int(not end.is_met)
    largest = end.largest
    n_steps = len({row.step for row in end.rows})
    if end.is_met and (largest is None or largest.gap() == 0):
        click.echo(f"{trial}: reproduced, equal in all metrics of {n_steps} reports.")
        return 0
    if largest is not None and largest.gap() > 0:
        now = "not reported" if largest.now is None else f"{largest.now:.6g}"
        say(f"largest gap: {largest.metric} at step {largest.step:,}: {largest.then:.6g} then, {now} now")
    if end.is_met:
        click.echo(f"{trial}: reproduced within {end.tolerance:g} in all metrics of {n_steps} reports.")
        return 0
    for fault in (end.ended, f"reports that it had not made, at {list(end.extra_steps)}" if end.extra_steps else ""):
        if fault:
            say(fault)
    click.echo(f"{trial}: NOT reproduced{' within ' + format(end.tolerance, 'g') if end.tolerance else ''}.")
    return 1


def _shown(processes: Processes) -> Any:  # Any: a context manager over one of three kinds of Shown
    from rich.console import Console

    from finesweep.production.watching import Bar, Lines, Silent

    if not processes.is_main:
        import logging

        logging.getLogger("finesweep").setLevel(logging.CRITICAL)
        return nullcontext(Silent())
    console = Console(stderr=True)
    return Bar(console) if console.is_terminal else nullcontext(Lines(console))


def _counted(answers: Iterator[tuple[int, Mapping[str, Any]]], total: int) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Show on stderr how many rows are done."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("rows", total=total)
        for answer in answers:
            yield answer
            progress.advance(task)
