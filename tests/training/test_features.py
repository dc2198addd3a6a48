"""A trial on stored features gives what it gives when its frozen part computes everything anew in every epoch."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tests.training.conftest import WORDS, Recorder, make_llama, write_rows

from finesweep.events import Decision, Ending, Grid
from finesweep.spec.sweep import TransformersSweep
from finesweep.training.best_weights import load_trained

TRIAL = {"batch_size": 8, "epochs": 3, "learning_rate": 5e-3, "weight_decay": 0.1, "warmup_steps": 3}
SECONDS = {"metric": "train_seconds", "direction": "minimize"}
HEAD = {"method": "feature-extraction", "unfrozen_layers": 0}

Bench = Callable[..., Any]


def make(config: transformers.PreTrainedConfig, folder: Path, tokenizer: Any) -> Path:
    torch.manual_seed(1)
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Mapping[str, Path]:
    """Random weights that are not tiny, dropout everywhere, three blocks."""
    folder, n = tmp_path_factory.mktemp("models"), len(tokenizer)
    sizes = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 24}
    of_bert = {**sizes, "vocab_size": n, "max_position_embeddings": 32, "initializer_range": 0.3, "pad_token_id": 0}
    of_distilbert = {
        "dim": 16,
        "n_layers": 3,
        "n_heads": 2,
        "hidden_dim": 24,
        "vocab_size": n,
        "seq_classif_dropout": 0.2,
    }
    return {
        "bert": make(transformers.BertConfig(**of_bert), folder / "bert", tokenizer),
        "roberta": make(transformers.RobertaConfig(**of_bert), folder / "roberta", tokenizer),
        "distilbert": make(transformers.DistilBertConfig(**of_distilbert), folder / "distilbert", tokenizer),
        "llama": make_llama(folder / "llama", tokenizer, is_tied=False, initializer_range=0.3),
    }


@pytest.fixture
def make_spec(make_spec: Any) -> Callable[..., TransformersSweep]:
    """Trials under the Trainer, for lanes do not know this setting, which is as it always is; test_stack.py holds lanes
    to such trials."""
    return partial(make_spec, use_cache=False)


def uncached(spec: TransformersSweep) -> TransformersSweep:
    return spec.model_copy(update={"resources": spec.resources.model_copy(update={"feature_cache_gib": 0.0})})


def in_doubles(spec: TransformersSweep) -> TransformersSweep:
    """No sweep file may ask for this; what loads models takes it."""
    return spec.model_copy(update={"model": spec.model.model_copy(update={"dtype": "float64"})})


def assert_equal_trials(bench: Bench, spec: TransformersSweep, trial: Mapping[str, Any], *, within: float) -> Recorder:
    """Run a trial with and without stored features; hold reports and kept weights against each other."""
    plain, cached = bench(spec=uncached(spec)), bench(spec=spec)
    expected, without = plain.run(number=1, **trial)
    result, told = cached.run(number=2, **trial)
    assert without.facts["features"] == "not cached: resources.feature_cache_gib is 0"
    assert told.facts["features"] == "cached"
    assert told.steps == without.steps
    for one, other in zip(told.reports, without.reports, strict=True):
        assert one.metrics == pytest.approx(other.metrics, abs=within, rel=0)
    for fact in ("n_trainable", "n_parameters", "optimizer_steps", "dtype", "tokens_per_epoch"):
        assert told.facts[fact] == without.facts[fact]
    kept, wanted = (
        load_file(cached.artifact_dir / end.artifacts["best"] / "trained.safetensors") for end in (result, expected)
    )
    assert kept.keys() == wanted.keys()
    for name, tensor in wanted.items():
        if not name.endswith(("k_proj.bias", "key.bias", "k_lin.bias")):  # softmax cancels it: a gradient of rounding
            torch.testing.assert_close(kept[name], tensor, rtol=0, atol=10 * within, msg=lambda m, n=name: f"{n}: {m}")
    return told


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
@pytest.mark.parametrize("layers", [0, 1, 2])
@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("bert", "classification"),
        ("bert", "multi-label-classification"),
        ("roberta", "regression"),
        ("distilbert", "classification"),
        ("llama", "classification"),
        ("llama", "causal-lm"),
    ],
)
def test_equal_in_doubles(
    bench: Bench, make_spec: Any, models: Mapping[str, Path], name: str, task: str, layers: int
) -> None:
    spec = make_spec(model=models[name], task=task, method="feature-extraction", unfrozen_layers=layers)
    assert_equal_trials(bench, in_doubles(spec), TRIAL, within=1e-9)


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize(("name", "layers"), [("bert", 0), ("bert", 1), ("roberta", 0), ("llama", 0)])
def test_equal_in_doubles_with_pooling(
    bench: Bench, make_spec: Any, models: Mapping[str, Path], name: str, layers: int, pooling: str
) -> None:
    spec = make_spec(model=models[name], method="feature-extraction", unfrozen_layers=layers, pooling=pooling)
    assert_equal_trials(bench, in_doubles(spec), TRIAL, within=1e-9)


@pytest.mark.parametrize(
    ("name", "layers", "learning_rate"),
    [("bert", 0, 1e-2), ("roberta", 0, 1e-2), ("distilbert", 0, 1e-2), ("bert", 1, 1e-3)],
)
def test_losses_equal_over_200_steps(
    bench: Bench, make_spec: Any, models: Mapping[str, Path], name: str, layers: int, learning_rate: float
) -> None:
    spec = make_spec(model=models[name], method="feature-extraction", unfrozen_layers=layers)
    grid = Grid("examples", every=400, longest=2000)
    plain, cached = bench(spec=uncached(spec), grid=grid), bench(spec=spec, grid=grid)
    trial = {"batch_size": 8, "epochs": 29, "learning_rate": learning_rate}
    (_, without), (_, told) = plain.run(number=1, **trial), cached.run(number=2, **trial)
    assert told.facts["features"] == "cached"
    assert told.facts["optimizer_steps"] == 203
    for one, other in zip(told.reports, without.reports, strict=True):
        for loss in ("loss", "train_loss"):
            assert one.metrics[loss] == pytest.approx(other.metrics[loss], abs=1e-5, rel=0)


@pytest.mark.parametrize(
    "settings",
    [
        {"device_batch_size": 2},
        {"train_sampling_strategy": "group_by_length"},
        {"dataloader_drop_last": True},
        {"gradient_checkpointing": True},
        {"unfrozen_layers": 1, "gradient_checkpointing": True},
        {"unfrozen_layers": 1, "train_sampling_strategy": "group_by_length"},
        {"label_smoothing_factor": 0.1, "dataloader_num_workers": 1},
    ],
    ids=lambda settings: ", ".join(settings),
)
def test_equal_in_every_way_to_train(bench: Bench, make_spec: Any, models: Any, settings: Mapping[str, Any]) -> None:
    spec = make_spec(model=models["roberta"], **{**HEAD, **settings})
    assert_equal_trials(bench, spec, TRIAL, within=1e-5)


@pytest.mark.parametrize("layers", [0, 1])
def test_equal_in_mixed_precision(bench: Bench, make_spec: Any, models: Any, layers: int) -> None:
    spec = make_spec(model=models["bert"], method="feature-extraction", unfrozen_layers=layers, bf16=True)
    told = assert_equal_trials(bench, spec, {**TRIAL, "learning_rate": 1e-3}, within=5e-3)
    assert told.facts["dtype"] == "bfloat16 autocast"


@pytest.mark.skipif(not hasattr(torch.backends, "fp32_precision"), reason="torch before 2.9")
def test_stored_where_transformers_has_said_how_float32_is_multiplied(
    bench: Bench, make_spec: Any, models: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `tf32: true` does on a GPU; torch tells its older setting no more then, and says so by an exception."""
    monkeypatch.setattr(torch.backends, "fp32_precision", "tf32")
    _, told = bench(spec=make_spec(model=models["bert"], **HEAD)).run(**{**TRIAL, "epochs": 1})
    assert told.facts["features"] == "cached"


def test_equal_where_dropout_goes_by_how_its_input_lies_in_memory(
    bench: Bench, make_spec: Any, models: Mapping[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it does on a GPU, where numbers that lie apart are dropped by another kernel."""

    def dropout(values: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> torch.Tensor:
        if not training or p == 0:
            return values
        kept = torch.empty(values.shape, dtype=values.dtype).bernoulli_(1 - p)
        return values * (kept if values.is_contiguous() else kept.flatten().flip(0).view_as(kept)) / (1 - p)

    monkeypatch.setattr(torch.nn.functional, "dropout", dropout)
    for options in ({"model": models["roberta"]}, {"model": models["bert"], "pooling": "cls"}):
        assert_equal_trials(bench, make_spec(**options, **HEAD), TRIAL, within=1e-5)


def test_long_rows_are_stored_in_mixed_precision(bench: Bench, make_spec: Any, tokenizer: Any, tmp_path: Path) -> None:
    """What a block gives is float32 there, and as far from itself in another batch as half precision is."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 48}
    config = transformers.BertConfig(**sizes, vocab_size=len(tokenizer), initializer_range=0.05, pad_token_id=0)
    folder, draw = make(config, tmp_path / "bert", tokenizer), random.Random(0)
    texts = [" ".join(draw.choices(WORDS, k=draw.randint(20, 120))) for _ in range(80)]
    rows = [{"text": text, "label": "ab"[i % 2]} for i, text in enumerate(texts)]
    files = {split: str(write_rows(tmp_path / f"{split}.jsonl", rows)) for split in ("train", "validation")}
    spec = make_spec(
        model=folder, data={**files, "max_length": 128}, method="feature-extraction", unfrozen_layers=1, bf16=True
    )
    assert_equal_trials(bench, spec, {**TRIAL, "epochs": 1, "learning_rate": 1e-3}, within=1e-2)


def test_pairs_of_texts(bench: Bench, make_spec: Any, models: Any, data_dir: Path, tmp_path: Path) -> None:
    """The second text's tokens are of another type, which no block but the first is told."""
    files = {}
    for split in ("train", "validation"):
        rows = [json.loads(line) for line in (data_dir / f"{split}.jsonl").read_text().splitlines()]
        pairs = [{**row, "question": " ".join(row["text"].split()[:2])} for row in rows]
        files[split] = str(write_rows(tmp_path / f"{split}.jsonl", pairs))
    for layers in (0, 1):
        spec = make_spec(
            model=models["bert"],
            data={**files, "text_pair": "question"},
            method="feature-extraction",
            unfrozen_layers=layers,
        )
        assert_equal_trials(bench, spec, TRIAL, within=1e-5)


@pytest.mark.parametrize("layers", [0, 1])
@pytest.mark.parametrize("is_stored", [(True, True), (True, False), (False, True)])
def test_resumed_equals_unbroken(
    bench: Bench, make_spec: Any, models: Any, layers: int, is_stored: tuple[bool, bool]
) -> None:
    """Also where only one of the two attempts has stored features: what is trained has the same names."""
    spec = make_spec(model=models["distilbert"], method="feature-extraction", unfrozen_layers=layers)
    benches = [bench(spec=spec if stored else uncached(spec)) for stored in is_stored]
    _, unbroken = bench(spec=spec).run(number=1, **TRIAL)
    pause = Recorder(decide=lambda report: Decision.PAUSE if report.step == 80 else Decision.CONTINUE)
    paused, before = benches[0].run(pause, number=2, attempt=1, **TRIAL)
    resumed, after = benches[1].run(number=2, attempt=2, **TRIAL)
    assert (paused.ending, resumed.ending) == (Ending.PAUSED, Ending.DONE)
    for one, other in zip([*before.reports, *after.reports], unbroken.reports, strict=True):
        assert one.step == other.step
        assert one.metrics == pytest.approx(other.metrics, abs=0 if all(is_stored) else 1e-6)


def test_a_head_is_kept_as_a_head(bench: Bench, make_spec: Any, models: Any, cache_dir: Path) -> None:
    """All parameters that the trial's model has are trained ones, yet they are not a whole model."""
    set_up = bench(spec=make_spec(model=models["roberta"], **HEAD))
    result, told = set_up.run(**TRIAL)
    folder = set_up.artifact_dir / result.artifacts["best"]
    assert all(name.startswith("classifier.") for name in load_file(folder / "trained.safetensors"))
    assert not (folder / "model.safetensors").exists()
    model = load_trained(folder, cache_dir=cache_dir).eval()
    assert told.facts["n_parameters"] == sum(p.numel() for p in model.parameters())
    total, rows = 0.0, set_up.trainer._shared.validation
    for row in rows:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([row["input_ids"]])).logits
        total += float(torch.nn.functional.cross_entropy(logits, torch.tensor([row["labels"]])))
    assert total / len(rows) == pytest.approx(min(r.metrics["loss"] for r in told.reports), rel=1e-5)


def stores(cache_dir: Path) -> set[str]:
    return {path.name for path in (cache_dir / "features").iterdir() if path.is_dir()}


@pytest.fixture
def own_cache(cache_dir: Path) -> Path:
    """The cache of the session without any stores."""
    shutil.rmtree(cache_dir / "features", ignore_errors=True)
    return cache_dir


def test_trials_workers_and_sweeps_share_a_store(bench: Bench, make_spec: Any, models: Any, own_cache: Path) -> None:
    spec = make_spec(model=models["bert"], **HEAD)
    worker = bench(spec=spec)
    _, first = worker.run(number=0, **TRIAL)
    (store,) = stores(own_cache)
    written = {path: path.stat().st_mtime_ns for path in (own_cache / "features" / store).glob("*.bin")}
    assert first.facts["feature_seconds"] > 0

    others = [make_spec(model=models["bert"], **HEAD, seed=8, lr_scheduler_type="cosine"), uncached(spec)]
    _, second = worker.run(number=1, **{**TRIAL, "learning_rate": 1e-4})
    _, of_other_sweep = bench(spec=others[0]).run(number=2, **TRIAL)
    for told in (second, of_other_sweep):
        assert told.facts["features"] == "cached"
        assert "feature_seconds" not in told.facts
    assert stores(own_cache) == {store}
    assert {path: path.stat().st_mtime_ns for path in written} == written


def test_whatever_changes_the_numbers_is_another_store(
    bench: Bench, make_spec: Any, models: Any, own_cache: Path, data_dir: Path, tmp_path: Path
) -> None:
    other_weights = shutil.copytree(models["bert"], tmp_path / "bert")
    tensors = load_file(other_weights / "model.safetensors")
    tensors["encoder.layer.1.output.dense.weight"] += 0.01
    save_file(tensors, other_weights / "model.safetensors", metadata={"format": "pt"})
    rows = [json.loads(line) for line in (data_dir / "train.jsonl").read_text().splitlines()]
    other_text = write_rows(tmp_path / "train.jsonl", [{**rows[0], "text": "w3 w4"}, *rows[1:]])
    eager = make_spec(model=models["bert"], **HEAD)
    eager = eager.model_copy(update={"model": eager.model.model_copy(update={"attention": "eager"})})

    specs = {
        "as it is": make_spec(model=models["bert"], **HEAD),
        "weights": make_spec(model=other_weights, **HEAD),
        "text": make_spec(model=models["bert"], data={"train": str(other_text)}, **HEAD),
        "length": make_spec(model=models["bert"], data={"max_length": 12}, **HEAD),
        "boundary": make_spec(model=models["bert"], method="feature-extraction", unfrozen_layers=1),
        "pooling": make_spec(model=models["bert"], **HEAD, pooling="mean"),
        "other pooling": make_spec(model=models["bert"], **HEAD, pooling="cls"),
        "precision": make_spec(model=models["bert"], **HEAD, bf16=True),
        "attention": eager,
    }
    seen: set[str] = set()
    for changed, spec in specs.items():
        _, told = bench(spec=spec).run(**{**TRIAL, "epochs": 1})
        assert told.facts["features"] == "cached", changed
        assert len(stores(own_cache) - seen) == 1, changed
        seen = stores(own_cache)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        bench(spec=specs["as it is"]).run(**{**TRIAL, "epochs": 1})
    finally:
        torch.set_float32_matmul_precision(before)
    assert len(stores(own_cache) - seen) == 1


def test_pooling_behind_the_boundary_changes_nothing_before_it(
    bench: Bench, make_spec: Any, models: Any, own_cache: Path
) -> None:
    for pooling in ("model", "mean"):
        spec = make_spec(model=models["bert"], method="feature-extraction", unfrozen_layers=1, pooling=pooling)
        bench(spec=spec).run(**{**TRIAL, "epochs": 1})
    assert len(stores(own_cache)) == 1


@pytest.mark.parametrize("damage", ["cut short", "lost", "no numbers at all"])
def test_a_damaged_store_is_built_again(
    bench: Bench, make_spec: Any, models: Any, own_cache: Path, damage: str
) -> None:
    spec = make_spec(model=models["bert"], **HEAD)
    _, first = bench(spec=spec).run(number=1, **TRIAL)
    (store,) = stores(own_cache)
    path = own_cache / "features" / store / "train.bin"
    whole = path.read_bytes()
    if damage == "cut short":
        path.write_bytes(whole[:-4])
    elif damage == "lost":
        path.unlink()
    else:
        (path.parent / "meta.json").write_text("{")
    _, second = bench(spec=spec).run(number=2, **TRIAL)
    assert second.facts["feature_seconds"] > 0
    assert path.read_bytes() == whole
    assert second.reports == first.reports


def test_a_body_of_which_the_last_block_alone_can_be_cut_off(
    bench: Bench, make_spec: Any, data_dir: Path, tmp_path: Path, tokenizer: Any
) -> None:
    """BART looks for the end-of-text token of each row, which one vector a row does not have."""
    sizes = {"encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    sizes |= {"encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "d_model": 16, "max_position_embeddings": 32}
    config = transformers.BartConfig(vocab_size=len(tokenizer), **sizes, pad_token_id=0, eos_token_id=2, init_std=0.3)
    model = make(config, tmp_path / "bart", tokenizer)
    files = {}
    for split in ("train", "validation"):
        rows = [json.loads(line) for line in (data_dir / f"{split}.jsonl").read_text().splitlines()]
        files[split] = str(write_rows(tmp_path / f"{split}.jsonl", [{**r, "text": f"{r['text']} [EOS]"} for r in rows]))
    for pooling in ("model", "mean"):
        assert_equal_trials(bench, make_spec(model=model, data=files, pooling=pooling, **HEAD), TRIAL, within=1e-5)


def test_numbers_of_another_model_are_not_used(bench: Bench, make_spec: Any, models: Any, own_cache: Path) -> None:
    spec = make_spec(model=models["bert"], **HEAD)
    _, without = bench(spec=uncached(spec)).run(number=1, **TRIAL)
    bench(spec=spec).run(number=2, **TRIAL)
    (store,) = stores(own_cache)
    path = own_cache / "features" / store / "train.bin"
    path.write_bytes(bytes(reversed(path.read_bytes())))
    _, told = bench(spec=spec).run(number=3, **TRIAL)
    assert told.facts["features"] == "not cached: what is stored is not what the model computes here"
    assert told.reports == without.reports


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"neftune_noise_alpha": 5.0}, "neftune_noise_alpha: noise is added"),
        ({"bf16_full_eval": True}, "bf16_full_eval: evaluation computes in another precision"),
        ({"objective": [{"metric": "loss", "direction": "minimize"}, SECONDS]}, "train_seconds is"),
        ({"unfrozen_layers": 3}, "nothing but embeddings is frozen"),
    ],
    ids=["noise", "another precision", "seconds", "all blocks"],
)
def test_what_cannot_be_stored_trains_as_ever(
    bench: Bench, make_spec: Any, models: Any, options: Mapping[str, Any], reason: str
) -> None:
    result, told = bench(spec=make_spec(model=models["bert"], **{**HEAD, **options})).run(**{**TRIAL, "epochs": 1})
    assert result.ending is Ending.DONE
    assert told.facts["features"].startswith("not cached: ")
    assert reason in told.facts["features"]


@pytest.mark.parametrize("method", ["full", "lora"])
def test_other_methods_have_nothing_to_store(bench: Bench, make_spec: Any, own_cache: Path, method: str) -> None:
    _, told = bench(spec=make_spec(method=method)).run(**{**TRIAL, "epochs": 1})
    assert "features" not in told.facts
    assert told.facts["cpu_seconds"] > 0
    assert not (own_cache / "features").exists()


def test_what_the_quota_does_not_hold_is_not_stored(bench: Bench, make_spec: Any, models: Any, own_cache: Path) -> None:
    spec = make_spec(model=models["bert"], **HEAD)
    little = spec.model_copy(update={"resources": spec.resources.model_copy(update={"feature_cache_gib": 1e-6})})
    _, without = bench(spec=uncached(spec)).run(number=1, **TRIAL)
    _, told = bench(spec=little).run(number=2, **TRIAL)
    assert "more than resources.feature_cache_gib (1e-06)" in told.facts["features"]
    assert told.reports == without.reports
    assert stores(own_cache) == set()


MODELS_OF_THEIR_OWN = {
    "a head that looks at the embeddings, too": """
        words = self.bert.embeddings.word_embeddings(input_ids).mean(1)
        states = self.bert(input_ids, attention_mask=attention_mask).last_hidden_state
        return SequenceClassifierOutput(logits=self.classifier(states[:, 0] + words))
""",
    "a body that is given noise in training": """
        words = self.bert.embeddings(input_ids)
        words = nn.functional.dropout(words, 0.5, self.training)
        states = self.bert.encoder(words).last_hidden_state
        return SequenceClassifierOutput(logits=self.classifier(states[:, 0]))
""",
    "a head that runs the first block again": """
        states = self.bert(input_ids, attention_mask=attention_mask).last_hidden_state
        again = self.bert.encoder.layer[0](states)
        return SequenceClassifierOutput(logits=self.classifier(states[:, 0] + again[:, 1]))
""",
    "an answer that depends on how many tokens there are": """
        states = self.bert(input_ids, attention_mask=attention_mask).last_hidden_state
        return SequenceClassifierOutput(logits=self.classifier(states[:, 0]) * states.shape[1])
""",
}


@pytest.mark.parametrize(
    ("forward", "is_cached"),
    [
        ("a head that looks at the embeddings, too", True),  # behind the last block
        ("a body that is given noise in training", False),
        ("a head that runs the first block again", False),
        ("an answer that depends on how many tokens there are", True),  # as sequences
    ],
)
def test_models_of_their_own_making(
    bench: Bench,
    make_spec: Any,
    models: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    forward: str,
    is_cached: bool,
) -> None:
    """Whatever a model does, its trials are right; here with code that comes with it."""
    folder = shutil.copytree(models["bert"], tmp_path / "own_model")
    (folder / "own.py").write_text(
        "import transformers\nfrom torch import nn\n"
        "from transformers.modeling_outputs import SequenceClassifierOutput\n"
        "class OwnConfig(transformers.BertConfig):\n    model_type = 'own'\n"
        "class OwnModel(transformers.BertForSequenceClassification):\n"
        "    config_class = OwnConfig\n"
        "    def forward(self, input_ids, attention_mask=None, token_type_ids=None, labels=None):"
        + MODELS_OF_THEIR_OWN[forward]
    )
    auto_map = {"AutoConfig": "own.OwnConfig", "AutoModelForSequenceClassification": "own.OwnModel"}
    config = json.loads((folder / "config.json").read_text()) | {"model_type": "own", "auto_map": auto_map}
    (folder / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    spec = make_spec(model=folder, **HEAD)
    spec = spec.model_copy(update={"model": spec.model.model_copy(update={"trust_remote_code": True})})
    _, without = bench(spec=uncached(spec)).run(number=1, **TRIAL)
    _, told = bench(spec=spec).run(number=2, **TRIAL)
    assert told.facts["features"].startswith("cached" if is_cached else "not cached: ")
    for one, other in zip(told.reports, without.reports, strict=True):
        assert one.metrics == pytest.approx(other.metrics, abs=1e-5)


def test_a_pooler_that_no_file_held_is_trained_behind_what_is_stored(
    bench: Bench, make_spec: Any, models: Any, tmp_path: Path, own_cache: Path
) -> None:
    folder = shutil.copytree(models["bert"], tmp_path / "bert")
    tensors = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("pooler.")}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    told = assert_equal_trials(bench, make_spec(model=folder, **HEAD), TRIAL, within=1e-5)
    assert told.facts["n_trainable"] == 16 * 16 + 16 + 3 * 16 + 3


def test_drawn_parameters_before_the_boundary_are_trained_not_stored(
    bench: Bench, make_spec: Any, models: Any, tmp_path: Path
) -> None:
    folder = shutil.copytree(models["bert"], tmp_path / "bert")
    tensors = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if "layer.0.attention.self.value" not in name}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    for layers in (0, 1):
        spec = make_spec(model=folder, method="feature-extraction", unfrozen_layers=layers)
        _, told = bench(spec=spec).run(**{**TRIAL, "epochs": 1})
        assert "parameters drawn at random lie in its frozen part" in told.facts["features"]
