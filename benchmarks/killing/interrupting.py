"""Death of this process at a chosen write to the database: within a transaction, before its commit, or after it."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from itertools import count
from typing import Any

MOMENTS = ("within", "before", "after")
_WRITING = ("INSERT", "UPDATE", "DELETE", "CREATE")


@dataclass(frozen=True, slots=True)
class Interruption:
    """Which writing transaction of this process, counted from 0, Optuna's among them, and which moment of it."""

    transaction: int
    moment: str  # one of MOMENTS


def die_at(interruption: Interruption) -> None:
    """Have this process end itself by SIGKILL there."""
    import sqlalchemy as sa
    from sqlalchemy import event

    begun = count()

    def die_if(moment: str, number: int | None) -> None:
        if (number, moment) == (interruption.transaction, interruption.moment):
            os.kill(os.getpid(), signal.SIGKILL)

    def after_statement(connection: sa.Connection, cursor: Any, statement: str, *_: Any) -> None:
        if statement.lstrip().startswith(_WRITING) and "number" not in connection.info:
            connection.info["number"] = next(begun)
            die_if("within", connection.info["number"])

    def before_commit(connection: sa.Connection) -> None:
        die_if("before", connection.info.get("number"))

    def after_commit(_: Any, record: Any) -> None:
        die_if("after", record.info.pop("number", None))

    event.listen(sa.Engine, "after_cursor_execute", after_statement)
    event.listen(sa.Engine, "commit", before_commit)
    event.listen(sa.pool.Pool, "checkin", after_commit)
