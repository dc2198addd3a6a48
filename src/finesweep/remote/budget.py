"""What the jobs of a sweep and of its verifications may take of one budget.

In: a sweep, the folders of it and of its verifications. Out: tokens, limits in ledgers. It must not know servers.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from finesweep.layout import remote_dir
from finesweep.remote.ledger import Ledger, token_limit
from finesweep.spec.sweep import RemoteSweep


def budget_tokens(spec: RemoteSweep) -> int | None:
    """Tell the most tokens that a sweep's jobs may take; None where there is no limit."""
    return token_limit(spec.budget.tokens, spec.budget.money, spec.remote.price_per_million)


def tokens_left(spec: RemoteSweep, artifact_dirs: Iterable[Path]) -> int | None:
    """Tell what is left of a sweep's budget beside all that jobs took or may take; None where there is no limit."""
    limit = budget_tokens(spec)
    if limit is None:
        return None
    spent = [Ledger(folder).spent() for folder in map(remote_dir, artifact_dirs) if folder.is_dir()]
    return max(0, limit - sum(one.settled + one.reserved for one in spent))


def hand_on(from_dir: Path, to_dir: Path) -> None:
    """Let a sweep of the same rows begin with what is known of an epoch of them."""
    if remote_dir(from_dir).is_dir():
        Ledger(remote_dir(to_dir)).expect(Ledger(remote_dir(from_dir)).per_epoch())


def allow(spec: RemoteSweep, artifact_dir: Path) -> None:
    """Let the sweep's jobs take what its budget holds; workers that run heed it from now on."""
    Ledger(remote_dir(artifact_dir)).allow(budget_tokens(spec))


def may_run(artifact_dir: Path) -> bool:
    """Tell whether jobs of a sweep may run still, by its ledger."""
    return Ledger(remote_dir(artifact_dir)).has_open()
