"""A place where a job is trained: a thread that waits for jobs, and the process that trains them.

In: jobs, one after another. Out: what the process says of each, until it is over or the process has died.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from finesweep.emulator.objects import Job
from finesweep.emulator.settings import Settings
from finesweep.emulator.worker import Work, work_forever

CONTINUE, STOP, PAUSE = 0, 1, 2  # as worker.DECISIONS has them
_PAUSES_WITHIN_S = 15.0  # a job that is told to


class Takes(Protocol):
    """Gives jobs to slots and takes what comes of them. Called from the slots' threads."""

    def next_work(self, slot: Slot) -> tuple[Job, Work] | None: ...

    def tell(self, job: Job, told: Mapping[str, Any], facts: Mapping[str, Any]) -> None: ...

    def keep(self, job: Job, step: int, weights: Path) -> None: ...

    def end(self, job: Job, kind: str, said: str | None, facts: Mapping[str, Any], examples_seen: int) -> None: ...

    def fail(self, job: Job, message: str) -> None: ...

    def lost(self, job: Job, code: int | None) -> None: ...


class Slot:
    """A thread that waits for jobs, and the process that trains them."""

    def __init__(self, jobs: Takes, place: int, *, settings: Settings, cache_dir: Path) -> None:
        self._jobs, self._settings, self._cache_dir = jobs, settings, cache_dir
        self._context = multiprocessing.get_context("forkserver")  # forks of a process that has imported what they need
        self._context.set_forkserver_preload(["finesweep.training.transformers_trainer"])
        self.control: Any = self._context.RawValue("i", CONTINUE)
        self.thread = threading.Thread(target=self._serve, name=f"slot-{place}", daemon=True)
        self._process: Any = None
        self._connection: Any = None

    def _serve(self) -> None:
        while (taken := self._jobs.next_work(self)) is not None:
            job, work = taken
            try:
                self._train(job, work)
            except _ProcessDiedError:
                self._kill()
                self._jobs.lost(job, self._process.exitcode)
            except Exception as error:  # of the server itself, as a full disk: the process knows nothing of it
                self._kill()
                self._jobs.fail(job, f"the server could not go on with it: {error}")
        self._end_process()

    def _train(self, job: Job, work: Work) -> None:
        if self._process is None or not self._process.is_alive():
            self._begin_process()
        with _noticing_death():
            self._connection.send(work)
        facts: dict[str, Any] = {}
        examples_seen = 0
        while True:
            with _noticing_death():
                kind, said = self._connection.recv()
            if kind == "facts":
                facts |= said
            elif kind == "report":
                examples_seen = said["examples_seen"]
                self._jobs.tell(job, said, facts)
            elif kind == "checkpoint":
                self._jobs.keep(job, said["step"], Path(said["path"]))
            else:
                self._jobs.end(job, kind, said, facts, examples_seen)
                return

    def _begin_process(self) -> None:
        settings = self._settings
        threads = settings.threads or max(1, (os.cpu_count() or 1) // settings.parallel)
        self._connection, theirs = self._context.Pipe()
        self._process = self._context.Process(
            target=work_forever,
            args=(theirs, self.control),
            kwargs={"threads": threads, "cache_dir": str(self._cache_dir)},
            daemon=True,
        )
        self._process.start()
        theirs.close()

    def close(self) -> None:
        """Wait until the thread has ended; a process that is still training by then is killed."""
        self.thread.join(timeout=_PAUSES_WITHIN_S)
        if self.thread.is_alive() and self._process is not None:
            self._process.kill()
            self.thread.join()

    def _end_process(self) -> None:
        """Have the process end by itself, which leaves nothing behind."""
        if self._process is None:
            return
        self._connection.close()
        self._process.join(timeout=_PAUSES_WITHIN_S)
        self._kill()

    def _kill(self) -> None:
        self._process.kill()
        self._process.join()


class _ProcessDiedError(Exception):
    """What was sent to a process, or awaited from it, did not get through."""


@contextmanager
def _noticing_death() -> Iterator[None]:
    try:
        yield
    except (EOFError, OSError) as error:
        raise _ProcessDiedError from error
