"""Production training: it is the trial again, what it writes plain libraries load, and it is not judged by its rows."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
import yaml
from tests.training.conftest import CLASSES, N_TRAIN, N_VALIDATION, WORDS, write_rows
from tests.training.records import Finished, run_one

from finesweep import load_trained
from finesweep.errors import ExportError
from finesweep.export.record import ExportRecord
from finesweep.production.plan import Asked, plan_training
from finesweep.production.predict import load_predictor
from finesweep.production.train import Trained, train
from finesweep.production.try_rows import read_tried
from finesweep.spec.sweep import TransformersSweep

HEAD_ALONE = {"method": "feature-extraction"}
LAST_BLOCK = {"method": "feature-extraction", "unfrozen_layers": 1}
FULL = {"method": "full"}
LORA = {"method": "lora", "lora_rank": 2}
TRIED = [" ".join(WORDS[at : at + n]) for at, n in ((0, 4), (21, 2), (42, 7), (3, 9))]

pytestmark = pytest.mark.filterwarnings("ignore:.*is deprecated and will be removed in v6:FutureWarning")


class Said:
    """What a training said, and how far it was; may be told to interrupt it at a step."""

    def __init__(self, *, interrupt_at: int | None = None) -> None:
        self.lines: list[str] = []
        self.steps: list[int] = []
        self._interrupt_at = interrupt_at

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def say(self, text: str) -> None:
        self.lines.append(text)

    def at(self, optimizer_step: int, total: int) -> None:
        self.steps.append(optimizer_step)
        if optimizer_step == self._interrupt_at:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture
def sweep(
    make_spec: Callable[..., TransformersSweep], tmp_path: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Finished]:
    monkeypatch.setenv("FINESWEEP_CACHE", str(cache_dir))

    def make(**options: Any) -> Finished:
        return run_one(make_spec(**{"eval_every": 40, **options}), tmp_path)

    return make


@pytest.fixture
def produce(tmp_path: Path, cache_dir: Path) -> Callable[..., Trained]:
    def produce(
        record: ExportRecord, *, said: Said | None = None, resume: bool = False, force: bool = False, **asked: Any
    ) -> Trained:
        plan = plan_training(record, Asked(**{"files": {}, **asked}))
        folder = tmp_path / "model"
        return train(plan, folder, cache_dir=cache_dir, shown=said or Said(), resume=resume, force=force)

    return produce


@pytest.mark.parametrize(
    ("task", "model", "settings"),
    [
        ("classification", "bert", HEAD_ALONE),
        ("classification", "bert", LAST_BLOCK),
        ("classification", "bert", FULL),
        ("classification", "bert", LORA),
        ("multi-label-classification", "bert", LORA),
        ("multi-label-classification", "llama", FULL),
        ("regression", "bert", FULL),
        ("causal-lm", "llama", FULL),
        ("causal-lm", "llama", LAST_BLOCK),
        ("causal-lm", "llama", LORA),
    ],
)
def test_a_training_is_the_trial_and_plain_transformers_loads_it(
    task: str,
    model: str,
    settings: Mapping[str, Any],
    sweep: Callable[..., Finished],
    produce: Callable[..., Trained],
    tiny_bert: Path,
    tied_llama: Path,
    cache_dir: Path,
) -> None:
    done = sweep(task=task, model={"bert": tiny_bert, "llama": tied_llama}[model], **settings)
    record, said = done.record(), Said()
    end = produce(record, said=said)
    assert end.state == "done"
    assert end.metrics is not None
    assert end.metrics["equals_trial"] is True
    measured = {name: value for name, value in record.metrics.items() if name != "train_loss"}
    assert end.metrics["splits"] == {"validation": measured}
    assert "Not as it was" not in said.text
    assert sorted(path.name for path in end.folder.iterdir() if path.is_dir()) == []

    kind = transformers.AutoModelForCausalLM if task == "causal-lm" else transformers.AutoModelForSequenceClassification
    plain = kind.from_pretrained(end.folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(end.folder)
    own = load_trained(done.best_dir).eval()
    batch = tokenizer(TRIED, return_tensors="pt", padding=True, return_token_type_ids=False)
    with torch.no_grad():
        expected, got = own(**batch).logits, plain(**batch).logits
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)  # merging adds in another order
    assert _predicted(end.folder, cache_dir) == _read_off(expected, task, plain, tokenizer)


def _predicted(folder: Path, cache_dir: Path) -> list[Any]:
    """Give what is predicted of the tried rows, by what a row is answered with."""
    predictor = load_predictor(folder, cache_dir=cache_dir, device="cpu", max_new_tokens=5)
    path = write_rows(folder.parent / "tried.jsonl", [dict.fromkeys(predictor.columns, text) for text in TRIED])
    rows = read_tried(str(path), predictor.columns_read(()), stdin=None)  # type: ignore[arg-type]  # a file is read
    answers = dict(predictor.predict(rows, top=1))
    return [_answer(answers[place]) for place in range(len(TRIED))]


def _answer(said: Mapping[str, Any]) -> Any:
    if "number" in said:
        return pytest.approx(said["number"], abs=1e-5)
    if "probability" in said:
        return said["label"], pytest.approx(said["probability"], abs=1e-5)
    return said.get("labels", said.get("text"))


def _read_off(logits: torch.Tensor, task: str, plain: Any, tokenizer: Any) -> list[Any]:
    names = plain.config.id2label
    match task:
        case "classification":
            return [(names[int(row.argmax())], float(row.softmax(-1).max())) for row in logits]
        case "multi-label-classification":
            return [[names[i] for i, share in enumerate(row.sigmoid()) if share > 0.5] for row in logits]
        case "regression":
            return [float(row[0]) for row in logits]
    texts = []
    for text in TRIED:  # one by one: no padding
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        written = plain.generate(ids, do_sample=False, max_new_tokens=5, pad_token_id=0)
        texts.append(tokenizer.decode(written[0, ids.shape[1] :], skip_special_tokens=True))
    return texts


def test_a_head_that_reads_pooled_states_cannot_be_loaded_by_mistake(
    sweep: Callable[..., Finished], produce: Callable[..., Trained], tokenizer: Any
) -> None:
    done = sweep(pooling="mean", **LAST_BLOCK)
    end = produce(done.record())
    with pytest.raises((OSError, ValueError)):
        transformers.AutoModelForSequenceClassification.from_pretrained(end.folder)
    batch = tokenizer(TRIED, return_tensors="pt", padding=True, return_token_type_ids=False)
    with torch.no_grad():
        expected, got = (load_trained(folder).eval()(**batch).logits for folder in (done.best_dir, end.folder))
    torch.testing.assert_close(got, expected, rtol=0, atol=0)
    assert "finesweep.load_trained" in (end.folder / "README.md").read_text()


def test_an_adapter_is_left_apart_where_asked_for(
    sweep: Callable[..., Finished], produce: Callable[..., Trained], tokenizer: Any
) -> None:
    done = sweep(**LORA)
    end = produce(done.record(), adapter=True)
    assert (end.folder / "adapter_config.json").is_file()
    assert not (end.folder / "config.json").exists()
    plain = peft.AutoPeftModelForSequenceClassification.from_pretrained(end.folder, num_labels=len(CLASSES)).eval()
    batch = tokenizer(TRIED, return_tensors="pt", padding=True, return_token_type_ids=False)
    with torch.no_grad():
        expected, got = load_trained(end.folder).eval()(**batch).logits, plain(**batch).logits
    torch.testing.assert_close(got, expected)


def test_adapters_are_asked_for_where_there_are_none(sweep: Callable[..., Finished]) -> None:
    record = sweep(**FULL).record()
    with pytest.raises(ExportError, match="--adapter: method full"):
        plan_training(record, Asked({}, adapter=True))


def test_a_quantised_base_is_never_merged_into(sweep: Callable[..., Finished]) -> None:
    record = sweep(**LORA).record()
    quantised = {**(record.model or {}), "quantize": "4bit"}
    object.__setattr__(record, "model", quantised)
    with pytest.raises(ExportError, match="--merge: the base model is held in 4bit"):
        plan_training(record, Asked({}, adapter=False))
    assert plan_training(record, Asked({})).adapter


@pytest.mark.parametrize("settings", [FULL, HEAD_ALONE, LAST_BLOCK])
def test_one_that_was_interrupted_goes_on_to_the_same_end(
    settings: Mapping[str, Any], sweep: Callable[..., Finished], produce: Callable[..., Trained], tmp_path: Path
) -> None:
    record = sweep(**settings).record()
    interrupted = produce(record, said=Said(interrupt_at=8))
    assert interrupted.state == "interrupted"
    assert not (tmp_path / "model" / "metrics.json").exists()
    with pytest.raises(ExportError, match="the same command with --resume"):
        produce(record)
    with pytest.raises(ExportError, match="settings"):
        produce(record, resume=True, seed=77)
    said = Said()
    end = produce(record, said=said, resume=True)
    assert min(said.steps, default=9) > 8
    assert end.metrics is not None
    assert end.metrics["equals_trial"] is True
    assert not (tmp_path / "model" / ".training").exists()
    assert produce(record, resume=True).metrics == {**end.metrics, "finesweep_training": 1}  # done, and read
    with pytest.raises(ExportError, match="holds a model that is done"):
        produce(record)


def test_a_folder_of_others_is_left_alone(
    sweep: Callable[..., Finished], produce: Callable[..., Trained], tmp_path: Path
) -> None:
    record = sweep(**HEAD_ALONE).record()
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    (folder / "adapter_config.json").write_text("{}")
    for resume in (False, True):
        with pytest.raises(ExportError, match="of no training of finesweep's"):
            produce(record, resume=resume)
    assert sorted(path.name for path in folder.iterdir()) == ["adapter_config.json", "notes.txt"]
    assert produce(record, force=True).state == "done"
    assert (folder / "notes.txt").read_text() == "mine"
    assert not (folder / "adapter_config.json").exists()  # it would make an adapter of the model beside it


@pytest.mark.parametrize("has_test", [True, False])
@pytest.mark.parametrize("settings", [FULL, HEAD_ALONE])
def test_learning_from_the_validation_rows_it_is_not_judged_by_them(
    has_test: bool,
    settings: Mapping[str, Any],
    sweep: Callable[..., Finished],
    produce: Callable[..., Trained],
    data_dir: Path,
    tmp_path: Path,
) -> None:
    rows = [{"text": text, "label": CLASSES[i % 3]} for i, text in enumerate(TRIED)]
    test = {"test": str(write_rows(tmp_path / "test.jsonl", rows))} if has_test else {}
    record = sweep(data=test, **settings).record()
    said = Said()
    end = produce(record, said=said, full_data=True)
    assert end.metrics is not None
    assert list(end.metrics["splits"]) == (["test"] if has_test else [])
    assert end.metrics["facts"]["examples_per_epoch"] == N_TRAIN + N_VALIDATION
    assert end.metrics["reports"] == []
    assert "validation rows." not in said.text
    assert end.metrics["trained_on"] == "train and validation"
    assert "equals_trial" in end.metrics
    assert end.metrics["equals_trial"] is None
    alone = load_trained(end.folder)
    assert list(alone.config.id2label.values()) == list(CLASSES)


def test_learning_from_all_it_ends_where_the_trials_value_had_come(
    sweep: Callable[..., Finished], produce: Callable[..., Trained]
) -> None:
    done = sweep(**FULL)
    record = done.record(value_step=40)
    end = produce(record, full_data=True)
    assert record.facts["last_step"] == 2 * N_TRAIN
    assert end.metrics is not None
    assert end.metrics["stopped_at_percent"] == round(100 * 40 / (2 * N_TRAIN))
    n_steps = -(-(N_TRAIN + N_VALIDATION) // 8) * 2
    assert end.metrics["facts"]["optimizer_steps"] == n_steps  # what the learning rate falls over


def test_other_rows_are_said_first_and_their_labels(
    sweep: Callable[..., Finished], produce: Callable[..., Trained], data_dir: Path, tmp_path: Path
) -> None:
    record = sweep(**HEAD_ALONE).record()
    rows = [json.loads(line) for line in (data_dir / "train.jsonl").read_text().splitlines()]
    other = write_rows(tmp_path / "other.jsonl", [*rows, *({"text": text, "label": "new"} for text in TRIED)])
    said = Said()
    end = produce(record, said=said, files={"train": other})
    assert end.metrics is not None
    assert end.metrics["equals_trial"] is False
    assert said.lines[0] == "Not as it was when the trial was trained:"
    assert said.lines[1].startswith(f"  data fingerprint: {record.provenance['data_fingerprint']} then, ")
    assert "labels: with new than in the sweep" in said.text
    assert end.metrics["labels"] == ["bone", "heart", "new", "skin"]
    assert end.metrics["differs_from_trial"][0].startswith("data fingerprint")


def test_the_card_says_what_it_is_of_and_what_is_not_known(
    sweep: Callable[..., Finished], produce: Callable[..., Trained], tmp_path: Path
) -> None:
    verification = {
        "trial": 0, "metric": "loss", "split": "validation", "seeds": [1, 2, 3], "mean": 1.0, "interval": [0.9, 1.1],
        "prediction_interval": [0.0, 9.0], "baseline": {"label": "defaults", "mean": 1.5},
    }  # fmt: skip
    end = produce(sweep(**LORA).record(verification=verification))
    text = (end.folder / "README.md").read_text()
    _, front, body = text.split("---\n", 2)
    head = yaml.safe_load(front)
    assert head["license"] == "other"
    assert head["pipeline_tag"] == "text-classification"
    assert {m["type"] for m in head["model-index"][0]["results"][0]["metrics"]} >= {"loss", "accuracy"}
    assert "Verified over 3 seeds: loss 1.0000 ± 0.1000 on the validation rows; defaults 1.5000." in body
    assert "inside its 95 % prediction interval" in body
    assert "| lora_rank | 2 |" in body
    assert "unfrozen_layers" not in body
    assert "name no license" in body
    assert str(tmp_path) not in text


def test_one_that_diverges_leaves_nothing(
    sweep: Callable[..., Finished], produce: Callable[..., Trained], tmp_path: Path
) -> None:
    record = sweep(**FULL).record()
    wild = {**record.settings, "learning_rate": 1e6, "max_grad_norm": 0.0}
    object.__setattr__(record, "settings", wild)
    end = produce(record)
    assert end.state == "diverged"
    assert not (tmp_path / "model").exists()
