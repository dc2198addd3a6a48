"""One trainer per worker: picklable recipe, one device, nothing kept from trial to trial."""

from __future__ import annotations

import contextlib
import gc
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch.nn.modules.module import register_module_forward_pre_hook

from finesweep.errors import DataError, ModelError, ResourcesError
from finesweep.events import Decision, Grid
from finesweep.training.prepare import prepare
from finesweep.training.smoke import largest_settings, smoke
from finesweep.training.transformers_trainer import TransformersTrainerFactory


def test_the_factory_can_be_sent_to_a_worker(make_spec: Any, tmp_path: Path) -> None:
    factory = TransformersTrainerFactory(make_spec(), Grid("examples", 40, 1000), tmp_path, tmp_path)
    assert pickle.loads(pickle.dumps(factory)) == factory


def test_several_gpus_are_refused(make_spec: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    spec = make_spec().model_copy(update={"resources": make_spec().resources.model_copy(update={"devices": "auto"})})
    factory = TransformersTrainerFactory(spec, Grid("examples", 40, 1000), tmp_path, tmp_path)
    with pytest.raises(ResourcesError, match=r"this process sees 2 GPUs .* CUDA_VISIBLE_DEVICES=0"):
        factory()


@pytest.mark.parametrize("changed", ["train.jsonl", "validation.jsonl", "model"])
def test_a_worker_refuses_data_and_a_model_that_have_changed(
    make_spec: Any, tmp_path: Path, data_dir: Path, tiny_bert: Path, changed: str
) -> None:
    files = {split: str(shutil.copy(data_dir / f"{split}.jsonl", tmp_path)) for split in ("train", "validation")}
    spec = make_spec(model=shutil.copytree(tiny_bert, tmp_path / "model"), data=files)
    prepared = prepare(spec, cache_dir=tmp_path / "cache")
    factory = TransformersTrainerFactory(
        spec,
        Grid("examples", 40, 1000),
        tmp_path,
        tmp_path / "cache",
        data_fingerprint=prepared.data_fingerprint,
        model_fingerprint=prepared.model_fingerprint,
    )
    factory()
    path = tmp_path / (changed if changed != "model" else "model/config.json")
    content = path.read_text()
    path.write_text(content.replace("w1", "w2") if changed != "model" else content + "\n")
    error = ModelError if changed == "model" else DataError
    with pytest.raises(error, match=rf"{changed}.* has changed since the sweep began .* under another --name\."):
        factory()
    path.write_text(content)
    factory()


def test_threads_follow_the_environment(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    try:
        bench()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


def test_trials_leave_nothing_in_memory(bench: Any, recorder: Any) -> None:
    def alive() -> tuple[int, int]:
        gc.collect()
        found = [type(thing) for thing in gc.get_objects()]
        return (
            sum(issubclass(kind, transformers.Trainer | torch.optim.Optimizer) for kind in found),
            sum(kind is torch.nn.Parameter for kind in found),
        )

    set_up = bench()
    set_up.run(number=0)
    before = alive()
    for number, stop_at in ((1, 2), (2, 5), (3, 100)):  # stopped within an epoch, and run to the end
        set_up.run(
            recorder(on_poll=lambda n, at=stop_at: Decision.STOP if n == at else Decision.CONTINUE), number=number
        )
    assert alive() == before
    assert before[0] == 0


def test_smoke_takes_the_largest_shape(make_spec: Any, tmp_path: Path) -> None:
    spec = make_spec(
        device_batch_size=8,
        parameters={
            "method": {"type": "categorical", "choices": ["feature-extraction", "full"]},
            "batch_size": {
                "by": "method",
                "full": {"type": "categorical", "choices": [8, 16]},
                "feature-extraction": {"value": 4},
            },
        },
    )
    result = smoke(spec, cache_dir=tmp_path)
    assert (result.method, result.batch_size, result.device_batch_size, result.max_length) == ("full", 16, 8, 16)
    assert result.n_trainable == result.n_parameters
    assert (result.n_train_rows, result.n_validation_rows) == (53, 19)
    assert result.train_s_per_example > 0
    assert result.eval_s_per_example > 0
    assert 0.1 < result.peak_memory_gib < 64


def test_smoke_tells_what_generating_takes_apart(make_spec: Any, tmp_path: Path, tied_llama: Path) -> None:
    generation = {"rows": 4, "max_new_tokens": 3}
    generative = {"model": tied_llama, "task": "causal-lm"}
    result = smoke(make_spec(**generative, evaluation={"generation": generation}), cache_dir=tmp_path)
    assert result.generation_s > 0 < result.eval_s_per_example
    assert smoke(make_spec(**generative), cache_dir=tmp_path).generation_s == 0


def test_smoke_tells_how_many_rows_fit_the_memory(make_spec: Any, tmp_path: Path) -> None:
    with a_device_of(most_rows=8):
        result = smoke(make_spec(parameters=BATCHES), cache_dir=tmp_path)
    assert (result.batch_size, result.device_batch_size) == (32, 8)


def test_smoke_tells_that_no_row_fits_the_memory(make_spec: Any, tmp_path: Path) -> None:
    with a_device_of(most_rows=0), pytest.raises(ResourcesError, match=r"^out of memory: a single row .*max_length"):
        smoke(make_spec(parameters=BATCHES), cache_dir=tmp_path)


BATCHES = {"batch_size": {"type": "categorical", "choices": [8, 32]}}


@contextlib.contextmanager
def a_device_of(most_rows: int) -> Iterator[None]:
    def fill_memory(module: torch.nn.Module, args: tuple[Any, ...]) -> None:
        if module.training and isinstance(module, torch.nn.Embedding) and len(args[0]) > most_rows:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    handle = register_module_forward_pre_hook(fill_memory)
    try:
        yield
    finally:
        handle.remove()


def test_smoke_names_a_length_that_the_model_has_no_positions_for(make_spec: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.max_length: 33 tokens are more than .*\(32\)"):
        smoke(make_spec(data={"max_length": 33}), cache_dir=tmp_path)


@pytest.mark.parametrize("method", ["full", "lora", "feature-extraction"])
@pytest.mark.parametrize("task", ["classification", "multi-label-classification", "regression", "causal-lm"])
def test_smoke_of_every_task_and_method(
    make_spec: Any, tmp_path: Path, tied_llama: Path, task: str, method: str
) -> None:
    options = {"model": tied_llama, "unfrozen_layers": 1} if task == "causal-lm" else {}
    result = smoke(make_spec(task=task, method=method, batch_size=4, **options), cache_dir=tmp_path)
    assert (result.method, result.batch_size) == (method, 4)
    assert 0 < result.n_trainable <= result.n_parameters
    assert (result.n_trainable == result.n_parameters) == (method == "full")


@pytest.mark.parametrize(
    ("choices", "most"),
    [
        (["feature-extraction", "lora", "full"], {"method": "full", "lora_rank": 64}),
        (["feature-extraction", "lora"], {"method": "lora", "lora_rank": 64}),
        (["feature-extraction"], {"method": "feature-extraction", "lora_rank": 64}),
    ],
)
def test_the_largest_shape_is_of_the_method_that_takes_most(
    make_spec: Any, choices: list[str], most: dict[str, Any]
) -> None:
    rank = {"type": "categorical", "choices": [8, 64, 16]}
    spec = make_spec(parameters={"method": {"type": "categorical", "choices": choices}, "lora_rank": rank})
    assert largest_settings(spec) == most


def test_smoke_of_a_generative_model(make_spec: Any, tmp_path: Path, tied_llama: Path) -> None:
    objective = {"metric": "loss", "direction": "minimize"}
    parameters = {"unfrozen_layers": {"type": "int", "low": 1, "high": 2}}
    spec = make_spec(
        model=tied_llama, task="causal-lm", objective=objective, parameters=parameters, method="feature-extraction"
    )
    assert largest_settings(spec) == {"unfrozen_layers": 2}
    result = smoke(spec, cache_dir=tmp_path)
    assert result.method == "feature-extraction"
    assert result.n_trainable < result.n_parameters
