"""Each attempt's log: what its trainer printed and logged, in the trial's artifact folder."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from pathlib import Path

from finesweep.events import TrialSpec
from finesweep.layout import log_path


@contextlib.contextmanager
def capture_log(artifact_dir: Path, trial: TrialSpec, *, redirect: bool) -> Iterator[None]:
    """Add this process's log records to the trial's log while an attempt runs; with `redirect`, its output too.

    For a process that runs one attempt at a time.
    """
    path = log_path(artifact_dir, trial.number)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8", buffering=1) as file:
        began = time.strftime("%Y-%m-%d %H:%M:%S")
        file.write(f"--- trial {trial.number}, attempt {trial.attempt}, {began}: {dict(trial.configuration)}\n")
        handler = logging.StreamHandler(file)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        root = logging.getLogger()
        logging.getLogger("finesweep").setLevel(logging.INFO)  # what a trainer says of its reports
        root.addHandler(handler)
        try:
            with contextlib.ExitStack() as stack:
                if redirect:
                    stack.enter_context(contextlib.redirect_stdout(file))
                    stack.enter_context(contextlib.redirect_stderr(file))
                yield
        finally:
            root.removeHandler(handler)
