"""What the jobs of a sweep may cost at most, told before anything is paid.

In: a sweep, the size of the file that its jobs learn from. Out: sentences. It must not know servers.
"""

from __future__ import annotations

from finesweep.remote.budget import budget_tokens
from finesweep.spec.grid import AUTO_EPOCHS, extremes
from finesweep.spec.prices import cost_of, tokens_text
from finesweep.spec.protocol import MOST_EPOCHS
from finesweep.spec.sweep import AUTO, RemoteSweep


def most_cost(spec: RemoteSweep, *, n_train_bytes: int) -> list[str]:
    """Bound a job and the sweep: a token has a byte at least. Pruning, and longer tokens, make both less."""
    price = spec.remote.price_per_million
    epochs = _most_epochs(spec)
    n_jobs, job = spec.budget.trials, epochs * n_train_bytes
    lines = [
        f"a job: {_tokens(job, price)} at most ({epochs} epochs of {n_train_bytes:,} bytes)",
        f"whole sweep: {_tokens(n_jobs * job, price)} at most ({n_jobs:,} jobs that are not pruned)",
    ]
    limit = budget_tokens(spec)
    if limit is None:
        lines.append("There is no limit: set budget.tokens, or budget.money and remote.price_per_million.")
    elif limit < job:
        lines.append(
            f"The budget, {_tokens(limit, price)}, may not hold one such job: until an epoch has been counted, none is "
            "begun that could go beyond it. Raise it, or search fewer n_epochs."
        )
    elif limit < n_jobs * job:
        lines.append(f"The budget ends it before: {_tokens(limit, price)}.")
    return lines


def _most_epochs(spec: RemoteSweep) -> int:
    """Tell the most epochs of a job; of what is computed for each trial, the most that the protocol takes."""
    parameter = spec.study.parameters.get("n_epochs")
    asked = [spec.training.n_epochs] if parameter is None else extremes(parameter)
    most = MOST_EPOCHS
    return max(AUTO_EPOCHS if value == AUTO else int(value) if isinstance(value, int) else most for value in asked)


def _tokens(n_tokens: int, price: float | None) -> str:
    return tokens_text(n_tokens, cost_of(n_tokens, price))
