"""Load a model once per worker, and hand every trial an untouched copy of it.

In: where a model lies and how it is to be loaded. Out: tokenizer and model. It must not know methods or trials.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
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

    def __init__(
        self,
        source: ModelSource,
        *,
        task: Task,
        labels: Sequence[str],
        tokenizer: Tokenizer,
        device: str | None = None,
    ) -> None:
        """Packed weights lie on `device` from the start, where they are packed; others go there with their copies."""
        self._source, self._task, self._labels, self._device = source, task, tuple(labels), device
        self._pad_id = pad_id_of(tokenizer)
        self._pristine: Model | None = None
        self._seed: int | None = None
        self.fresh_parameters: frozenset[str] = frozenset()  # not in the files but drawn at random: a task head

    def copy(self, seed: int) -> Model:
        """Return a model equal to one loaded afresh under `seed`."""
        return copy.deepcopy(self.pristine(seed))

    def pristine(self, seed: int) -> Model:
        """Return the model itself as loaded under `seed`: to be read, or to be left as it was."""
        if self._pristine is None or (self.fresh_parameters and seed != self._seed):
            self._pristine = None  # let go of the old one before loading the new one
            self._pristine, self.fresh_parameters = load_model(
                self._source,
                task=self._task,
                labels=self._labels,
                pad_id=self._pad_id,
                seed=seed,
                device=self._device,
            )
            self._seed = seed
        return self._pristine


def load_model(
    source: ModelSource, *, task: Task, labels: Sequence[str], pad_id: int, seed: int, device: str | None = None
) -> tuple[Model, frozenset[str]]:
    """Load from files as the spec says, and name the parameters that `seed` drew because no file held them."""
    check_weights(source)
    head = head_arguments(task, labels)
    if source.spec.quantize is None:
        model, fresh = _load(source, head, task=task, seed=seed, packing={})
    else:
        model, fresh = _load_packed(source, head, task=task, seed=seed, device=device)
    if model.config.pad_token_id is None:
        model.config.pad_token_id = pad_id  # a causal model with a classification head finds the last token by it
    return model, fresh


def _load(
    source: ModelSource, head: Mapping[str, Any], *, task: Task, seed: int, packing: Mapping[str, Any]
) -> tuple[Model, frozenset[str]]:
    transformers.set_seed(seed)
    try:
        model, info = task_kind(task).model_class.from_pretrained(
            source.location,
            dtype=getattr(torch, source.spec.dtype),  # float32: mixed precision keeps these as its master weights
            output_loading_info=True,
            use_safetensors=None if source.spec.allow_pickle else True,
            **source.options,
            **_attention(source.spec),
            **head,
            **packing,
        )
    except _FAILURES as error:
        raise _not_loaded(source, "model", error) from error
    mismatched = {entry if isinstance(entry, str) else entry[0] for entry in info["mismatched_keys"]}
    fresh = set(info["missing_keys"]) | mismatched
    return model, frozenset(fresh & {name for name, _ in model.named_parameters()})


def _load_packed(
    source: ModelSource, head: Mapping[str, Any], *, task: Task, seed: int, device: str | None
) -> tuple[Model, frozenset[str]]:
    """Load weights of few bits, but what no file holds in full: it is to be trained. What that is, loading tells."""
    unpacked = set(head_modules(outline(source, task=task)))
    placing = {} if device is None else {"device_map": {"": device}}
    while True:
        packing = {"quantization_config": _packing(source.spec, unpacked), **placing}
        model, fresh = _load(source, head, task=task, seed=seed, packing=packing)
        drawn = {
            name for name in (parameter.rpartition(".")[0] for parameter in fresh) if not is_inside(name, unpacked)
        }
        if not drawn:
            for module in model.modules():
                if hasattr(module, "support_avx512bf16_for_cpu"):
                    # bitsandbytes would repack weights at the first evaluation, in a way that gives no gradients after
                    module.support_avx512bf16_for_cpu = False
            return model, fresh
        unpacked |= drawn


def head_modules(model: Model) -> tuple[str, ...]:
    """Name what stands outside the pre-trained body: a task's head, an output layer."""
    if model.base_model is model:
        return ()
    children = [(name, child) for name, child in model.named_children() if child is not model.base_model]
    return tuple(name for name, child in children if any(True for _ in child.parameters()))


def is_inside(name: str, modules: Iterable[str]) -> bool:
    """Tell whether a module is one of `modules` or of their parts."""
    return any(f"{name}.".startswith(f"{module}.") for module in modules)


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


def _packing(spec: ModelSpec, unpacked: Iterable[str]) -> transformers.BitsAndBytesConfig:
    kept = {"llm_int8_skip_modules": sorted(unpacked)}  # of 4 bits as well, whatever its name says
    if spec.quantize == "8bit":
        return transformers.BitsAndBytesConfig(load_in_8bit=True, **kept)
    return transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",  # for weights are about normally distributed: QLoRA, Dettmers et al. 2023, section 3
        bnb_4bit_compute_dtype=getattr(torch, spec.dtype),
        **kept,
    )


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
