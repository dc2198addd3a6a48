"""What does not fit a model is found before any weights are loaded, wherever in the space it lies."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import yaml
from safetensors.torch import load_file
from tests.commandline import invoke

from finesweep.errors import ModelError
from finesweep.spec.sweep import ModelSpec
from finesweep.training.model_files import resolve_model
from finesweep.training.models import load_model
from finesweep.training.prepare import prepare

METHODS = {"type": "categorical", "choices": ["full", "lora", "feature-extraction"]}


@pytest.mark.parametrize(
    ("parameters", "training", "message"),
    [
        (
            {},
            {"method": "lora", "lora_target_modules": "q_proj"},
            r'lora_target_modules: "q_proj": .* key, query, value',
        ),
        (
            {"lora_target_modules": {"type": "categorical", "choices": ["query", "query, valeu"]}, "method": METHODS},
            {},
            r'lora_target_modules: "query, valeu": linear module "valeu" is not in .*; did you mean "value"\?',
        ),
        ({}, {"lora_target_modules": "q_proj"}, None),  # of another method
        ({"unfrozen_layers": {"type": "int", "low": 0, "high": 4}, "method": METHODS}, {}, "4 exceeds the 3 blocks"),
        ({}, {"method": "feature-extraction", "unfrozen_layers": 4}, "unfrozen_layers: 4 exceeds the 3 blocks"),
        ({}, {"method": "feature-extraction", "unfrozen_layers": 3}, None),
        ({}, {"unfrozen_layers": 4}, None),
    ],
)
def test_the_whole_space_is_held_to_the_model(
    make_spec: Any, tmp_path: Path, parameters: Any, training: Any, message: str | None
) -> None:
    rate = {"learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2}}
    spec = make_spec(parameters={**rate, **parameters}, **training)
    if message is None:
        prepare(spec, cache_dir=tmp_path)
    else:
        with pytest.raises(ModelError, match=message):
            prepare(spec, cache_dir=tmp_path)


def test_a_head_that_is_the_embeddings(make_spec: Any, tmp_path: Path, tiny_llama: Path) -> None:
    objective = {"metric": "loss", "direction": "minimize"}
    parameters = {"unfrozen_layers": {"type": "int", "low": 0, "high": 2}}
    spec = make_spec(
        model=tiny_llama, task="causal-lm", objective=objective, parameters=parameters, method="feature-extraction"
    )
    if json.loads((tiny_llama / "config.json").read_text())["tie_word_embeddings"]:
        with pytest.raises(ModelError, match=r"Set unfrozen_layers to 1 or more, or use another method"):
            prepare(spec, cache_dir=tmp_path)
    else:
        prepare(spec, cache_dir=tmp_path)


def test_a_kind_of_attention_that_the_model_or_the_machine_lacks(make_spec: Any, tmp_path: Path) -> None:
    spec = make_spec()
    model = spec.model.model_copy(update={"attention": "flash_attention_2", "dtype": "bfloat16"})
    with pytest.raises(ModelError, match=r"Choose another model\.attention than flash_attention_2"):
        prepare(spec.model_copy(update={"model": model}), cache_dir=tmp_path)


def pickled(folder: Path, target: Path) -> Path:
    shutil.copytree(folder, target)
    torch.save(load_file(target / "model.safetensors"), target / "pytorch_model.bin")
    (target / "model.safetensors").unlink()
    return target


def test_pickles_are_not_loaded_unless_one_says_so(make_spec: Any, tmp_path: Path, tiny_bert: Path) -> None:
    folder = pickled(tiny_bert, tmp_path / "model")
    with pytest.raises(ModelError, match=r"weights in pytorch_model\.bin only\..* Set model\.allow_pickle: true"):
        prepare(make_spec(model=folder), cache_dir=tmp_path)
    options = {"task": "classification", "labels": ("a", "b"), "pad_id": 0, "seed": 0}
    with pytest.raises(ModelError, match=r"model\.allow_pickle"):
        load_model(resolve_model(ModelSpec(name=str(folder)), cache_dir=tmp_path), **options)
    trusted = resolve_model(ModelSpec(name=str(folder), allow_pickle=True), cache_dir=tmp_path)
    model, fresh = load_model(trusted, **options)
    assert fresh == {"classifier.weight", "classifier.bias"}
    before = load_file(tiny_bert / "model.safetensors")
    assert all(torch.equal(model.bert.state_dict()[name], before[name]) for name in before)


def test_safetensors_are_taken_where_there_are_both(tmp_path: Path, tiny_bert: Path) -> None:
    folder = shutil.copytree(tiny_bert, tmp_path / "model")
    (folder / "pytorch_model.bin").write_bytes(b"no pickle")
    for allow_pickle in (False, True):
        source = resolve_model(ModelSpec(name=str(folder), allow_pickle=allow_pickle), cache_dir=tmp_path)
        load_model(source, task="classification", labels=("a", "b"), pad_id=0, seed=0)


def test_a_folder_without_weights_or_with_some_missing(make_spec: Any, tmp_path: Path, tiny_bert: Path) -> None:
    folder = shutil.copytree(tiny_bert, tmp_path / "model")
    (folder / "model.safetensors").unlink()
    transformers.BertModel.from_pretrained(tiny_bert).save_pretrained(folder, max_shard_size="5KB")
    prepare(make_spec(model=folder), cache_dir=tmp_path)
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 1
    shards[-1].unlink()
    with pytest.raises(ModelError, match=rf"lacks 1 of {len(shards)} files of weights, such as {shards[-1].name}"):
        prepare(make_spec(model=folder), cache_dir=tmp_path)
    (folder / "model.safetensors.index.json").unlink()
    with pytest.raises(ModelError, match=r"has no weights: there is no model\.safetensors in"):
        prepare(make_spec(model=folder), cache_dir=tmp_path)


@pytest.fixture
def check_load(tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Return a function that writes a sweep of a model and checks it as a user would."""
    monkeypatch.setenv("FINESWEEP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    def check(model: Any, *overrides: str) -> Any:
        sweep = {
            "name": "tiny",
            "study": {
                "objective": {"metric": "loss", "direction": "minimize"},
                "parameters": {"learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2}},
            },
            "model": model,
            "task": "classification",
            "data": {split: str(data_dir / f"{split}.jsonl") for split in ("train", "validation")} | {"max_length": 16},
            "budget": {"trials": 20},
        }
        path = tmp_path / "sweep.yaml"
        path.write_text(yaml.safe_dump(sweep))
        return invoke("check", str(path), "--load", *(f"--set={override}" for override in overrides))

    return check


def test_what_is_wrong_with_a_model_is_told_by_check(check_load: Any, tiny_bert: Path, tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(b"GGUF\x03\x00\x00\x00\x10\x00")
    pickles = str(pickled(tiny_bert, tmp_path / "pickled"))
    for model, overrides, message in (
        (
            str(tiny_bert),
            ["training.method=lora", "training.lora_target_modules=q_proj"],
            'module "q_proj" is not in a',
        ),
        (str(cut), [], "Is the file whole? It has 10 bytes."),
        (pickles, [], "Set model.allow_pickle: true"),
        ("nobody/nothing", [], '"nobody/nothing" is no folder here and cannot be had from the hub'),
        ("nobody/nothing", ["model.revision=v2"], '"nobody/nothing" at revision v2 is no folder here'),
    ):
        told = check_load(model, *overrides)
        assert (told.exit_code, told.stdout) == (2, ""), model
        assert message in told.stderr
    assert check_load(pickles, "model.allow_pickle=true", "model.dtype=bfloat16").exit_code == 0
