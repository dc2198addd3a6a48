"""Rules about how weights are loaded and which of them move.

In: the model section, the settings and parameters that it must agree with. Out: findings by key path.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from finesweep.events import Value
from finesweep.spec.faults import Finding, KeyPath
from finesweep.spec.grid import extremes
from finesweep.spec.parameters import Parameter
from finesweep.spec.sweep import ModelSpec, Task, TransformersSweep

Possible = Mapping[str, list[Value]]  # setting -> the values that it takes in any trial, or those they lie between

_CHECKPOINTING = ("activation_checkpointing_kwargs", "gradient_checkpointing_kwargs")


def possible_values(parameters: Mapping[str, Parameter], fixed: Mapping[str, Value]) -> dict[str, list[Value]]:
    searched = {name: extremes(parameter) for name, parameter in parameters.items()}
    return {**{name: [value] for name, value in fixed.items()}, **searched}


def model_faults(model: ModelSpec, possible: Possible) -> Iterator[Finding]:
    """Find ways to load a model that its name, its method or its precision rule out."""
    methods = possible.get("method", [])
    others = [str(method) for method in methods if method != "lora"]
    if model.quantize is not None and others:
        message = (
            f"weights of {model.quantize} cannot be trained by method {', '.join(others)}, only adapters beside"
            " them. Set training.method to lora, or leave quantize out."
        )
        yield Finding(("model", "quantize"), message)
    if model.revision is not None and _is_local(model.name):
        message = "only models of the hub have revisions, and this one is local. Leave it out."
        yield Finding(("model", "revision"), message)
    yield from _precision_faults(model, possible)


def checkpointing_faults(training: Mapping[str, Any], methods: list[Value]) -> Iterator[Finding]:
    """Find a kind of gradient checkpointing that gives no gradients behind a frozen part."""
    for name in _CHECKPOINTING:
        options = training.get(name)
        is_reentrant = isinstance(options, Mapping) and options.get("use_reentrant") is True
        if is_reentrant and any(method != "full" for method in methods):
            message = (
                "with use_reentrant nothing behind a frozen part is given gradients. Set it to false, or leave it out."
            )
            yield Finding(("training", name), message)


def pooling_faults(task: Task, possible: Possible, *, at: KeyPath) -> Iterator[Finding]:
    """Find vectors of whole rows asked of a task that answers at every token. `at` is where pooling is given."""
    others = [str(pooling) for pooling in possible.get("pooling", []) if pooling != "model"]
    if task == "causal-lm" and others:
        message = f"task {task} reads the state of every token, not one vector ({', '.join(others)}). Leave it out."
        yield Finding((*at, "pooling"), message)


def model_notes(spec: TransformersSweep, possible: Possible) -> Iterator[Finding]:
    if spec.model.dtype != "float32" and any(method != "lora" for method in possible["method"]):
        message = (
            f"weights of {spec.model.dtype} are trained as they are: updates too small for their precision are lost."
            " float32 with training.bf16 or training.fp16 computes as fast, and keeps them at the price of memory."
        )
        yield Finding(("model", "dtype"), message)


def _precision_faults(model: ModelSpec, possible: Possible) -> Iterator[Finding]:
    mixed = [name for name in ("fp16", "bf16") if True in possible.get(name, [])]
    if "fp16" in mixed and model.dtype != "float32":
        message = (
            f"training.fp16 scales the gradients of float32 weights, and these are {model.dtype}. Leave dtype at"
            " float32, or fp16 out."
        )
        yield Finding(("model", "dtype"), message)
    elif "bf16" in mixed and model.dtype == "float16":
        message = "training.bf16 computes in another half precision than these weights'. Use float32 or bfloat16."
        yield Finding(("model", "dtype"), message)
    if not mixed and model.dtype == "float32" and model.attention in ("flash_attention_2", "flash_attention_3"):
        message = (
            f"{model.attention} computes in half precision only. Set model.dtype to bfloat16 or training.bf16 to true,"
            " or choose another."
        )
        yield Finding(("model", "attention"), message)


def _is_local(name: str) -> bool:
    return name.startswith("package:") or Path(name).is_absolute() or name.lower().endswith(".gguf")
