"""What the jobs of a sweep and of its verifications may still take of one budget.

In: a sweep, the folders of it and of its verifications. Out: tokens. It must not know servers.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from finesweep.remote.ledger import Ledger, token_limit
from finesweep.spec.sweep import RemoteSweep

FOLDER = "remote"  # of a sweep's folder: what its trials share


def budget_tokens(spec: RemoteSweep) -> int | None:
    """Tell the most tokens that a sweep's jobs may take; None where there is no limit."""
    return token_limit(spec.budget.tokens, spec.budget.money, spec.remote.price_per_million)


def tokens_left(spec: RemoteSweep, artifact_dirs: Iterable[Path]) -> int | None:
    """Tell what is left of a sweep's budget beside all that jobs took or may take; None where there is no limit."""
    limit = budget_tokens(spec)
    if limit is None:
        return None
    spent = [Ledger(folder / FOLDER).spent() for folder in artifact_dirs if (folder / FOLDER).is_dir()]
    return max(0, limit - sum(one.settled + one.reserved for one in spent))


def hand_on(from_dir: Path, to_dir: Path) -> None:
    """Let a sweep of the same rows begin with what is known of an epoch of them."""
    if (from_dir / FOLDER).is_dir():
        Ledger(to_dir / FOLDER).expect(Ledger(from_dir / FOLDER).per_epoch())
