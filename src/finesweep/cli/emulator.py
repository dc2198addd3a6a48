"""The verb that serves a fine-tuning server of one's own."""

from __future__ import annotations

from pathlib import Path

import click

from finesweep.cli.talk import say


def _pairs(context: click.Context, option: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    pairs = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name or not value:
            raise click.BadParameter(f"{text!r} is not NAME=VALUE")
        pairs[name] = value
    return pairs


@click.command()
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at; another needs --token.")
@click.option(
    "--port", default=8777, show_default=True, type=click.IntRange(0, 65535), help="Port; 0 takes a free one."
)
@click.option(
    "--token", envvar="FINESWEEP_EMULATOR_TOKEN", help="The key that clients must send; without it any is taken."
)
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("emulator"),
    show_default=True,
    help="Where files, jobs and models are kept.",
)
@click.option(
    "--model",
    "aliases",
    metavar="NAME=MODEL",
    multiple=True,
    callback=_pairs,
    help="A name that jobs may ask for, and the local model that is trained for it; "
    "without any davinci-002, babbage-002 and gpt-4o-mini-2024-07-18, each SmolLM2-135M.",
)
@click.option("--parallel", type=click.IntRange(1, 64), default=1, show_default=True, help="Jobs trained at a time.")
@click.option("--max-length", type=click.IntRange(8), default=128, show_default=True, help="Tokens of a row.")
@click.option(
    "--fault",
    "faults",
    metavar="KIND=RATE",
    multiple=True,
    callback=_pairs,
    help="Have faults befall requests, as in --fault rate_limit=0.1: rate_limit, server_error, reset_before, "
    "reset_after, slow, slow_events, validation.",
)
@click.option("--fault-seed", type=int, default=0, show_default=True, help="What the faults are drawn from.")
def emulator(
    command: tuple[str, ...],
    host: str,
    port: int,
    token: str | None,
    folder: Path,
    aliases: dict[str, str],
    parallel: int,
    max_length: int,
    faults: dict[str, str],
    fault_seed: int,
) -> int:
    """Serve the protocol of remote fine-tuning, training local models: for tests, teaching, trying before paying.

    Until Ctrl-C, or for as long as COMMAND runs. A COMMAND that uses the openai client finds address and key in
    OPENAI_BASE_URL and OPENAI_API_KEY. finesweep takes the key from there, and the address from the sweep's file alone:
    keep the --port that its remote.base_url names, or say another by --set remote.base_url=http://127.0.0.1:PORT/v1.

        finesweep emulator -- finesweep run sweeps/davinci-002.yaml
    """
    from finesweep.errors import ResourcesError

    try:
        from finesweep.emulator.faults import Faults
        from finesweep.emulator.serving import serve
        from finesweep.emulator.settings import Settings
    except ModuleNotFoundError as error:
        raise ResourcesError(f"the emulator needs {error.name}. Run: pip install 'finesweep[remote]'.") from error
    from finesweep.sweeps import cache_dir

    try:
        befalling = Faults({kind: float(rate) for kind, rate in faults.items()}, seed=fault_seed)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--fault") from None
    known = aliases or dict(Settings().aliases)
    settings = Settings(aliases=known, parallel=parallel, max_length=max_length)
    return serve(
        folder,
        settings,
        cache_dir=cache_dir(),
        faults=befalling,
        host=host,
        port=port,
        token=token or None,
        say=say,
        command=command,
    )
