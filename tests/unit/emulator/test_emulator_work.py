"""A job as it is trained: where it reports, and as which sweep; faults by chance."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finesweep.emulator.faults import KINDS, Faults
from finesweep.emulator.objects import Hyperparameters
from finesweep.emulator.reports import metrics_of, step_of, tokens_of
from finesweep.emulator.settings import settled
from finesweep.emulator.worker import Work, grid_of, sweep_of


def work(**fields: Any) -> Work:
    return Work(
        **{
            "model": "/models/tiny",
            "train": "/files/train.jsonl",
            "validation": "/files/validation.jsonl",
            "keys": ("prompt", "completion"),
            "n_rows": 60,
            "n_epochs": 3,
            "batch_size": 4,
            "learning_rate": 2e-5,
            "seed": 1,
            "attempt": 1,
            "folder": "/work/job",
            "max_length": 128,
            "device_batch_size": 4,
            "n_reports": 10,
            **fields,
        }
    )


@given(
    n_rows=st.integers(10, 5000),
    n_epochs=st.integers(1, 50),
    batch_size=st.integers(1, 256),
    n_reports=st.integers(1, 40),
)
def test_a_job_reports_about_as_often_as_wanted(n_rows: int, n_epochs: int, batch_size: int, n_reports: int) -> None:
    grid = grid_of(work(n_rows=n_rows, n_epochs=n_epochs, batch_size=batch_size, n_reports=n_reports))
    assert (grid.unit, grid.longest) == ("examples", n_rows * n_epochs)
    assert grid.every >= batch_size
    n_made = grid.longest // grid.every
    assert n_made <= 2 * n_reports
    if grid.every > batch_size:
        assert n_made >= min(n_reports, n_epochs) / 2


@pytest.mark.parametrize(
    ("n_rows", "n_epochs", "every"),
    [
        (60, 3, 20),  # three reports an epoch
        (60, 1, 6),
        (60, 10, 60),
        (60, 30, 180),  # every third epoch
        (61, 3, 21),  # cannot be divided
        (100, 3, 25),  # four rather than three
    ],
)
def test_epochs_end_on_reports_where_rows_can_be_divided(n_rows: int, n_epochs: int, every: int) -> None:
    assert grid_of(work(n_rows=n_rows, n_epochs=n_epochs)).every == every


def test_a_job_is_trained_as_a_sweep_of_one_trial() -> None:
    spec = sweep_of(work(batch_size=6))
    training = spec.training
    assert (training.method, training.batch_size, training.device_batch_size, training.epochs) == ("full", 6, 3, 3)
    assert (training.learning_rate, training.seed, spec.budget.trials) == (2e-5, 1, 1)
    assert (spec.data.format, spec.data.train, spec.data.validation) == (
        "prompt-completion",
        "/files/train.jsonl",
        "/files/validation.jsonl",
    )
    chat = sweep_of(work(keys=("messages",), validation=None))
    assert (chat.data.format, chat.data.validation, chat.data.max_validation_rows) == (
        "messages",
        "/files/train.jsonl",
        1,
    )


FACTS = {
    "examples_per_epoch": 12,
    "optimizer_steps": 6,
    "device_batch_size": 5,
    "accumulation": 1,
    "tokens_per_epoch": 90,
}


def test_steps_and_tokens_of_epochs_that_end_in_smaller_batches() -> None:
    assert [step_of(seen, FACTS) for seen in (5, 10, 12, 17, 22, 24)] == [1, 2, 3, 4, 5, 6]
    assert [tokens_of(FACTS, seen) for seen in (0, 12, 18)] == [0, 90, 135]
    assert tokens_of({}, 12) == 0


def test_metrics_in_the_protocols_words() -> None:
    told = {"train_loss": 3.0, "loss": float("inf"), "token_accuracy": 0.5}
    assert metrics_of(told, 4, has_validation=False) == {"step": 4.0, "train_loss": 3.0}
    assert metrics_of(told, 4, has_validation=True) == {
        "step": 4.0,
        "train_loss": 3.0,
        "valid_loss": 1e30,
        "valid_mean_token_accuracy": 0.5,
        "full_valid_loss": 1e30,
        "full_valid_mean_token_accuracy": 0.5,
    }


@given(st.integers(10, 100_000))
def test_auto_comes_to_what_may_be_asked_for(n_rows: int) -> None:
    made = settled(Hyperparameters(), n_rows=n_rows)
    assert made.n_epochs == 3
    assert isinstance(made.batch_size, int)
    assert 1 <= made.batch_size <= 8
    asked = Hyperparameters(7, 9, 0.1)
    assert settled(asked, n_rows=n_rows) == asked


def test_faults_come_in_the_same_order_for_the_same_seed() -> None:
    def struck(seed: int) -> list[bool]:
        faults = Faults({"server_error": 0.5}, seed=seed)
        return [faults.strikes("server_error") for _ in range(50)]

    assert struck(1) == struck(1) != struck(2)


def test_a_rate_limit_comes_in_bursts() -> None:
    faults = Faults({"rate_limit": 1.0}, burst=3)
    assert faults.strikes("rate_limit")
    faults.rates["rate_limit"] = 0.0
    assert [faults.strikes("rate_limit") for _ in range(3)] == [True, True, False]
    assert faults.counts["rate_limit"] == 3


def test_what_is_not_switched_on_never_strikes() -> None:
    faults = Faults()
    assert not any(faults.strikes(kind) for kind in KINDS for _ in range(20))
