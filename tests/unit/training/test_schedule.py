"""Steps, examples and report positions, without any training."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finesweep.errors import FinesweepError
from finesweep.events import Grid
from finesweep.spec.sweep import TrainingSpec
from finesweep.training.schedule import end_step, off_grid_step, plan, steps_reached


def test_partial_last_batches_count_as_they_are() -> None:
    schedule = plan(TrainingSpec(batch_size=8, epochs=2), n_rows=53)
    assert schedule.optimizer_steps == 14
    assert [schedule.examples_at(step) for step in (0, 1, 6, 7, 8, 14)] == [0, 8, 48, 53, 61, 106]


def test_a_fraction_of_an_epoch_ends_on_a_whole_step() -> None:
    schedule = plan(TrainingSpec(batch_size=8, epochs=1.5), n_rows=53)
    assert (schedule.optimizer_steps, schedule.examples_at(schedule.optimizer_steps)) == (11, 53 + 4 * 8)


def test_dropped_last_batches_are_not_counted() -> None:
    schedule = plan(TrainingSpec(batch_size=8, epochs=2), n_rows=53, drop_last=True)
    assert (schedule.optimizer_steps, schedule.examples_at(schedule.optimizer_steps)) == (12, 96)


def test_dropping_the_only_batch_is_refused() -> None:
    with pytest.raises(FinesweepError, match="53 training rows do not fill one batch of 64"):
        plan(TrainingSpec(batch_size=64), n_rows=53, drop_last=True)


def test_a_batch_is_split_over_a_small_device_only() -> None:
    split = plan(TrainingSpec(batch_size=32, device_batch_size=8), n_rows=53)
    whole = plan(TrainingSpec(batch_size=4, device_batch_size=8), n_rows=53)
    assert (split.device_batch_size, split.accumulation) == (8, 4)
    assert (whole.device_batch_size, whole.accumulation) == (4, 1)


def test_warmup_is_clamped_to_the_trial() -> None:
    schedule = plan(TrainingSpec(batch_size=32, epochs=1, warmup_steps=500), n_rows=53)
    assert (schedule.warmup_asked, schedule.warmup_steps) == (500, 2)


def test_a_step_past_several_grid_points_reaches_them_all() -> None:
    schedule = plan(TrainingSpec(batch_size=32, epochs=2), n_rows=64)
    assert steps_reached(Grid("examples", every=10, longest=128), schedule, 1) == (10, 20, 30)
    assert steps_reached(Grid("examples", every=32, longest=128), schedule, 1) == (32,)


@given(
    n_rows=st.integers(1, 300),
    batch_size=st.integers(1, 64),
    epochs=st.floats(0.1, 4),
    every=st.integers(1, 100),
    unit=st.sampled_from(["examples", "progress"]),
)
def test_reports_rise_on_the_grid_and_end_at_the_end(
    n_rows: int, batch_size: int, epochs: float, every: int, unit: str
) -> None:
    schedule = plan(TrainingSpec(batch_size=batch_size, epochs=epochs), n_rows=n_rows)
    grid = Grid(unit, every=every, longest=10_000)
    told = [step for at in range(1, schedule.optimizer_steps + 1) for step in steps_reached(grid, schedule, at)]
    end = end_step(grid, schedule)
    assert told == [every * k for k in range(1, len(told) + 1)]
    assert end == (schedule.examples_at(schedule.optimizer_steps) if unit == "examples" else 100)
    assert end - every <= (told[-1] if told else 0) < end


@given(batch_size=st.integers(1, 64), every=st.integers(1, 40), at=st.integers(1, 30))
def test_a_report_off_the_grid_comes_after_all_earlier_ones(batch_size: int, every: int, at: int) -> None:
    schedule = plan(TrainingSpec(batch_size=batch_size, epochs=30), n_rows=53)
    for unit in ("examples", "progress"):
        grid = Grid(unit, every=every, longest=10_000)
        earlier = [step for before in range(1, at) for step in steps_reached(grid, schedule, before)]
        assert off_grid_step(grid, schedule, at) > max(earlier, default=0)
