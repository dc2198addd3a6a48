"""A study: what is searched and how a trial is judged. Reusable between sweeps. Pure data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SerializerFunctionWrapHandler, model_serializer

from finesweep.spec.parameters import Float, Int, Model, Parameter

MetricDirection = Literal["maximize", "minimize"]
CompareAt = Literal["examples", "progress"]


class Objective(Model):
    """The metric a trial is judged by, at its best or its last report."""

    metric: str = Field(min_length=1)
    direction: MetricDirection
    value: Literal["best", "last"] = "best"

    def is_better(self, value: float, than: float | None) -> bool:
        """Tell whether a value is strictly better than another, or the first there is."""
        if than is None:
            return True
        return value > than if self.direction == "maximize" else value < than

    def rank(self, number: int, value: float) -> tuple[float, int]:
        """Give a key that sorts trials, or the steps of one, from best to worst; of equals the lower comes first."""
        return (-value if self.direction == "maximize" else value, number)


def _listed(value: Any) -> Any:  # Any: whatever stands in a file
    is_list = isinstance(value, list | tuple) and value
    return value if is_list else [value]  # an empty list is no objective, and is told as one that is wrong


Objectives = Annotated[tuple[Objective, ...], BeforeValidator(_listed)]  # at least one


def has_diverged(metrics: Mapping[str, float], objectives: Sequence[Objective]) -> bool:
    """Tell whether an objective or a loss among the metrics of a report is not finite.

    Others may be undefined for good reasons, as a correlation of constant predictions is.
    """
    judged = {objective.metric for objective in objectives}
    return any(not math.isfinite(value) for name, value in metrics.items() if name in judged or name.endswith("loss"))


class SamplerSpec(Model):
    """Who proposes configurations. `startup_trials` are random (tpe, gp, cmaes) before the model is asked."""

    type: Literal["tpe", "gp", "cmaes", "qmc", "random", "grid", "nsga2"] = "tpe"
    seed: Int = Field(default=0, ge=0, lt=2**32)
    startup_trials: Int = Field(default=10, ge=0)


class NoPruner(Model):
    type: Literal["none"]
    compare_at: CompareAt = "examples"


class AshaPruner(Model):
    """Asynchronous successive halving (Li et al. 2020): of the trials at a rung, one in `reduction_factor` goes on."""

    type: Literal["asha"]
    first_rung: Int | None = Field(default=None, gt=0)  # a step of the grid; None: the first
    reduction_factor: Int = Field(default=3, ge=2)  # Hyperband, Li et al. 2018, section 3
    compare_at: CompareAt = "examples"


class HyperbandPruner(Model):
    """Several asha brackets that differ in how early they begin to stop trials (Li et al. 2018)."""

    type: Literal["hyperband"]
    first_rung: Int | None = Field(default=None, gt=0)
    reduction_factor: Int = Field(default=3, ge=2)
    compare_at: CompareAt = "examples"


class MedianPruner(Model):
    """Stop a trial whose best report is worse than the median of the others at the same step."""

    type: Literal["median"]
    startup_trials: Int = Field(default=5, ge=0)
    warmup: Int = Field(default=0, ge=0)  # steps before which nothing is stopped
    compare_at: CompareAt = "examples"


class PercentilePruner(Model):
    """Keep the best `percentile` percent of trials at each step."""

    type: Literal["percentile"]
    percentile: Float = Field(default=25.0, gt=0, lt=100)
    startup_trials: Int = Field(default=5, ge=0)
    warmup: Int = Field(default=0, ge=0)
    compare_at: CompareAt = "examples"


class ThresholdPruner(Model):
    """Stop a trial whose metric leaves [lower, upper]."""

    type: Literal["threshold"]
    lower: Float | None = None
    upper: Float | None = None
    warmup: Int = Field(default=0, ge=0)
    compare_at: CompareAt = "examples"


class PatientPruner(Model):
    """Stop a trial whose last `patience` + 1 reports are all worse than its earlier best by more than `min_delta`.

    A plateau is not worse. With `then`, a trial is stopped only if that pruner agrees.
    """

    type: Literal["patient"]
    patience: Int = Field(default=3, ge=1)
    min_delta: Float = Field(default=0.0, ge=0)
    then: (
        Annotated[
            AshaPruner | HyperbandPruner | MedianPruner | PercentilePruner | ThresholdPruner,
            Field(discriminator="type"),
        ]
        | None
    ) = None
    compare_at: CompareAt = "examples"


PrunerSpec = Annotated[
    NoPruner | AshaPruner | HyperbandPruner | MedianPruner | PercentilePruner | ThresholdPruner | PatientPruner,
    Field(discriminator="type"),
]


class StudySpec(Model):
    """What is searched, and how a trial is judged. In files `objective` is one objective or a list of them.

    All values of a trial are those of one step, which the first objective chooses: they belong to one checkpoint.
    """

    objectives: Objectives = Field(alias="objective")
    sampler: SamplerSpec = SamplerSpec()
    pruner: PrunerSpec = NoPruner(type="none")
    parameters: Mapping[str, Parameter] = Field(min_length=1)

    @property
    def objective(self) -> Objective:
        """Give the leading objective: by it trials are pruned, shown as they run, and their best step is chosen."""
        return self.objectives[0]

    @model_serializer(mode="wrap")
    def _as_in_files(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields = serialize(self)
        objectives = fields.pop("objectives")
        return {"objective": objectives[0] if len(objectives) == 1 else objectives, **fields}
