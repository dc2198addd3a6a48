"""A trial gives the numbers that plain transformers gives for the same arguments and seed.

What stands here of that side is what a practitioner writes: none of our code, transformers' own collators and losses.
"""

from __future__ import annotations

import copy
import json
import math
import random
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file
from scipy.stats import spearmanr
from sklearn.metrics import accuracy_score, f1_score, mean_absolute_error, r2_score

from finesweep.events import Grid

SEED, BATCH, EPOCHS = 3, 8, 2.5  # seventeen and a half steps
ARGUMENTS = {"learning_rate": 2e-3, "weight_decay": 0.1, "warmup_steps": 4, "lr_scheduler_type": "cosine"}
MAX_LENGTH = 16
ROLES = ("user", "assistant", "user", "assistant")
WHOLE = {  # a trial that reports once, at its end, and keeps the weights it has then
    **ARGUMENTS,
    "objective": {"metric": "loss", "direction": "minimize", "value": "last"},
    "grid": Grid("examples", every=1000, longest=1000),
}


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def train_by_hand(
    model: Any,
    collator: Any,
    splits: Mapping[str, datasets.Dataset],
    *,
    folder: Path,
    compute_metrics: Callable[[Any], dict[str, float]] | None = None,
    **arguments: Any,
) -> tuple[transformers.Trainer, dict[str, float]]:
    trainer = transformers.Trainer(
        model=model,
        args=transformers.TrainingArguments(
            output_dir=str(folder),
            per_device_eval_batch_size=64,  # all rows at once: transformers averages the loss over batches
            num_train_epochs=EPOCHS,
            seed=SEED,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
            **{"per_device_train_batch_size": BATCH, **ARGUMENTS, **arguments},
        ),
        train_dataset=splits["train"],
        eval_dataset=splits["validation"],
        data_collator=collator,
        compute_metrics=compute_metrics,
    )
    trainer.train()
    trainer.args.dataloader_drop_last = False  # which would leave out validation rows, too
    return trainer, trainer.evaluate()


def classify_by_hand(
    model_dir: Path,
    data_dir: Path,
    tokenizer: Any,
    folder: Path,
    *,
    adapt: Callable[[Any], Any] = lambda model: model,
    **arguments: Any,
) -> Any:
    transformers.set_seed(SEED)
    names = sorted({row["label"] for row in read(data_dir / "train.jsonl")})
    model = transformers.AutoModelForSequenceClassification.from_pretrained(model_dir, num_labels=len(names))
    model = adapt(model)

    def tokenized(split: str) -> datasets.Dataset:
        rows = read(data_dir / f"{split}.jsonl")
        encoded = tokenizer([row["text"] for row in rows], truncation=True, max_length=MAX_LENGTH)
        return datasets.Dataset.from_dict({**encoded, "labels": [names.index(row["label"]) for row in rows]})

    def metrics(prediction: Any) -> dict[str, float]:
        classes = np.argmax(prediction.predictions, axis=-1)
        return {
            "accuracy": accuracy_score(prediction.label_ids, classes),
            "macro_f1": f1_score(prediction.label_ids, classes, average="macro"),
        }

    splits = {split: tokenized(split) for split in ("train", "validation")}
    collator = transformers.DataCollatorWithPadding(tokenizer)
    return train_by_hand(model, collator, splits, folder=folder, compute_metrics=metrics, **arguments)


def label_by_hand(model_dir: Path, data_dir: Path, tokenizer: Any, folder: Path) -> Any:
    """Several labels a row, as transformers' documentation has it: a list of 0.0 and 1.0 for each."""
    transformers.set_seed(SEED)
    names = sorted({name for row in read(data_dir / "multi_label_train.jsonl") for name in row["label"]})
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        model_dir, num_labels=len(names), problem_type="multi_label_classification"
    )

    def tokenized(split: str) -> datasets.Dataset:
        rows = read(data_dir / f"multi_label_{split}.jsonl")
        encoded = tokenizer([row["text"] for row in rows], truncation=True, max_length=MAX_LENGTH)
        marks = [[float(name in row["label"]) for name in names] for row in rows]
        return datasets.Dataset.from_dict({**encoded, "labels": marks})

    def metrics(prediction: Any) -> dict[str, float]:
        given = torch.tensor(prediction.predictions).sigmoid() > 0.5
        return {f"{kind}_f1": f1_score(prediction.label_ids, given, average=kind) for kind in ("macro", "micro")}

    splits = {split: tokenized(split) for split in ("train", "validation")}
    collator = transformers.DataCollatorWithPadding(tokenizer)
    return train_by_hand(model, collator, splits, folder=folder, compute_metrics=metrics)


def predict_by_hand(model_dir: Path, data_dir: Path, tokenizer: Any, folder: Path) -> Any:
    transformers.set_seed(SEED)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(model_dir, num_labels=1)

    def tokenized(split: str) -> datasets.Dataset:
        rows = read(data_dir / f"regression_{split}.jsonl")
        encoded = tokenizer([row["text"] for row in rows], truncation=True, max_length=MAX_LENGTH)
        return datasets.Dataset.from_dict({**encoded, "labels": [row["label"] for row in rows]})

    def metrics(prediction: Any) -> dict[str, float]:
        outputs = prediction.predictions.squeeze(-1)
        return {
            "mae": mean_absolute_error(prediction.label_ids, outputs),
            "r2": r2_score(prediction.label_ids, outputs),
            "spearman": spearmanr(prediction.label_ids, outputs).statistic,
        }

    splits = {split: tokenized(split) for split in ("train", "validation")}
    collator = transformers.DataCollatorWithPadding(tokenizer)
    return train_by_hand(model, collator, splits, folder=folder, compute_metrics=metrics)


def generate_by_hand(model_dir: Path, data_dir: Path, tokenizer: Any, folder: Path, **arguments: Any) -> Any:
    transformers.set_seed(SEED)
    model = transformers.AutoModelForCausalLM.from_pretrained(model_dir)

    def tokenized(split: str) -> datasets.Dataset:
        inputs, labels = [], []
        for row in read(data_dir / f"generative_{split}.jsonl"):
            prompt = tokenizer(row["prompt"])["input_ids"]
            answer = [*tokenizer(row["completion"])["input_ids"], tokenizer.eos_token_id]
            inputs.append([*prompt, *answer][:MAX_LENGTH])
            labels.append([*([-100] * len(prompt)), *answer][:MAX_LENGTH])
        masks = [[1] * len(ids) for ids in inputs]
        return datasets.Dataset.from_dict({"input_ids": inputs, "attention_mask": masks, "labels": labels})

    splits = {split: tokenized(split) for split in ("train", "validation")}
    collator = transformers.DataCollatorForSeq2Seq(tokenizer)  # pads labels with -100
    return train_by_hand(model, collator, splits, folder=folder, **arguments)


CHAT_TEMPLATE = (
    "{% for m in messages %}{{ m.role }} {% if m.role == 'assistant' %}{% generation %}{{ m.content }} {{ eos_token }} "
    "{% endgeneration %}{% else %}{{ m.content }} {% endif %}{% endfor %}"
)


def chat_by_hand(model_dir: Path, files: Mapping[str, str], tokenizer: Any, folder: Path) -> Any:
    """Loss on what the template marks as the assistant's."""
    transformers.set_seed(SEED)
    model = transformers.AutoModelForCausalLM.from_pretrained(model_dir)

    def tokenized(split: str) -> datasets.Dataset:
        columns: dict[str, list[Any]] = {"input_ids": [], "attention_mask": [], "labels": []}
        for row in read(Path(files[split])):
            chat = tokenizer.apply_chat_template(row["messages"], return_dict=True, return_assistant_tokens_mask=True)
            labels = [
                token if mark else -100 for token, mark in zip(chat["input_ids"], chat["assistant_masks"], strict=True)
            ]
            for name, values in (*((key, chat[key]) for key in ("input_ids", "attention_mask")), ("labels", labels)):
                columns[name].append(values[:MAX_LENGTH])
        return datasets.Dataset.from_dict(columns)

    splits = {split: tokenized(split) for split in ("train", "validation")}
    return train_by_hand(model, transformers.DataCollatorForSeq2Seq(tokenizer), splits, folder=folder)


def pack_by_hand(model_dir: Path, files: Mapping[str, str], tokenizer: Any, folder: Path) -> Any:
    """All texts end to end, in blocks of equal length; each repeats the last token of the one before as its first."""
    transformers.set_seed(SEED)
    model = transformers.AutoModelForCausalLM.from_pretrained(model_dir)

    def tokenized(split: str) -> datasets.Dataset:
        stream = [tokenizer.eos_token_id]
        for row in read(Path(files[split])):
            stream += [*tokenizer(row["text"])["input_ids"], tokenizer.eos_token_id]
        starts = range(0, len(stream) - 1, MAX_LENGTH - 1)
        return datasets.Dataset.from_dict({"input_ids": [stream[at : at + MAX_LENGTH] for at in starts]})

    splits = {split: tokenized(split) for split in ("train", "validation")}
    collator = transformers.DataCollatorForLanguageModeling(tokenizer, mlm=False)
    return train_by_hand(model, collator, splits, folder=folder)


@pytest.mark.parametrize(
    "arguments",
    [{}, {"label_smoothing_factor": 0.1}, {"max_grad_norm": 0.1, "optim": "adafactor", "dataloader_drop_last": True}],
)
def test_classification(
    bench: Any, tiny_bert: Path, data_dir: Path, tokenizer: Any, tmp_path: Path, arguments: dict[str, Any]
) -> None:
    trainer, scores = classify_by_hand(tiny_bert, data_dir, tokenizer, tmp_path / "by hand", **arguments)
    last = assert_same_training(bench(**WHOLE, **arguments), trainer)
    for name in ("accuracy", "macro_f1"):
        assert last[name] == pytest.approx(scores[f"eval_{name}"])
    if "label_smoothing_factor" not in arguments:  # which transformers also puts into the loss it evaluates
        assert last["loss"] == pytest.approx(scores["eval_loss"], rel=1e-5)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")  # peft asks by that name
def test_adapters(bench: Any, tiny_bert: Path, data_dir: Path, tokenizer: Any, tmp_path: Path) -> None:
    def adapt(model: Any) -> Any:
        transformers.set_seed(SEED)
        config = peft.LoraConfig(
            task_type="SEQ_CLS", r=4, lora_alpha=12, lora_dropout=0.1, target_modules=["query", "value"]
        )
        return peft.get_peft_model(model, config)

    trainer, scores = classify_by_hand(tiny_bert, data_dir, tokenizer, tmp_path / "by hand", adapt=adapt)
    lora = {"lora_rank": 4, "lora_alpha": 12, "lora_dropout": 0.1, "lora_target_modules": "query, value"}
    set_up = bench(method="lora", **lora, **WHOLE)
    result, told = set_up.run(batch_size=BATCH, epochs=EPOCHS)
    assert told.reports[-1].metrics["loss"] == pytest.approx(scores["eval_loss"], rel=1e-5)
    kept = load_file(set_up.artifact_dir / result.artifacts["best"] / "adapter_model.safetensors")
    by_hand = peft.get_peft_model_state_dict(trainer.model)
    assert kept.keys() == by_hand.keys()
    for name, tensor in by_hand.items():
        torch.testing.assert_close(kept[name], tensor, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("task", "by_hand", "metrics"),
    [
        ("multi-label-classification", label_by_hand, ("macro_f1", "micro_f1", "loss")),
        ("regression", predict_by_hand, ("mae", "r2", "spearman", "loss")),
    ],
)
def test_labels_that_are_no_single_class(
    bench: Any,
    tiny_bert: Path,
    data_dir: Path,
    tokenizer: Any,
    tmp_path: Path,
    task: str,
    by_hand: Callable[..., Any],
    metrics: tuple[str, ...],
) -> None:
    trainer, scores = by_hand(tiny_bert, data_dir, tokenizer, tmp_path / "by hand")
    last = assert_same_training(bench(task=task, **WHOLE), trainer)
    for name in metrics:
        assert last[name] == pytest.approx(scores[f"eval_{name}"], rel=1e-5)


@pytest.mark.parametrize("arguments", [{}, {"gradient_accumulation_steps": 4, "per_device_train_batch_size": 2}])
def test_causal_lm(
    bench: Any, tied_llama: Path, data_dir: Path, tokenizer: Any, tmp_path: Path, arguments: dict[str, Any]
) -> None:
    """Also with accumulation, where transformers counts tokens over the whole step for these models."""
    trainer, scores = generate_by_hand(tied_llama, data_dir, tokenizer, tmp_path / "by hand", **arguments)
    split = {"device_batch_size": arguments["per_device_train_batch_size"]} if arguments else {}
    last = assert_same_training(bench(model=tied_llama, task="causal-lm", **WHOLE, **split), trainer)
    assert last["loss"] == pytest.approx(scores["eval_loss"], rel=1e-5)
    assert last["perplexity"] == pytest.approx(math.exp(scores["eval_loss"]), rel=1e-5)


@pytest.mark.parametrize(("data_format", "by_hand"), [("messages", chat_by_hand), ("text", pack_by_hand)])
def test_causal_lm_of_chats_and_texts(
    bench: Any, tied_llama: Path, tokenizer: Any, tmp_path: Path, data_format: str, by_hand: Callable[..., Any]
) -> None:
    chatty = copy.deepcopy(tokenizer)
    chatty.chat_template = CHAT_TEMPLATE
    model_dir = shutil.copytree(tied_llama, tmp_path / "chatty")
    chatty.save_pretrained(model_dir)
    files = {split: str(tmp_path / f"{split}.jsonl") for split in ("train", "validation")}
    for seed, path in enumerate(files.values()):
        draw = random.Random(seed)
        texts = [[f"w{draw.randrange(60)} w{draw.randrange(60)}" for _ in range(4)] for _ in range(45)]
        rows = [
            {"text": " ".join(turns[: 1 + i % 4])}
            if data_format == "text"
            else {"messages": [{"role": role, "content": text} for role, text in zip(ROLES, turns, strict=True)]}
            for i, turns in enumerate(texts)
        ]
        Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows))

    trainer, scores = by_hand(model_dir, files, chatty, tmp_path / "by hand")
    options = {**WHOLE, "data": {**files, "format": data_format}}
    last = assert_same_training(bench(model=model_dir, task="causal-lm", **options), trainer)
    assert last["loss"] == pytest.approx(scores["eval_loss"], rel=1e-5)


def assert_same_training(set_up: Any, trainer: transformers.Trainer) -> Mapping[str, float]:
    """Train the same as a trial; hold its steps, its training loss and its weights against those by hand."""
    result, told = set_up.run(batch_size=BATCH, epochs=EPOCHS)
    assert told.facts["optimizer_steps"] == trainer.state.global_step
    [summary] = [entry for entry in trainer.state.log_history if "train_loss" in entry]
    assert told.reports[-1].metrics["train_loss"] == pytest.approx(summary["train_loss"], rel=1e-5)
    weights = type(trainer.model).from_pretrained(set_up.artifact_dir / result.artifacts["best"]).state_dict()
    for name, tensor in trainer.model.state_dict().items():
        if not name.endswith("attention.self.key.bias"):  # softmax cancels it: its gradient is mere rounding
            torch.testing.assert_close(weights[name], tensor, rtol=1e-4, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")
    metrics: Mapping[str, float] = told.reports[-1].metrics
    return metrics
