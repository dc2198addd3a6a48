"""What trials that are jobs of a fine-tuning server have come to: as their workers told it, and added up.

In: facts of trials and attempts. Out: job, tuned model, trained tokens, money. Local trials tell nothing of this.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from finesweep.results.frames import Results
from finesweep.spec.prices import cost_of, tokens_text
from finesweep.spec.sweep import RemoteSweep

_TOLD = ("job", "hyperparameters", "trained_tokens", "cost", "fine_tuned_model", "best_checkpoint")


@dataclass(frozen=True, slots=True)
class JobCost:
    """What the jobs of a sweep have trained and cost, as far as it is told."""

    n_jobs: int
    trained_tokens: int
    money: float | None  # None: the price is not known
    n_untold: int  # jobs of which it is not known what they took: they run, or were cancelled

    def text(self) -> str:
        """Say it in a few words."""
        n = f"{self.n_jobs:,} job{'' if self.n_jobs == 1 else 's'}"
        some = f" by the {self.n_jobs - self.n_untold:,} that are counted" if self.n_untold else ""
        return f"{n}, {tokens_text(self.trained_tokens, self.money)}{some}"


def job_facts(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Choose of a trial's facts what is told of its job; None for what is not told."""
    return {name: facts.get(name) for name in _TOLD}


def job_cost(results: Results, sweep: str) -> JobCost | None:
    """Add up what all jobs of a sweep took; None of a sweep that has none. Raises SweepNameError."""
    spec = results.spec(sweep)
    if not isinstance(spec, RemoteSweep):
        return None
    tokens: dict[str, int | None] = {}
    for facts in results.attempts(sweep)["facts"]:  # a job that was found again is told by several attempts
        if isinstance(job := facts.get("job"), str):
            told = facts.get("trained_tokens")
            tokens[job] = told if isinstance(told, int) else tokens.get(job)
    total = sum(told for told in tokens.values() if told is not None)
    n_untold = sum(told is None for told in tokens.values())
    return JobCost(len(tokens), total, cost_of(total, spec.remote.price_per_million), n_untold)


def place_text(facts: Mapping[str, Any]) -> str:
    """Say where a trial is trained: on which device, or as which job."""
    return str(facts["job"] if is_job(facts) else facts.get("device", ""))


def is_job(facts: Mapping[str, Any]) -> bool:
    """Tell whether it is the remote trainer that told these facts; a trainer of the user's own may tell anything."""
    return isinstance(facts.get("job"), str) and isinstance(facts.get("model"), str)
