"""Version 2: why a sweep's last drive ended early, and how large what a trial keeps is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

if TYPE_CHECKING:
    from alembic.operations import Operations


def upgrade(op: Operations) -> None:
    """Add sweeps.end_reason and artifacts.n_bytes; neither is known of what is there."""
    op.add_column("finesweep_sweeps", sa.Column("end_reason", sa.Text))
    op.add_column("finesweep_artifacts", sa.Column("n_bytes", sa.BigInteger))
