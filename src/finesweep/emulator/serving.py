"""Serving the emulator: in which folder, on which address, behind which token."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from finesweep.emulator.app import Emulator, make_app
from finesweep.emulator.faults import Faults
from finesweep.emulator.jobs import Jobs
from finesweep.emulator.settings import Settings
from finesweep.emulator.store import Store
from finesweep.emulator.writing import Writer
from finesweep.errors import ResourcesError
from finesweep.listening import address_of, check_token, is_loopback, listen


@contextmanager
def emulator_in(
    folder: Path, settings: Settings, *, cache_dir: Path, faults: Faults | None = None
) -> Iterator[Emulator]:
    """Train what waits in a folder, and what comes, until the end."""
    store = Store(folder)
    jobs = Jobs(store, settings, cache_dir=cache_dir)
    jobs.start()
    try:
        yield Emulator(store, jobs, Writer(store, settings, cache_dir=cache_dir), settings, faults or Faults())
    finally:
        jobs.close()


def serve(
    folder: Path,
    settings: Settings,
    *,
    cache_dir: Path,
    faults: Faults,
    host: str,
    port: int,
    token: str | None,
    say: Callable[[str], None],
) -> None:
    """Serve until interrupted. Raises ResourcesError on another address than the loopback without a token."""
    if token is None and not is_loopback(host):
        raise ResourcesError(
            f"--host {host}: others could train and ask models here. Give a --token, or use 127.0.0.1."
        )
    check_token(token)
    with emulator_in(folder, settings, cache_dir=cache_dir, faults=faults) as emulator:
        # No log of accesses: what clients send is theirs.
        config = uvicorn.Config(make_app(emulator, token=token), log_level="critical", access_log=False)
        with listen(host, port) as listening:
            say(f"Fine-tuning at {address_of(listening, host)}/v1, files in {folder}. Models:")
            for alias, model in settings.aliases.items():
                say(f"  {alias}  trained as {model}")
            say("Ctrl-C ends it; what is being trained goes on when it is started again.")
            uvicorn.Server(config).run(sockets=[listening])
