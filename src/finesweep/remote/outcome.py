"""What a job came to: what it took and cost, and which of its checkpoints is the best.

In: a job as its server tells of it. Out: facts of a trial, entries of the ledger. It must not know servers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from finesweep.remote.answers import Job, is_finite
from finesweep.remote.ledger import Ledger
from finesweep.remote.progress import words_of
from finesweep.spec.prices import cost_of
from finesweep.spec.study import Objective


def settle(ledger: Ledger, job: Job, *, has_begun: bool = True) -> None:
    """Note what a job that has ended took: nothing, if it has told of no step and failed, as by its validation."""
    tokens = 0 if job.trained_tokens is None and job.outcome == "failed" and not has_begun else job.trained_tokens
    ledger.settle(job.id, tokens=tokens, n_epochs=whole_epochs(job) if job.outcome == "succeeded" else None)


def whole_epochs(job: Job) -> int | None:
    """Tell for how many epochs a job is trained, where the server has told, and there are no parts of one."""
    told = job.made.get("n_epochs")
    return int(told) if told is not None and told == int(told) else None


def cost_facts(job: Job, price_per_million: float | None) -> dict[str, float]:
    """Give what is known of what a job cost."""
    if job.trained_tokens is None:
        return {}
    cost = cost_of(job.trained_tokens, price_per_million)
    return {"trained_tokens": job.trained_tokens, **({} if cost is None else {"cost": cost})}


def best_of(checkpoints: Sequence[Mapping[str, Any]], objective: Objective) -> str | None:
    """Name the checkpoint that is best by an objective; None where they do not tell it, or the last one counts."""
    if objective.value == "last":
        return None
    best: tuple[float, str] | None = None
    for checkpoint in checkpoints:  # newest first
        told = checkpoint.get("metrics") or {}
        value = next((told[name] for name in words_of(objective.metric) if is_finite(told.get(name))), None)
        name = checkpoint.get("fine_tuned_model_checkpoint")
        if value is not None and name and objective.is_better(value, best[0] if best else None):
            best = value, str(name)
    return best[1] if best else None
