"""Rules about how trials are judged: the metrics of a task, the user's own, generation.

In: the task and the sections that it touches. Out: findings, and the names of what is measured.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping

from finesweep.events import Value
from finesweep.spec.faults import Finding, KeyPath, show
from finesweep.spec.space_rules import ROOT
from finesweep.spec.sweep import COSTS, GENERATION_METRICS, METRICS, DataSpec, Evaluation, Task

_NAME = re.compile(r"[A-Za-z]\w{0,39}")
_SMOOTHING = "label_smoothing_factor"


def measured_metrics(task: Task, evaluation: Evaluation) -> tuple[str, ...]:
    """Name what a report of a sweep holds, the training loss aside."""
    names = [*METRICS[task], *evaluation.metrics]
    if evaluation.generation is not None:
        names += [*GENERATION_METRICS, *evaluation.generation.scorers]
    return tuple(names)


def evaluation_faults(task: Task, evaluation: Evaluation, data: DataSpec | None) -> Iterator[Finding]:
    """Find metrics of the user's own that stand in the way of others, and generation where nothing is generated."""
    generation = evaluation.generation
    taken = {*METRICS[task], *COSTS, "train_loss"}
    if generation is not None:
        taken |= set(GENERATION_METRICS)
        at = ("evaluation", "generation")
        if task != "causal-lm":
            message = f"task {task} generates nothing. Remove this section, or use task causal-lm."
            yield Finding(at, message)
        elif data is not None and data.format == "text":
            message = (
                "plain text has no reference to compare with what is generated. Use data.format prompt-completion or"
                " messages, or remove this section."
            )
            yield Finding(at, message)
        yield from _name_faults((*at, "scorers"), generation.scorers, taken={*taken, *evaluation.metrics})
    yield from _name_faults(("evaluation", "metrics"), evaluation.metrics, taken=taken)


def smoothing_faults(task: Task, parameters: Container[str], fixed: Mapping[str, Value]) -> Iterator[Finding]:
    """Find labels to be smoothed where no one of several is right."""
    if task in ("classification", "causal-lm"):
        return
    message = f"task {task} has no one right label to smooth. Remove {_SMOOTHING}."
    if _SMOOTHING in parameters:
        yield Finding((*ROOT, _SMOOTHING), message)
    elif fixed.get(_SMOOTHING):
        yield Finding(("training", _SMOOTHING), message)


def _name_faults(at: KeyPath, names: Mapping[str, str], *, taken: Container[str]) -> Iterator[Finding]:
    for name in names:
        if name in taken:
            yield Finding((*at, name), f"{name} is a metric that there is already. Give this one another name.")
        elif not _NAME.fullmatch(name):
            message = f"{show(name)} is no name of a metric. Begin with a letter; use letters, digits and underscores."
            yield Finding((*at, name), message)
