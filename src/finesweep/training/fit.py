"""Whether a sweep fits its model: layers to unfreeze, modules for adapters, files of weights. Loads no weights.

In: a sweep, where its model lies. Out: nothing, or what does not fit. It must not know data.
"""

from __future__ import annotations

from finesweep.errors import ModelError
from finesweep.spec.model_rules import Possible, possible_values
from finesweep.spec.space import fixed_settings
from finesweep.spec.sweep import Task, TransformersSweep
from finesweep.training.adapters import find_targets, trained_whole
from finesweep.training.methods import NO_HEAD, find_blocks, split_model
from finesweep.training.model_files import ModelSource, check_weights
from finesweep.training.models import Model, outline


def check_fit(spec: TransformersSweep, source: ModelSource) -> None:
    """Hold every value that the space allows to the model. Raises ModelError."""
    check_weights(source)
    model = outline(source, task=spec.task)
    parameters = spec.study.parameters
    possible = possible_values(parameters, fixed_settings(spec.training, parameters))
    if "lora" in possible["method"]:
        _check_targets(model, possible, spec.task)
    if "feature-extraction" in possible["method"]:
        _check_layers(model, possible)
    checkpoints = [*possible.get("activation_checkpointing", []), *possible.get("gradient_checkpointing", [])]
    if True in checkpoints and not model.supports_gradient_checkpointing:
        raise ModelError(
            f"training.gradient_checkpointing: a {type(model).__name__} does not support it. Leave it out."
        )


def _check_targets(model: Model, possible: Possible, task: Task) -> None:
    whole = trained_whole(model, task=task, fresh_parameters=frozenset())
    for asked in possible["lora_target_modules"]:
        find_targets(model, str(asked), but=whole)


def _check_layers(model: Model, possible: Possible) -> None:
    numbers = [number for number in possible["unfrozen_layers"] if isinstance(number, int)]  # not an expression's text
    if max(numbers, default=0) > 0:
        find_blocks(model, at_least=max(numbers))
    if min(numbers, default=1) == 0 and not split_model(model, 0).names:
        raise ModelError(NO_HEAD)
