"""A device's memory runs out: the batch is split, the trial goes on, and its result is that of one that began so.

The device is a model that holds only so many rows, or tokens, at once.
"""

from __future__ import annotations

import contextlib
import json
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import transformers

from finesweep.errors import ResourcesError
from finesweep.events import Decision, Ending, Grid, TrialSpec
from finesweep.scheduling.backend import run_attempt
from finesweep.training.memory import is_out_of_memory

NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}  # whose pattern depends on the split
MORE_THAN_ALL = 1_000_000


class SmallDeviceConfig(transformers.BertConfig):
    model_type = "bert-on-a-small-device"
    most_rows = most_rows_at_once_in_evaluation = most_tokens = MORE_THAN_ALL
    is_too_large = False


class BertOnASmallDevice(transformers.BertForSequenceClassification):
    config_class = SmallDeviceConfig
    has_trained = False
    in_use: ClassVar[weakref.WeakSet[Any]] = weakref.WeakSet()

    def to(self, *args: Any, **options: Any) -> Any:
        if self.config.is_too_large:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return super().to(*args, **options)

    def forward(self, input_ids: torch.Tensor, **inputs: Any) -> Any:
        self.in_use.add(self)
        assert len(self.in_use) == 1, "the model of an earlier trial is still there"
        self.has_trained |= self.training
        most_rows = self.config.most_rows
        if self.has_trained and not self.training:
            most_rows = self.config.most_rows_at_once_in_evaluation
        if len(input_ids) > most_rows or (self.training and input_ids.numel() > self.config.most_tokens):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return super().forward(input_ids, **inputs)


transformers.AutoConfig.register(SmallDeviceConfig.model_type, SmallDeviceConfig)
transformers.AutoModelForSequenceClassification.register(SmallDeviceConfig, BertOnASmallDevice)


@pytest.fixture
def small_device(tiny_bert: Path, tmp_path: Path) -> Callable[..., Path]:
    """Return a function that makes a model whose device holds no more than its configuration says."""

    def make(**config: float) -> Path:
        folder = tmp_path / "-".join(["model", *(f"{name}-{n}" for name, n in config.items())])
        folder.mkdir()
        for file in tiny_bert.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        known = json.loads((folder / "config.json").read_text())
        known |= {"model_type": SmallDeviceConfig.model_type, **config}
        (folder / "config.json").write_text(json.dumps(known))
        return folder

    return make


def test_a_batch_that_does_not_fit_is_split_until_it_does(bench: Any, small_device: Any) -> None:
    set_up = bench(model=small_device(most_rows=4), device_batch_size=4)
    _, began_small = set_up.run(number=1, batch_size=16)
    result, told = bench(model=small_device(most_rows=5)).run(number=2, batch_size=16)
    assert result.ending is Ending.DONE
    assert (told.facts["n_oom"], told.facts["device_batch_size"], told.facts["accumulation"]) == (2, 4, 4)
    assert told.reports == began_small.reports
    assert "n_oom" not in began_small.facts


def test_the_effective_batch_holds_where_it_cannot_be_halved(bench: Any, small_device: Any) -> None:
    _, told = bench(model=small_device(most_rows=4)).run(batch_size=15)
    assert (told.facts["n_oom"], told.facts["device_batch_size"], told.facts["accumulation"]) == (2, 1, 15)
    _, told = bench(model=small_device(most_rows=6)).run(number=8, batch_size=12, method="feature-extraction")
    assert (told.facts["n_oom"], told.facts["device_batch_size"], told.facts["accumulation"]) == (1, 6, 2)


def test_what_fitted_is_remembered_for_trials_of_the_same_shape(bench: Any, small_device: Any) -> None:
    model = small_device(most_rows=4)
    bench(model=model).run(number=1, batch_size=16)
    _, other_worker = bench(model=model).run(number=2, batch_size=32, learning_rate=1e-4)
    assert (other_worker.facts["device_batch_size"], other_worker.facts["accumulation"]) == (4, 8)
    assert "n_oom" not in other_worker.facts
    _, lower_divisor = bench(model=model).run(number=3, batch_size=9)
    assert (lower_divisor.facts["device_batch_size"], "n_oom" in lower_divisor.facts) == (3, False)
    _, other_shape = bench(model=model, method="feature-extraction").run(number=4, batch_size=16)
    assert other_shape.facts["n_oom"] == 2


def test_a_batch_that_fits_is_left_alone(bench: Any, small_device: Any) -> None:
    set_up = bench(model=small_device(most_rows=16))
    _, told = set_up.run(batch_size=16)
    assert (told.facts["device_batch_size"], "n_oom" in told.facts) == (16, False)
    assert not (set_up.artifact_dir / "fitting.json").exists()


def test_a_row_that_does_not_fit_fails_its_trial_and_no_other(bench: Any, recorder: Any, small_device: Any) -> None:
    set_up = bench(model=small_device(most_rows=0))
    result = run_attempt(set_up.trainer, TrialSpec(1, 1, {"batch_size": 8}), recorder(), log=contextlib.nullcontext())
    assert result.ending is Ending.FAILED
    assert result.reason is not None
    assert result.reason.startswith("out of memory: a single row of up to 16 tokens does not fit the device")
    after, _ = bench().run(number=2)
    assert after.ending is Ending.DONE


def test_a_model_that_does_not_fit_is_told_at_once(bench: Any, recorder: Any, small_device: Any) -> None:
    told = recorder()
    with pytest.raises(ResourcesError, match=r"^out of memory: the model alone does not fit .* model\.dtype"):
        bench(model=small_device(is_too_large=True)).run(told)
    assert "n_oom" not in told.facts


def test_memory_that_runs_out_later_costs_what_came_after_the_last_checkpoint(
    bench: Any, recorder: Any, small_device: Any, tmp_path: Path
) -> None:
    """The first 40 rows are short and fit, those after them do not."""
    rows = [{"text": " ".join(["w1"] * (3 if i < 40 else 12)), "label": "ab"[i % 2]} for i in range(60)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    trial = {"batch_size": 8, "epochs": 2}
    options = {
        "data": {"train": str(path), "validation": str(path)},
        "grid": Grid("examples", every=16, longest=200),
        "checkpoint_minutes": 0,
        "train_sampling_strategy": "sequential",
    }
    _, unbroken = bench(model=small_device(**NO_DROPOUT), **options).run(number=1, **trial)
    told = recorder()
    log = contextlib.nullcontext()
    set_up = bench(model=small_device(most_tokens=8 * 3, **NO_DROPOUT), **options)
    result = run_attempt(set_up.trainer, TrialSpec(2, 1, trial), told, log=log)
    assert result.ending is Ending.DONE
    assert told.facts["resumed_from"] == "trial-0002/attempt-1/checkpoint-4"
    assert (told.facts["n_oom"], told.facts["device_batch_size"]) == (2, 2)
    assert told.steps == unbroken.steps  # each once
    for report, expected in zip(told.reports, unbroken.reports, strict=True):
        assert report.metrics == pytest.approx(expected.metrics, abs=1e-4)


def test_a_trial_told_to_stop_after_memory_ran_out_stops(bench: Any, recorder: Any, small_device: Any) -> None:
    told = recorder(decide=lambda report: Decision.STOP if report.step >= 80 else Decision.CONTINUE)
    result, _ = bench(model=small_device(most_rows=4)).run(told, batch_size=16)
    assert (result.ending, told.steps) == (Ending.STOPPED, [40, 80])


def test_evaluation_is_split_without_a_new_start(bench: Any, small_device: Any) -> None:
    _, whole = bench().run(number=1, batch_size=8)
    _, told = bench(model=small_device(most_rows_at_once_in_evaluation=8)).run(number=2, batch_size=8)
    assert (told.facts["eval_batch_size"], whole.facts["eval_batch_size"]) == (8, 32)
    assert (told.facts["device_batch_size"], "n_oom" in told.facts) == (8, False)
    for report, expected in zip(told.reports, whole.reports, strict=True):
        assert report.metrics == pytest.approx(expected.metrics, abs=1e-6)


def test_what_fitted_in_evaluation_is_where_later_trials_of_the_shape_begin(
    bench: Any, small_device: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="finesweep")
    set_up = bench(model=small_device(most_rows_at_once_in_evaluation=8))
    set_up.run(number=1, batch_size=8)
    assert "evaluating 8 rows at once" in caplog.text
    caplog.clear()
    _, later = set_up.run(number=2, batch_size=8)
    assert later.facts["eval_batch_size"] == 8
    assert "rows at once" not in caplog.text
    _, other_shape = set_up.run(number=3, batch_size=8, optim="sgd")
    assert other_shape.facts["eval_batch_size"] == 8
    assert "evaluating 8 rows at once" in caplog.text


def test_an_evaluation_of_which_no_row_fits_is_told(bench: Any, small_device: Any) -> None:
    with pytest.raises(ResourcesError, match=r"^out of memory: a single validation row .*data\.max_length"):
        bench(model=small_device(most_rows_at_once_in_evaluation=0)).run(batch_size=8)


def test_the_cpus_own_allocator_is_understood() -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**60)
    assert is_out_of_memory(raised.value)
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("out of memory"))
