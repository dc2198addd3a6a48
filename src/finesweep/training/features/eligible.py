"""Whether the settings of a trial let its frozen part be computed once. What the model itself allows is found later.

In: the sweep, a trial's settings. Out: nothing, or the reason why not. It must not know models or files.
"""

from __future__ import annotations

from collections.abc import Iterator

from finesweep.spec.settings import transformers_arguments
from finesweep.spec.sweep import TrainingSpec, TransformersSweep

_TRAINING_DIFFERS = {  # settings with which the frozen part's numbers are not the same in training and evaluation
    "neftune_noise_alpha": "noise is added to the embeddings in training",
    "torch_compile": "compiled models round in other ways",
    "torch_compile_backend": "compiled models round in other ways",
    "torch_compile_mode": "compiled models round in other ways",
    "use_liger_kernel": "its kernels round in other ways",
    "bf16_full_eval": "evaluation computes in another precision than training",
    "fp16_full_eval": "evaluation computes in another precision than training",
}


def why_uncached(spec: TransformersSweep, settings: TrainingSpec) -> str | None:
    return next(_reasons(spec, settings), None)


def _reasons(spec: TransformersSweep, settings: TrainingSpec) -> Iterator[str]:
    if settings.method != "feature-extraction":
        yield f"method {settings.method} freezes nothing that could be computed once"
    if spec.resources.feature_cache_gib == 0:
        yield "resources.feature_cache_gib is 0"
    if spec.model.quantize is not None:
        yield f"weights of {spec.model.quantize} are not stored as they compute"
    if any(objective.metric == "train_seconds" for objective in spec.study.objectives):
        yield "train_seconds is an objective, and would tell which trial came first"
    if spec.evaluation.generation is not None:
        yield "evaluation.generation needs the whole model"
    passed_on = transformers_arguments(settings)
    yield from (f"{name}: {why}" for name, why in _TRAINING_DIFFERS.items() if passed_on.get(name))
