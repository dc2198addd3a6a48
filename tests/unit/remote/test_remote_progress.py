"""Where a job is, in examples, and whether it is trained as it was asked to be."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finesweep.remote.answers import Job, Metrics
from finesweep.remote.progress import Schedule, is_heeded, is_whole, restated, schedule_of, words_of
from finesweep.spec.sweep import RemoteTraining


def job(**made: float) -> Job:
    return Job("j", "m", "running", None, {}, made, None, None, "")


def at(step: int, n_steps: int | None = None, **values: float) -> Metrics:
    return Metrics(step, values, n_steps)


def test_epochs_that_end_in_smaller_batches() -> None:
    schedule = Schedule(n_rows=12, n_epochs=2, batch_size=5)  # 5, 5, 2 twice
    assert [schedule.examples_at(at(step)) for step in range(1, 7)] == [4, 8, 12, 16, 20, 24]


def test_the_servers_own_count_of_steps_goes_before_ours() -> None:
    schedule = Schedule(n_rows=12, n_epochs=2, batch_size=5)
    assert schedule.examples_at(at(4, 4)) == 24  # it leaves smaller batches out
    assert schedule.examples_at(at(2, 4)) == 12


@given(st.integers(10, 500), st.integers(1, 50), st.integers(1, 256), st.one_of(st.none(), st.integers(1, 3000)))
def test_examples_rise_to_the_end_and_not_beyond(n_rows: int, n_epochs: int, batch: int, told: int | None) -> None:
    schedule = Schedule(n_rows, n_epochs, batch)
    last = told or schedule._n_steps() or 0
    seen = [schedule.examples_at(at(step, told)) or 0 for step in range(1, last + 1)]
    assert seen == sorted(seen)
    assert seen[-1] == schedule.total_examples == n_rows * n_epochs
    assert all(examples < n_rows * n_epochs for examples in seen[:-1] if last <= n_rows * n_epochs)


def test_where_epochs_are_not_known_nothing_is_until_the_end() -> None:
    schedule = Schedule(n_rows=12, n_epochs=None, batch_size=4)
    assert schedule.examples_at(at(3)) is None
    ended = schedule.ending_at(at(6))
    assert [ended.examples_at(at(step)) for step in (3, 6)] == [12, 24]
    nothing = Schedule(n_rows=12, n_epochs=None, batch_size=None)
    assert nothing.ending_at(at(6)).examples_at(at(6)) is None


def test_without_a_batch_size_the_servers_count_is_enough() -> None:
    schedule = Schedule(n_rows=12, n_epochs=2, batch_size=None)
    assert schedule.examples_at(at(3)) is None
    assert schedule.examples_at(at(3, 6)) == 12


@pytest.mark.parametrize(
    ("made", "asked", "found"),
    [
        ({}, {"n_epochs": 3, "batch_size": 8}, (3, 8)),
        ({"n_epochs": 4}, {"n_epochs": "auto", "batch_size": 8}, (4, 8)),
        ({"n_epochs": 4, "batch_size": 2}, {"n_epochs": 3}, (4, 2)),
        ({"n_epochs": 3.0, "batch_size": 8.0}, {}, (3, 8)),
        ({}, {}, (None, None)),
    ],
)
def test_what_is_told_goes_before_what_was_asked(made: Any, asked: Any, found: Any) -> None:
    schedule = schedule_of(job(**made), RemoteTraining(**asked), n_rows=12)
    assert (schedule.n_epochs, schedule.batch_size) == found


@pytest.mark.parametrize(
    ("made", "asked", "heeded"),
    [
        ({"n_epochs": 3, "batch_size": 1}, {"n_epochs": 5, "learning_rate_multiplier": 2.0}, False),
        ({"n_epochs": 3, "learning_rate_multiplier": 1.0}, {"n_epochs": 5, "learning_rate_multiplier": 2.0}, False),
        ({"n_epochs": 5, "learning_rate_multiplier": 1.0}, {"n_epochs": 5, "learning_rate_multiplier": 2.0}, True),
        ({"learning_rate_multiplier": 0.3333}, {"learning_rate_multiplier": 1 / 3}, True),  # rounded
        ({"batch_size": 12}, {"batch_size": 256}, True),  # there are not more rows
        ({"batch_size": 16}, {"batch_size": 4}, False),
        ({"n_epochs": 3}, {}, True),
        ({}, {"n_epochs": 5}, True),  # it does not tell
    ],
)
def test_servers_that_do_not_heed_what_they_are_asked(made: Any, asked: Any, heeded: bool) -> None:
    assert is_heeded(job(**made), RemoteTraining(**asked)) is heeded


@pytest.mark.parametrize(
    ("points", "whole"),
    [([], False), ([at(3, 6)], False), ([at(3, 6), at(6, 6)], True), ([at(3)], True)],
)
def test_whether_all_is_told(points: list[Metrics], whole: bool) -> None:
    assert is_whole(points) is whole


def test_metrics_in_a_local_sweeps_words() -> None:
    first, second = restated([at(1, 2, train_loss=3.0, valid_loss=2.0), at(2, full_valid_loss=1.0)])
    assert first == at(1, 2, train_loss=3.0, valid_loss=2.0)
    assert second == at(2, 2, train_loss=3.0, loss=1.0)
    assert words_of("loss") == ("loss", "full_valid_loss")
    assert words_of("token_accuracy") == ("token_accuracy", "full_valid_mean_token_accuracy")
    assert words_of("valid_loss") == ("valid_loss",)
