"""What a sweep does about its jobs before its trials are handed out, and when it is deleted.

In: a sweep, what its jobs are found by. Out: a ledger that holds all of them, and no job that nobody waits for.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from pathlib import Path

from finesweep.layout import remote_dir
from finesweep.remote.ledger import Ledger, ledger_key
from finesweep.remote.outcome import settle, whole_epochs
from finesweep.remote.server import TRIAL, make_server
from finesweep.spec.protocol import MOST_EPOCHS
from finesweep.spec.sweep import RemoteSweep


def tidy(spec: RemoteSweep, artifact_dir: Path, *, uid: str, wanted: Collection[int], most_per_epoch: int) -> list[str]:
    """Enter a sweep's jobs into its ledger, and cancel those that run and are of no trial in `wanted`. Give their ids.

    `most_per_epoch` is the most tokens that an epoch can have. Raises RemoteError or ServerAwayError.
    """
    folder = remote_dir(artifact_dir)
    server = make_server(spec.remote, uid=uid, folder=folder, sleep=time.sleep)
    ledger, cancelled, going_on = Ledger(folder), [], []
    for job in server.jobs():
        if not job.is_over:
            ledger.reserve(
                job.id, n_epochs=whole_epochs(job) or MOST_EPOCHS, most_per_epoch=most_per_epoch, must=True
            )  # before it is cancelled: some servers never tell what it took
            if job.metadata.get(TRIAL) in {str(number) for number in wanted}:
                going_on.append(job.id)
                continue
            job = server.cancel(job.id)
            cancelled.append(job.id)
        settle(ledger, job)
    ledger.forget_all_but([*going_on, *(ledger_key(number) for number in wanted)])
    return cancelled
