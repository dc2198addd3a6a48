"""Every way in which Ray loses a worker is told to Tune as one: it knows dead actors only, and ends the run at others.

In: nothing. Out: a context within which Tune tells its scheduler of them. Imports ray.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import RayActorError, RayTaskError


@contextmanager
def every_death_told() -> Iterator[None]:
    """Have a worker that was killed for memory, or lost with its node, be an error of its trial."""
    before = RayActorManager._actor_task_failed

    def failed(self: Any, tracked_actor_task: Any, exception: Exception) -> None:  # called by these names
        before(self, tracked_actor_task, as_death(exception))

    RayActorManager._actor_task_failed = failed
    try:
        yield
    finally:
        RayActorManager._actor_task_failed = before


def as_death(exception: Exception) -> Exception:
    """Give what Tune knows for what it does not know, with the first line of what Ray says: pages may follow."""
    is_known: bool = isinstance(exception, (RayActorError, RayTaskError))
    said = str(exception).strip().partition("\n")[0]
    death: Exception = exception if is_known else RayActorError(error_msg=f"{type(exception).__name__}: {said}")
    return death
