"""`check`: everything wrong in the files of a sweep, and as asked in its data, its model and its largest step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from finesweep.cli.talk import file_argument, json_option, say, set_option
from finesweep.errors import SpecError

if TYPE_CHECKING:
    from finesweep.spec.sweep import FunctionSweep, RemoteSweep, SweepSpec, TransformersSweep


@click.command()
@file_argument
@set_option
@click.option("--name", help="Use this name instead of the file's.")
@click.option("--load", is_flag=True, help="Also load tokenizer and data, or import a trainer of your own.")
@click.option("--smoke", is_flag=True, help="Also train one step at the largest shape, and estimate the sweep's cost.")
@json_option
def check(file: Path, overrides: tuple[str, ...], name: str | None, load: bool, smoke: bool, as_json: bool) -> int:
    """Find everything wrong in a sweep file and its study. Loads nothing heavy unless asked to."""
    from finesweep.spec.files import check_sweep

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
            say(f"note: {note}")
    if load or smoke:
        _load(checked.spec, smoke=smoke)
    if not as_json:
        click.echo(f"{file}: no faults.")
    return 0


def _fault_row(fault: Any) -> dict[str, Any]:
    return {"file": fault.file, "line": fault.line, "key": fault.key, "message": fault.message}


def _load(spec: SweepSpec, *, smoke: bool) -> None:
    from finesweep.spec.sweep import FunctionSweep, RemoteSweep, TransformersSweep

    if isinstance(spec, RemoteSweep):
        _check_remote(spec, smoke=smoke)
    elif isinstance(spec, FunctionSweep):
        _import_trainer(spec, smoke=smoke)
    if isinstance(spec, TransformersSweep):
        _check_inputs(spec)
        if smoke:
            _smoke(spec)


def _import_trainer(spec: FunctionSweep, *, smoke: bool) -> None:
    from finesweep.training.function import function_facts

    function_facts(spec)
    say(f"{spec.trainer} can be imported.")
    if smoke:
        say(
            f"A step of {spec.trainer} cannot be tried on its own. Try a whole trial: finesweep run FILE --name "
            f"{spec.name}-try --set budget.trials=1 --backend inline"
        )


def _check_remote(spec: RemoteSweep, *, smoke: bool) -> None:
    """Check the rows and ask the server for the model. Nothing is uploaded or begun."""
    from finesweep.remote import require_client

    require_client()
    from finesweep.remote.calls import Calls
    from finesweep.remote.forecast import most_cost
    from finesweep.remote.rows import prepare_rows
    from finesweep.remote.server import connect
    from finesweep.sweeps import cache_dir

    files = prepare_rows(spec, cache_dir=cache_dir())
    for split, file in (("training", files.train), ("validation", files.validation)):
        say(f"{file.n_rows:,} {split} rows, {file.n_bytes:,} bytes")
    for note in files.notes:
        say(f"note: {note}")
    for line in most_cost(spec, n_train_bytes=files.train.n_bytes):
        say(line)
    if smoke:
        say(
            "A step of a server cannot be tried on its own. Try a whole sweep: finesweep emulator -- finesweep run FILE"
        )
    client, remote = connect(spec.remote), spec.remote
    found = Calls(patience_s=0).ask(lambda: client.models.retrieve(remote.model), what=f"model {remote.model}")
    say(f"{remote.base_url} knows the model {found.id}.")


def _check_inputs(spec: TransformersSweep) -> None:
    from finesweep.sweeps import cache_dir
    from finesweep.training.prepare import prepare

    prepared = prepare(spec, cache_dir=cache_dir())
    test = f" and {prepared.n_test_rows:,} test rows that no trial sees" if prepared.n_test_rows else ""
    say(
        f"{prepared.n_train_rows:,} training and {prepared.n_validation_rows:,} validation rows{test}, {spec.task}. "
        f"An epoch is {prepared.n_train_tokens:,} tokens."
    )
    for note in prepared.notes:
        say(f"note: {note}")


def _smoke(spec: TransformersSweep) -> None:
    from finesweep import sweeps
    from finesweep.forecast import forecast
    from finesweep.views.live import PlainView

    slots = sweeps.slots_here(spec, PlainView(say))
    if slots is not None:
        sweeps.show_one_device(slots)
    from finesweep.training.smoke import smoke  # imports torch, which must see one device

    result = smoke(spec, cache_dir=sweeps.cache_dir())
    say(
        f"one step on {result.device}: {result.method}, batch size {result.batch_size} "
        f"({result.device_batch_size} at a time) of {result.max_length} tokens, "
        f"{result.n_trainable:,} of {result.n_parameters:,} parameters trained"
    )
    for line in forecast(spec, result, slots):
        say(line)
