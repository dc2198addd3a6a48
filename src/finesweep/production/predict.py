"""Try a trained model on rows: classes and how likely they are, labels, numbers, or text.

In: a folder that production training, a trial or plain transformers has written; rows. Out: one JSON value a row, in
their order.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from finesweep.errors import DataError, ModelError
from finesweep.layout import tuned_elsewhere
from finesweep.production.try_rows import Tried
from finesweep.spec.faults import unknown
from finesweep.spec.sweep import ModelSpec, Task
from finesweep.training.adapters import ADAPTERS
from finesweep.training.best_weights import BEST, load_trained, read_facts
from finesweep.training.chats import write_chat
from finesweep.training.encoding import Tokenizer, collator, encode_labelled, encode_prompts, pad_id_of
from finesweep.training.generation import write
from finesweep.training.model_files import resolve_model
from finesweep.training.models import Model, load_model, load_tokenizer
from finesweep.training.prepare import quiet

TOP = 3  # classes shown of each row, the likeliest first
MAX_NEW_TOKENS = 64
THRESHOLD = 0.5  # above it a label is given to a row, as where trials are judged
_AT_ONCE, _PROMPTS_AT_ONCE = 32, 8


@dataclass(frozen=True, slots=True)
class Predictor:
    """A model, and how its rows are read."""

    model: Model
    tokenizer: Tokenizer
    task: Task
    labels: tuple[str, ...]  # in the order of the model's outputs; none but of classes
    columns: Mapping[str, str]  # key -> name of the column, where nobody says otherwise
    max_length: int
    max_new_tokens: int

    def columns_read(self, names: Sequence[str]) -> Mapping[str, str]:
        """Lay names of columns that a user gave over the model's own. Raises DataError for too many."""
        if not names:
            return self.columns
        keys = ("text", "text_pair") if self.task != "causal-lm" else tuple(self.columns)[:1]
        if len(names) > len(keys):
            raise DataError(
                f"--text is given {len(names)} times, and a model of the task {self.task} reads {len(keys)} "
                f"column{'s' if len(keys) > 1 else ''} at most."
            )
        return dict(zip(keys, names, strict=False))

    def predict(self, rows: Tried, *, top: int = TOP) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """Yield the place of each row, from 0, and what the model says of it; rows of like length go together."""
        self.model.eval()
        if self.task == "causal-lm":
            yield from self._written(rows)
            return
        table = encode_labelled(
            self.tokenizer,
            list(rows.columns["text"]),
            rows.columns.get("text_pair"),
            [0] * len(rows),
            max_length=self.max_length,
        ).table
        lengths = [len(ids) for ids in table["input_ids"].to_pylist()]
        order = sorted(range(len(rows)), key=lengths.__getitem__)
        collate = collator(pad_id_of(self.tokenizer))
        for start in range(0, len(order), _AT_ONCE):
            chosen = order[start : start + _AT_ONCE]
            batch = collate(table.take(chosen).to_pylist())
            del batch["labels"]
            with torch.no_grad():
                outputs = self.model(**{name: value.to(self.model.device) for name, value in batch.items()})
            logits = outputs["logits"].float().cpu()  # (batch, classes)
            yield from zip(chosen, (self._said(row, top) for row in logits), strict=True)

    def _said(self, logits: torch.Tensor, top: int) -> Mapping[str, Any]:
        if self.task == "regression":
            return {"number": float(logits[0])}
        several = self.task == "multi-label-classification"
        likely = (logits.sigmoid() if several else logits.softmax(-1)).tolist()
        ranked = sorted(zip(self.labels, likely, strict=True), key=lambda pair: -pair[1])
        shown = [{"label": label, "probability": share} for label, share in ranked[:top]]
        if several:
            given = [label for label, share in zip(self.labels, likely, strict=True) if share > THRESHOLD]
            return {"labels": given, "top": shown}
        return {"label": ranked[0][0], "probability": ranked[0][1], "top": shown}

    def _written(self, rows: Tried) -> Iterator[tuple[int, Mapping[str, Any]]]:
        prompts = self._prompts(rows)
        order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
        for start in range(0, len(order), _PROMPTS_AT_ONCE):
            chosen = order[start : start + _PROMPTS_AT_ONCE]
            texts = write(
                self.model,
                self.tokenizer,
                [prompts[index] for index in chosen],
                max_new_tokens=self.max_new_tokens,
                rows_at_once=_PROMPTS_AT_ONCE,
                turn_ends=self._turn_ends(rows),
            )
            yield from zip(chosen, ({"text": text} for text in texts), strict=True)

    def _prompts(self, rows: Tried) -> list[list[int]]:
        if "messages" not in rows.columns:
            (texts,) = rows.columns.values()
            return encode_prompts(self.tokenizer, list(texts))
        prompts = []
        for number, chat in enumerate(rows.columns["messages"], start=1):
            given = list(chat)
            if given and given[-1].get("role") == "assistant":
                given.pop()  # its answer is what is asked for
            text = write_chat(
                self.tokenizer, given, f"{rows.where}, row {number}", tokenize=False, add_generation_prompt=True
            )
            prompts.append(self.tokenizer(text, add_special_tokens=False, return_attention_mask=False)["input_ids"])
        return prompts

    def _turn_ends(self, rows: Tried) -> list[int]:
        """Find what ends an answer by the template: the special token that follows the assistant's words."""
        if "messages" not in rows.columns:
            return []
        chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "finesweep"}]
        after = str(self.tokenizer.apply_chat_template(chat, tokenize=False)).rpartition("finesweep")[2].strip()
        ids = self.tokenizer(after, add_special_tokens=False, return_attention_mask=False)["input_ids"]
        return ids[:1] if ids and ids[0] in self.tokenizer.all_special_ids else []


def load_predictor(
    folder: Path, *, cache_dir: Path, device: str, max_length: int | None = None, max_new_tokens: int | None = None
) -> Predictor:
    """Load a model. Raises ModelError where it is none, or where it is not clear what it answers."""
    quiet()
    if (folder / BEST).is_file():
        return _ours(folder, cache_dir=cache_dir, device=device, max_length=max_length, max_new_tokens=max_new_tokens)
    return _plain(folder, cache_dir=cache_dir, device=device, max_length=max_length, max_new_tokens=max_new_tokens)


def _ours(
    folder: Path, *, cache_dir: Path, device: str, max_length: int | None, max_new_tokens: int | None
) -> Predictor:
    facts = read_facts(folder)
    task: Task = facts["task"]
    rows = facts.get("rows") or {}
    inner = folder / facts.get("weights", "")
    model = load_trained(folder, cache_dir=cache_dir).to(device)
    spec = ModelSpec.model_validate(facts["model"])
    is_here = (inner / "tokenizer_config.json").is_file()
    kept = ModelSpec(name=str(inner.absolute()), trust_remote_code=spec.trust_remote_code)
    tokenizer = transformers_tokenizer(kept) if is_here else load_tokenizer(resolve_model(spec, cache_dir=cache_dir))
    return Predictor(
        model,
        tokenizer,
        task,
        tuple(facts["labels"]) if "classification" in task else (),
        rows.get("columns") or _usual_columns(task),
        max_length or rows.get("max_length") or _longest(model, tokenizer),
        max_new_tokens or rows.get("max_new_tokens") or MAX_NEW_TOKENS,
    )


def transformers_tokenizer(spec: ModelSpec) -> Tokenizer:
    """Load a tokenizer from a folder that may hold an adapter and no model."""
    import transformers

    return transformers.AutoTokenizer.from_pretrained(spec.name, trust_remote_code=spec.trust_remote_code)


_KINDS: Mapping[str, Task] = {
    "single_label_classification": "classification",
    "multi_label_classification": "multi-label-classification",
    "regression": "regression",
}


def _plain(
    folder: Path, *, cache_dir: Path, device: str, max_length: int | None, max_new_tokens: int | None
) -> Predictor:
    """Take a folder of plain transformers where its configuration says what the model is for."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        if (tuned := tuned_elsewhere(folder)) is not None:
            raise ModelError(
                f"{folder}: is of a job of a fine-tuning server, whose model stays there. Ask the server for {tuned}."
            ) from None
        what = "adapters by themselves" if (folder / ADAPTERS).is_file() else "no model"
        raise ModelError(
            f"{folder}: holds {what}, and nothing that finesweep has written beside. Name a folder that `finesweep "
            "train` has filled, or one with a whole model of transformers."
        ) from None
    task, labels = _task_of(folder, config)
    source = resolve_model(ModelSpec(name=str(folder.absolute())), cache_dir=cache_dir)
    tokenizer = load_tokenizer(source)
    model, fresh = load_model(source, task=task, labels=labels, pad_id=pad_id_of(tokenizer), seed=0)
    if fresh:
        raise ModelError(
            f"{folder}: its files lack weights of the task's head ({', '.join(sorted(fresh)[:3])}), so it has not "
            "been trained for that. Name another folder."
        )
    return Predictor(
        model.to(device),
        tokenizer,
        task,
        labels if "classification" in task else (),
        _usual_columns(task),
        max_length or _longest(model, tokenizer),
        max_new_tokens or MAX_NEW_TOKENS,
    )


def _task_of(folder: Path, config: Mapping[str, Any]) -> tuple[Task, tuple[str, ...]]:
    """Read off a configuration what a model is for, and its labels."""
    names = config.get("architectures") or ["a model of no kind that is told"]
    if any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in names):
        return "causal-lm", ()
    if not any(name.endswith("ForSequenceClassification") for name in names):
        known = "...ForSequenceClassification, ...ForCausalLM"
        raise ModelError(f"{folder}: is {names[0]}, which cannot be tried on rows. Known: {known}.")
    given = config.get("id2label") or {"0": "LABEL_0", "1": "LABEL_1"}
    labels = tuple(given[key] for key in sorted(given, key=int))
    kind = config.get("problem_type")
    if kind is None:
        return ("regression" if len(labels) == 1 else "classification"), labels
    if kind not in _KINDS:
        raise ModelError(f"{folder}, config.json: {unknown('problem_type', str(kind), tuple(_KINDS))}")
    return _KINDS[kind], labels


def _usual_columns(task: Task) -> Mapping[str, str]:
    return {"prompt": "prompt"} if task == "causal-lm" else {"text": "text"}


def _longest(model: Model, tokenizer: Tokenizer) -> int:
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 512
    return int(min(positions, tokenizer.model_max_length))
