"""Load a model once per worker, and hand every trial an untouched copy of it.

In: where a model lies and how it is to be loaded. Out: tokenizer and model. It must not know methods or trials.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
import transformers
from safetensors import SafetensorError

from finesweep.errors import ModelError, first_line
from finesweep.spec.sweep import ModelSpec, Task
from finesweep.training.encoding import Tokenizer, pad_id_of
from finesweep.training.model_files import ModelSource, check_weights
from finesweep.training.tasks import head_arguments, task_kind

Model = Any  # transformers.PreTrainedModel, which is untyped here


def load_tokenizer(source: ModelSource) -> Tokenizer:
    try:
        return transformers.AutoTokenizer.from_pretrained(source.location, **source.options)
    except _FAILURES as error:
        raise _not_loaded(source, "tokenizer", error) from error


def load_config(source: ModelSource, **changes: Any) -> Any:  # Any: a transformers.PreTrainedConfig, untyped here
    try:
        return transformers.AutoConfig.from_pretrained(source.location, **source.options, **changes)
    except _FAILURES as error:
        raise _not_loaded(source, "configuration", error) from error


def max_positions(source: ModelSource, tokenizer: Tokenizer) -> int | None:
    """Return how many tokens the model can place in a row; None where its positions are relative or not told."""
    config = load_config(source).get_text_config()
    positions: int | None = getattr(config, "max_position_embeddings", None)
    if positions is None or positions < 1 or not getattr(config, "position_biased_input", True):  # the last: DeBERTa
        return None
    n_reserved = (getattr(config, "pad_token_id", None) or 0) + 1  # RoBERTa counts from behind the padding token's id
    return tokenizer.model_max_length if tokenizer.model_max_length == positions - n_reserved else positions


class BaseModel:
    """A model as loaded, kept in memory and never trained: trials get copies of it."""

    def __init__(self, source: ModelSource, *, task: Task, labels: Sequence[str], tokenizer: Tokenizer) -> None:
        self._source, self._task, self._labels = source, task, tuple(labels)
        self._pad_id = pad_id_of(tokenizer)
        self._pristine: Model | None = None
        self._seed: int | None = None
        self.fresh_parameters: frozenset[str] = frozenset()  # not in the files but drawn at random: a task head

    def copy(self, seed: int) -> Model:
        """Return a model equal to one loaded afresh under `seed`."""
        if self._pristine is None or (self.fresh_parameters and seed != self._seed):
            self._pristine = None  # let go of the old one before loading the new one
            self._pristine, self.fresh_parameters = load_model(
                self._source, task=self._task, labels=self._labels, pad_id=self._pad_id, seed=seed
            )
            self._seed = seed
        return copy.deepcopy(self._pristine)


def load_model(
    source: ModelSource, *, task: Task, labels: Sequence[str], pad_id: int, seed: int
) -> tuple[Model, frozenset[str]]:
    """Load from files as the spec says, and name the parameters that `seed` drew because no file held them."""
    check_weights(source)
    transformers.set_seed(seed)
    try:
        model, info = task_kind(task).model_class.from_pretrained(
            source.location,
            output_loading_info=True,
            use_safetensors=None if source.spec.allow_pickle else True,
            **source.options,
            **_precision(source.spec),
            **_attention(source.spec),
            **head_arguments(task, labels),
        )
    except _FAILURES as error:
        raise _not_loaded(source, "model", error) from error
    if model.config.pad_token_id is None:
        model.config.pad_token_id = pad_id  # a causal model with a classification head finds the last token by it
    mismatched = {entry if isinstance(entry, str) else entry[0] for entry in info["mismatched_keys"]}
    fresh = set(info["missing_keys"]) | mismatched
    return model, frozenset(fresh & {name for name, _ in model.named_parameters()})


def outline(source: ModelSource, *, task: Task) -> Model:
    """Build the model without weights, from its configuration: modules and shapes on the meta device."""
    head = head_arguments(task, labels=("0", "1"))
    head.pop("ignore_mismatched_sizes", None)  # that is about weights
    config = load_config(source, **head)
    try:
        with torch.device("meta"):
            return task_kind(task).model_class.from_config(
                config,
                trust_remote_code=source.spec.trust_remote_code,
                dtype=getattr(torch, source.spec.dtype),
                **_attention(source.spec),
            )
    except _FAILURES as error:
        raise _not_loaded(source, "model", error) from error


_FAILURES = (OSError, ValueError, ImportError, SafetensorError)


def _precision(spec: ModelSpec) -> dict[str, Any]:
    dtype = getattr(torch, spec.dtype)  # float32: mixed precision keeps these as its master weights
    match spec.quantize:
        case "4bit":  # NormalFloat, for weights are about normally distributed: QLoRA, Dettmers et al. 2023, section 3
            packing = transformers.BitsAndBytesConfig(
                load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
            )
        case "8bit":
            packing = transformers.BitsAndBytesConfig(load_in_8bit=True)
        case None:
            return {"dtype": dtype}
    return {"dtype": dtype, "quantization_config": packing}


def _attention(spec: ModelSpec) -> dict[str, Any]:
    return {} if spec.attention is None else {"attn_implementation": spec.attention}


def _not_loaded(source: ModelSource, what: str, error: Exception) -> ModelError:
    said = str(error)
    if "trust_remote_code" in said:
        way_out = (
            "It needs Python code of its maker's. Read that code; if you trust it, set model.trust_remote_code: true."
        )
    elif source.spec.attention is not None and "ttention" in said:
        way_out = f"Choose another model.attention than {source.spec.attention}, or leave it out."
    else:
        way_out = "Check that the folder is complete and of a kind that fits the task."
    return ModelError(
        f'model: the {what} of "{source.spec.name}" cannot be loaded from {source.location}: {first_line(error)} '
        + way_out
    )
