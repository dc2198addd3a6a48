"""Answers to prompts, by base models and by those that jobs have made. In: texts. Out: texts and how they ended."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finesweep.emulator.requests import RequestError, Sampling
from finesweep.emulator.settings import Settings
from finesweep.emulator.store import Store

MOST_LOADED = 2  # models held in memory


@dataclass(frozen=True, slots=True)
class Answer:
    text: str
    finish_reason: str  # stop, length
    n_prompt_tokens: int
    n_tokens: int


class Writer:
    """Loads models when they are asked, and keeps the last ones. One thing at a time: jobs need the machine too."""

    def __init__(self, store: Store, settings: Settings, *, cache_dir: Path) -> None:
        self._store, self._settings, self._cache_dir = store, settings, cache_dir
        self._loaded: OrderedDict[str, tuple[Any, Any]] = OrderedDict()  # name -> model, tokenizer
        self._lock = threading.Lock()

    def complete(self, model: str, prompt: str, sampling: Sampling) -> Answer:
        """Go on from a prompt. Raises RequestError for a model that is not there."""
        with self._lock:
            loaded, tokenizer = self._load(model)
            return _write(loaded, tokenizer, tokenizer(prompt)["input_ids"], sampling)

    def chat(self, model: str, messages: Sequence[dict[str, str]], sampling: Sampling) -> Answer:
        """Answer a chat by the tokenizer's template. Raises RequestError for a model that is not there."""
        with self._lock:
            loaded, tokenizer = self._load(model)
            if not tokenizer.chat_template:
                raise RequestError(400, f"The model {model} is no chat model.", param="model")
            ids = tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, return_dict=True)
            return _write(loaded, tokenizer, list(ids["input_ids"]), sampling)

    def _load(self, name: str) -> tuple[Any, Any]:
        folder = self._store.model_folder(name)
        if folder is None and name not in self._settings.aliases:
            self._loaded.pop(name, None)  # deleted since
            raise no_model(name)
        source = str(folder.absolute()) if folder else self._settings.aliases[name]
        known = self._loaded.pop(name, None) or self._read(source)
        self._loaded[name] = known
        while len(self._loaded) > MOST_LOADED:
            self._loaded.popitem(last=False)
        return known

    def _read(self, path_or_name: str) -> tuple[Any, Any]:
        from finesweep.spec.sweep import ModelSpec
        from finesweep.training.encoding import pad_id_of
        from finesweep.training.model_files import resolve_model
        from finesweep.training.models import load_model, load_tokenizer
        from finesweep.training.prepare import quiet

        quiet()
        source = resolve_model(ModelSpec(name=path_or_name), cache_dir=self._cache_dir)
        tokenizer = load_tokenizer(source)
        model, _ = load_model(source, task="causal-lm", labels=(), pad_id=pad_id_of(tokenizer), seed=0)
        return model.eval(), tokenizer


def no_model(name: str) -> RequestError:
    return RequestError(404, f"The model `{name}` does not exist", code="model_not_found", param="model")


def _write(model: Any, tokenizer: Any, ids: Sequence[int], sampling: Sampling) -> Answer:
    import torch

    if not ids:
        raise RequestError(400, "The prompt holds no tokens.", param="prompt")
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        if sampling.seed is not None:
            torch.manual_seed(sampling.seed)
        given = torch.tensor([list(ids)])
        drawn = {"do_sample": True, "temperature": sampling.temperature}
        written = model.generate(
            given,
            attention_mask=torch.ones_like(given),
            max_new_tokens=sampling.max_tokens,
            pad_token_id=tokenizer.eos_token_id,
            **(drawn if sampling.temperature > 0 else {"do_sample": False}),
        )[0, len(ids) :].tolist()
    ends = {tokenizer.eos_token_id, *_as_list(model.generation_config.eos_token_id)}
    has_ended = bool(written) and written[-1] in ends
    text = tokenizer.decode(written, skip_special_tokens=True)
    for stop in sampling.stops:
        before, found, _ = text.partition(stop)
        if found:
            text, has_ended = before, True
    return Answer(text, "stop" if has_ended else "length", len(ids), len(written))


def _as_list(value: Any) -> list[int]:
    return list(value) if isinstance(value, list | tuple) else [] if value is None else [value]
