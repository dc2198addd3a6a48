"""What the composition root refuses before anything is begun."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from finesweep.errors import ResourcesError
from finesweep.spec.sweep import SweepSpec
from finesweep.sweeps import slots_here
from finesweep.views.live import PlainView

TIMED = {"train_seconds": "minimize"}


def test_time_is_no_objective_where_trials_share_the_cpu(
    make_spec: Callable[..., SweepSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`devices: auto` may mean the CPU, which only the box itself can tell."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(4)), raising=False)
    view = PlainView(lambda line: None)
    with pytest.raises(
        ResourcesError, match=r"there is no GPU here, and 4 trials would share the CPU.*max_parallel to 1"
    ):
        slots_here(make_spec(others=TIMED), view)
    alone = slots_here(make_spec(others=TIMED, resources={"max_parallel": 1}), view)
    assert alone is not None
    assert alone.n_slots == 1
    others = slots_here(make_spec(others={"model_mib": "minimize"}), view)
    assert others is not None
    assert others.n_slots == 4
