"""Jobs that nobody waits for any more: those of trials that have ended otherwise, or of a sweep that is deleted."""

from __future__ import annotations

import time
from collections.abc import Collection
from pathlib import Path

from finesweep.remote.ledger import Ledger
from finesweep.remote.server import FINAL, TRIAL, make_server
from finesweep.remote.trainer import remote_dir, sweep_uid
from finesweep.spec.sweep import RemoteSweep


def cancel_unwanted(spec: RemoteSweep, artifact_dir: Path, *, wanted: Collection[int]) -> list[str]:
    """Cancel a sweep's jobs that run and are of no trial in `wanted`. Give their ids.

    Raises RemoteError or ServerAwayError.
    """
    folder = remote_dir(artifact_dir)
    if not (folder / "sweep.json").exists():  # it never began a job
        return []
    server = make_server(spec.remote, uid=sweep_uid(artifact_dir), folder=folder, sleep=time.sleep)
    ledger = Ledger(folder, limit=None)
    cancelled = []
    for job in server.jobs():
        if job.status in FINAL or (job.metadata or {}).get(TRIAL) in {str(number) for number in wanted}:
            continue
        ended = server.cancel(job.id)
        ledger.settle(job.id, tokens=ended.trained_tokens, is_whole=False)
        cancelled.append(job.id)
    return cancelled
