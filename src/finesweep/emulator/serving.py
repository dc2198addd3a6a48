"""Serving the emulator: in which folder, on which address, behind which token, and for how long."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import uvicorn
from filelock import FileLock, Timeout

from finesweep.emulator.app import Emulator, make_app
from finesweep.emulator.faults import Faults
from finesweep.emulator.jobs import Jobs
from finesweep.emulator.settings import Settings
from finesweep.emulator.store import Store
from finesweep.emulator.writing import Writer
from finesweep.errors import ResourcesError
from finesweep.listening import address_of, check_token, is_loopback, listen

NO_KEY = "none"  # is sent where any key is taken; so short that it is not hidden in texts as a secret


@contextmanager
def emulator_in(
    folder: Path, settings: Settings, *, cache_dir: Path, faults: Faults | None = None
) -> Iterator[Emulator]:
    """Train what waits in a folder, and what comes, until the end. Raises ResourcesError where another one does."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        held = FileLock(folder / ".lock").acquire(timeout=0)
    except Timeout:
        raise ResourcesError(f"another emulator serves {folder}. End it, or choose another --folder.") from None
    with held:
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
    command: Sequence[str] = (),
) -> int:
    """Serve until interrupted, or for as long as a command runs; give its exit status.

    Raises ResourcesError on another address than the loopback without a token, and for a command that is not there.
    """
    if token is None and not is_loopback(host):
        raise ResourcesError(
            f"--host {host}: others could train and ask models here. Give a --token, or use 127.0.0.1."
        )
    check_token(token)
    # The port first: without it nothing is to be trained. No log of accesses: what clients send is theirs.
    with (
        listen(host, port) as listening,
        emulator_in(folder, settings, cache_dir=cache_dir, faults=faults) as emulator,
    ):
        config = uvicorn.Config(make_app(emulator, token=token), log_level="critical", access_log=False)
        say(f"Fine-tuning at {address_of(listening, host)}/v1, files in {folder}. Models:")
        for alias, model in settings.aliases.items():
            say(f"  {alias}  trained as {model}")
        server = uvicorn.Server(config)
        if not command:
            say("Ctrl-C ends it; what is being trained goes on when it is started again.")
            server.run(sockets=[listening])
            return 0
        serving = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        serving.start()
        try:
            return _run(command, base_url=f"{address_of(listening, host)}/v1", token=token)
        finally:
            server.should_exit = True
            serving.join()


def _run(command: Sequence[str], *, base_url: str, token: str | None) -> int:
    """Run a command that finds the server in its environment, as the official client looks for it."""
    known = {
        "OPENAI_BASE_URL": base_url,
        "OPENAI_API_KEY": token or os.environ.get("OPENAI_API_KEY") or NO_KEY,
        "PATH": os.pathsep.join(
            [os.environ.get("PATH", os.defpath), str(Path(sys.executable).parent)]
        ),  # finesweep too
    }
    try:
        process = subprocess.Popen(list(command), env={**os.environ, **known})
    except OSError as error:
        raise ResourcesError(f"{command[0]} cannot be run ({error.strerror}).") from error

    def pass_on(number: int, frame: FrameType | None) -> None:
        if number != signal.SIGINT:  # which a terminal sends to both
            process.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        return process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
