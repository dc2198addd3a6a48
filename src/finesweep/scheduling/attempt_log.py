"""Each attempt's log: what its trainer printed and logged, in the trial's artifact folder."""

from __future__ import annotations

import contextlib
import io
import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from finesweep.events import TrialSpec
from finesweep.layout import log_path
from finesweep.secrets import hide


@contextlib.contextmanager
def capture_logs(artifact_dir: Path, trials: Sequence[TrialSpec], *, redirect: bool) -> Iterator[None]:
    """Add this process's log records to the trials' logs while attempts run; with `redirect`, its output too.

    Of trials that run together each has all of it, but for records of one trial alone: those that were logged with
    `extra={"trial": number}`. For a process that runs one assignment at a time.
    """
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(_open(artifact_dir, trial)) for trial in trials]
        logging.getLogger("finesweep").setLevel(logging.INFO)  # what a trainer says of its reports
        for trial, file in zip(trials, files, strict=True):
            stack.enter_context(_records(file, trial.number))
        if redirect:
            output = files[0] if len(files) == 1 else _Copies(files)
            stack.enter_context(contextlib.redirect_stdout(output))
            stack.enter_context(contextlib.redirect_stderr(output))
        yield


def _open(artifact_dir: Path, trial: TrialSpec) -> _Discreet:
    path = log_path(artifact_dir, trial.number)
    path.parent.mkdir(parents=True, exist_ok=True)
    file = _Discreet(path.open("a", encoding="utf-8", errors="backslashreplace", buffering=1))
    began = time.strftime("%Y-%m-%d %H:%M:%S")
    file.write(f"--- trial {trial.number}, attempt {trial.attempt}, {began}: {dict(trial.configuration)}\n")
    return file


@contextlib.contextmanager
def _records(file: io.TextIOBase, number: int) -> Iterator[None]:
    handler = logging.StreamHandler(file)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handler.addFilter(lambda record: getattr(record, "trial", number) == number)
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)


class _Discreet(io.TextIOBase):
    """Writes to a file what it is given, but for secrets."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self._file.write(hide(text))
        return len(text)

    def flush(self) -> None:
        self._file.flush()

    def fileno(self) -> int:
        return self._file.fileno()

    def close(self) -> None:
        super().close()  # which flushes
        self._file.close()


class _Copies(io.TextIOBase):
    """Writes to several files at once."""

    def __init__(self, files: Sequence[io.TextIOBase]) -> None:
        self._files = files

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        for file in self._files:
            file.write(text)
        return len(text)

    def flush(self) -> None:
        for file in self._files:
            file.flush()
