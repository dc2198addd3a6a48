"""Rules for a trainer of the user's own: names are free, but the sweep must know where trials are compared.

In: the sections that could be read. Out: findings by key path.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from finesweep.spec.faults import Finding
from finesweep.spec.grid import extremes
from finesweep.spec.parameters import Parameter
from finesweep.spec.study import HyperbandPruner, NoPruner, PatientPruner, PrunerSpec
from finesweep.spec.sweep import Evaluation, FunctionSettings, FunctionSweep

TOTAL = "total_examples"


def function_faults(
    settings: FunctionSettings | None,
    pruner: PrunerSpec | None,
    parameters: Mapping[str, Parameter],
    evaluation: Evaluation | None,
) -> Iterator[Finding]:
    """Find a section that nobody would heed, and what the pruner must know but is not told."""
    if evaluation is not None and evaluation.model_fields_set:
        message = "a trainer of your own reports what it measures: add these to its reports, and remove this section."
        yield Finding(("evaluation",), message)
    if settings is None or pruner is None or pruner.compare_at == "progress" or isinstance(pruner, NoPruner):
        return
    total = settings.total_examples is not None or _is_bounded(parameters.get(TOTAL))
    inner = pruner.then if isinstance(pruner, PatientPruner) else pruner
    if isinstance(inner, HyperbandPruner) and not total:
        message = (
            "hyperband divides trials by how long the longest is, which only your trainer knows. Say it here, as in"
            f" `{TOTAL}: 10000`."
        )
        yield Finding(("training", TOTAL), message)
    elif settings.eval_every is None and not total:
        message = (
            "trials are compared where they have seen equally many examples, so the sweep must know where. Say it here,"
            f" as in `eval_every: 400`, or how long a trial is, as in `{TOTAL}: 2000`."
        )
        yield Finding(("training", "eval_every"), message)


def function_notes(spec: FunctionSweep) -> Iterator[Finding]:
    """Say what the trainer must do that is not seen in the files."""
    pruner = spec.study.pruner
    if pruner.compare_at == "progress" and spec.training.total_examples is None and TOTAL not in spec.study.parameters:
        message = (
            f"a share of a trial's length can only be told where the length is known: set training.{TOTAL}, or have"
            f" your trainer set `reporter.{TOTAL}` before its first report."
        )
        yield Finding(("study", "pruner", "compare_at"), message)


def _is_bounded(parameter: Parameter | None) -> bool:
    """Tell whether a parameter's largest value is known before trials begin."""
    if parameter is None:
        return False
    return any(isinstance(value, int | float) and not isinstance(value, bool) for value in extremes(parameter))
