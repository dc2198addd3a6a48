"""Which trials of a sweep can be trained together as one computation. Pure data.

In: a resolved sweep. Out: for a configuration a key. Trials of equal keys can share a stack; one of key None trains by
itself.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

from finesweep.errors import SpecError
from finesweep.events import Configuration
from finesweep.spec.objective_rules import needs_time
from finesweep.spec.settings import settings_for
from finesweep.spec.sweep import SweepSpec, TrainingSpec, TransformersSweep

# Settings passed on to transformers that each lane of a stack can have a value of its own of. All others that a sweep
# sets, such as another optimizer, have their trials trained one by one.
_OF_LANES = frozenset(
    (
        *("adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm", "label_smoothing_factor"),
        *("lr_scheduler_type", "lr_scheduler_kwargs"),
    )
)
# Those that a stack's lanes must agree on, because what they see or how they compute follows from it.
_SHARED = ("bf16", "train_sampling_strategy", "dataloader_drop_last")
# Those that mean nothing to what a trial learns from stored features.
_WITHOUT_EFFECT = frozenset(
    (
        *("dataloader_num_workers", "dataloader_pin_memory", "dataloader_persistent_workers"),
        *("dataloader_prefetch_factor", "gradient_checkpointing", "gradient_checkpointing_kwargs"),
        *("activation_checkpointing", "activation_checkpointing_kwargs"),
    )
)
_OPTIMIZERS = ("adamw_torch", "adamw_torch_fused")  # one algorithm, two implementations


def stacking_key(spec: SweepSpec) -> Callable[[Configuration], Hashable | None]:
    """Return the function from configurations to keys. Whether a model's head can be stacked, only its worker knows."""
    if not isinstance(spec, TransformersSweep) or not _can_stack(spec) or spec.training.report_to:
        return _alone

    def key(configuration: Configuration) -> Hashable | None:
        try:
            settings = settings_for(spec.training, configuration)
        except SpecError:  # a computed value that is not allowed: the trial will fail with the reason
            return None
        return head_key(spec, settings)

    return key


def head_key(spec: TransformersSweep, settings: TrainingSpec) -> Hashable | None:
    """Return what trials of a head alone must agree on to share a computation; None for others."""
    passed_on = settings.model_extra or {}
    accepted = {*_OF_LANES, *_SHARED, *_WITHOUT_EFFECT, "optim"}
    if (
        not _can_stack(spec)
        or settings.method != "feature-extraction"
        or settings.unfrozen_layers
        or passed_on.get("optim", _OPTIMIZERS[0]) not in _OPTIMIZERS
        or not passed_on.keys() <= accepted
    ):
        return None
    return (settings.pooling, *(passed_on.get(name) for name in _SHARED))


def _can_stack(spec: TransformersSweep) -> bool:
    return (
        spec.task != "causal-lm"
        and spec.resources.feature_cache_gib > 0
        and spec.model.quantize is None
        and spec.model.dtype
        not in ("bfloat16", "float16")  # an optimizer's coefficients need more places than they have
        and not needs_time(spec.study)
    )


def _alone(configuration: Configuration) -> None:
    return None
