"""How a batch is split, and what is remembered of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finesweep.errors import ResourcesError
from finesweep.spec.sweep import TrainingSpec
from finesweep.training.memory import Fitting, with_smaller_batch


@given(batch_size=st.integers(1, 200))
def test_batches_shrink_over_divisors_to_one_row(batch_size: int) -> None:
    settings = TrainingSpec(batch_size=batch_size)
    n_rows = batch_size
    while n_rows > 1:
        settings = with_smaller_batch(settings, max_length=16)
        assert settings.device_batch_size is not None
        assert batch_size % settings.device_batch_size == 0
        assert settings.device_batch_size <= n_rows // 2
        assert not any(batch_size % n == 0 for n in range(settings.device_batch_size + 1, n_rows // 2 + 1))
        n_rows = settings.device_batch_size
    with pytest.raises(ResourcesError, match=r"single row of up to 16 tokens .* method full"):
        with_smaller_batch(settings, max_length=16)


def test_the_smallest_that_was_noted_counts(tmp_path: Path) -> None:
    fitting = Fitting.of_sweep(tmp_path)
    for n_rows in (8, 4, 6):
        fitting.note(TrainingSpec(batch_size=24, device_batch_size=n_rows), device="cpu")
    settled = fitting.settle(TrainingSpec(batch_size=32), device="cpu")
    assert settled.device_batch_size == 4
    assert fitting.settle(TrainingSpec(batch_size=32, device_batch_size=2), device="cpu").device_batch_size == 2
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".json"] == ["fitting.json"]


def test_evaluations_are_remembered_apart_from_training(tmp_path: Path) -> None:
    fitting, settings = Fitting.of_sweep(tmp_path), TrainingSpec(batch_size=24, device_batch_size=8)
    assert fitting.settle_evaluation(settings, device="cpu", most=256) == 256
    fitting.note_evaluation(settings, device="cpu", n_rows=64)
    assert fitting.settle_evaluation(settings, device="cpu", most=256) == 64
    assert fitting.settle_evaluation(settings, device="cpu", most=32) == 32
    assert fitting.settle_evaluation(settings, device="another", most=256) == 256
    assert fitting.settle(settings, device="cpu") == settings


@pytest.mark.parametrize(
    "other",
    [
        {"method": "lora"},
        {"method": "feature-extraction"},
        {"optim": "sgd"},
        {"bf16": True},
        {"activation_checkpointing": True},
    ],
)
def test_trials_of_another_shape_are_not_lowered(tmp_path: Path, other: dict[str, object]) -> None:
    fitting = Fitting.of_sweep(tmp_path)
    fitting.note(TrainingSpec(batch_size=16, device_batch_size=4), device="cpu")
    asked = TrainingSpec.model_validate({"batch_size": 16, **other})
    assert fitting.settle(asked, device="cpu") == asked
    assert fitting.settle(TrainingSpec(batch_size=16), device="another").device_batch_size is None


def test_what_another_method_would_mean_is_no_part_of_the_shape(tmp_path: Path) -> None:
    fitting = Fitting.of_sweep(tmp_path)
    fitting.note(TrainingSpec(batch_size=16, device_batch_size=4, lora_rank=64), device="cpu")
    assert fitting.settle(TrainingSpec(batch_size=16, lora_rank=8), device="cpu").device_batch_size == 4
