"""What Tune is told of workers that Ray has lost."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from ray.exceptions import ActorDiedError, NodeDiedError, OutOfMemoryError, RayActorError

from finesweep.scheduling.ray_deaths import as_death, every_death_told

# isort: split
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.air.execution._internal.tracked_actor import TrackedActor
from ray.air.execution._internal.tracked_actor_task import TrackedActorTask


@pytest.mark.parametrize(
    "lost", [OutOfMemoryError("2 workers were killed\nOOM kill reason: ..."), NodeDiedError("gone")]
)
def test_what_tune_would_end_the_run_at_is_a_dead_worker(lost: Exception) -> None:
    death = as_death(lost)
    assert isinstance(death, RayActorError)
    assert "\n" not in str(death)
    assert str(lost).partition("\n")[0] in str(death)


def test_a_death_that_tune_knows_stays_what_it_is() -> None:
    death = ActorDiedError()
    assert as_death(death) is death


def test_tune_tells_of_a_worker_killed_for_memory_and_is_left_as_it_was() -> None:
    before = RayActorManager._actor_task_failed
    told: list[Exception] = []
    manager = SimpleNamespace(_failed_actor_ids=set(), _cleanup_actor=lambda tracked_actor: None)
    task = TrackedActorTask(TrackedActor(1), on_error=lambda _, error: told.append(error))
    with every_death_told():
        RayActorManager._actor_task_failed(manager, tracked_actor_task=task, exception=OutOfMemoryError("killed"))
    assert [type(error) for error in told] == [RayActorError]
    assert RayActorManager._actor_task_failed is before
