"""LoRA through peft: adapters beside frozen weights, kept as the adapter folders that peft and transformers load.

In: a model copy, settings. Out: a peft model of which the adapters move, and a fresh task head. It must not know data,
optimizers or trials.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import peft
import transformers
from torch import nn
from transformers.pytorch_utils import Conv1D

from finesweep.errors import ModelError
from finesweep.spec.faults import unknown
from finesweep.spec.sweep import Task, TrainingSpec
from finesweep.training.models import Model, head_modules, is_inside
from finesweep.training.pooling import idle_parameters

ADAPTERS = "adapter_config.json"  # by which a folder of adapters is known
ALL_LINEAR = "all-linear"  # peft's word, too

_LINEAR = (nn.Linear, Conv1D)  # bitsandbytes' are nn.Linear as well; Conv1D is what GPT-2 has instead
_ADAPTABLE = (*_LINEAR, nn.Embedding, nn.Conv1d, nn.Conv2d)
_HEADS_PEFT_KNOWS = ("classifier", "score")  # it adds both to what is trained of any sequence classifier
_TASK_TYPES: Mapping[Task, peft.TaskType] = {
    "classification": peft.TaskType.SEQ_CLS,
    "multi-label-classification": peft.TaskType.SEQ_CLS,
    "regression": peft.TaskType.SEQ_CLS,
    "causal-lm": peft.TaskType.CAUSAL_LM,
}


def add_adapters(model: Model, settings: TrainingSpec, *, task: Task, fresh_parameters: frozenset[str]) -> Model:
    """Wrap a model so that adapters and what no file held move and all else is frozen. Raises ModelError.

    The adapters' weights are drawn under the settings' seed. `model` itself is changed: it must not be used apart.
    """
    whole = trained_whole(model, task=task, fresh_parameters=fresh_parameters)
    idle = sorted({name.rpartition(".")[0] for name in idle_parameters(model, settings.pooling)})
    targets = find_targets(model, settings.lora_target_modules, but=(*whole, *idle))
    if getattr(model, "hf_quantizer", None) is not None:
        peft.prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)  # that is the Trainer's to do
    config = peft.LoraConfig(
        task_type=_TASK_TYPES[task],
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=ALL_LINEAR if settings.lora_target_modules == ALL_LINEAR else targets,
        exclude_modules=idle or None,
        fan_in_fan_out=all(isinstance(model.get_submodule(name), Conv1D) for name in targets),
        modules_to_save=[name for name in whole if name not in _HEADS_PEFT_KNOWS] or None,
        revision=getattr(model.config, "_commit_hash", None),
    )
    transformers.set_seed(settings.seed)
    with _quiet():
        return peft.get_peft_model(model, config)


def is_idle(name: str) -> bool:
    """Tell of a parameter whether it is the head as it was, which peft keeps beside the one that is trained."""
    return ".original_module." in name


def is_adapted(model: Model) -> bool:
    return isinstance(model, peft.PeftModel)


def save_adapters(model: Model, folder: Path) -> None:
    """Write adapters and a trained head as peft does; the frozen weights stay where they came from."""
    model.save_pretrained(folder, save_embedding_layers=False)  # left to itself it asks the hub whether they changed


def load_adapters(model: Model, folder: Path) -> Model:
    """Wrap a model, as the sweep loaded it, with the adapters that a trial kept."""
    with _quiet():
        return peft.PeftModel.from_pretrained(model, folder)


def find_targets(model: Model, asked: str, *, but: Sequence[str] = ()) -> list[str]:
    """Name the modules that get an adapter, outside of those in `but`. Raises ModelError where a name finds none."""
    linear = [name for name, module in _outside(model, but) if isinstance(module, _LINEAR)]
    linear = [name for name in linear if model.get_submodule(name) is not model.get_output_embeddings()]
    called = sorted({name.rpartition(".")[2] for name in linear})
    if asked == ALL_LINEAR:
        if not linear:
            raise ModelError(
                f"lora_target_modules: a {type(model).__name__} has no linear modules. Use another method."
            )
        return linear
    adaptable = [name for name, module in _outside(model, but) if isinstance(module, _ADAPTABLE)]
    targets: list[str] = []
    for name in (part.strip() for part in asked.split(",")):
        found = [path for path in adaptable if f".{path}".endswith(f".{name}")]
        if not found:
            raise ModelError(
                f'lora_target_modules: "{asked}": '
                + unknown("linear module", name, (*called, ALL_LINEAR), verb=f"is not in a {type(model).__name__}")
            )
        targets += found
    return targets


def trained_whole(model: Model, *, task: Task, fresh_parameters: frozenset[str]) -> tuple[str, ...]:
    """Name the modules that are trained themselves: the head of a labelled task, and what was drawn at random."""
    head = set(head_modules(model)) if task != "causal-lm" else set()
    whole = head | {name.rpartition(".")[0] for name in fresh_parameters}
    return tuple(sorted(name for name in whole if not is_inside(name, whole - {name})))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep to ourselves that peft asks transformers by names that are to vanish: no user can mend that."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is deprecated and will be removed in v6", category=FutureWarning)
        yield


def _outside(model: Model, but: Sequence[str]) -> Iterator[tuple[str, nn.Module]]:
    return ((name, module) for name, module in model.named_modules() if not is_inside(name, but))
