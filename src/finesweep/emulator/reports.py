"""What a training says, in the protocol's words. In: reports and facts of a training. Out: steps, metrics, tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def step_of(examples_seen: int, facts: Mapping[str, Any]) -> int:
    """Tell after which optimizer step so many examples have been seen; epochs may end in smaller batches."""
    per_epoch, total = int(facts["examples_per_epoch"]), int(facts["optimizer_steps"])
    batch = int(facts["device_batch_size"]) * int(facts["accumulation"])
    whole, rest = divmod(examples_seen, per_epoch)
    return min(total, whole * math.ceil(per_epoch / batch) + math.ceil(rest / batch))


def metrics_of(told: Mapping[str, float], step: int, *, has_validation: bool) -> dict[str, float]:
    """Restate a report in the protocol's words; a loss that is not finite is told as the largest number there is."""
    metrics = {"step": float(step), "train_loss": told["train_loss"]}
    if has_validation:
        judged = {"valid_loss": told["loss"], "valid_mean_token_accuracy": told["token_accuracy"]}
        metrics |= judged | {f"full_{name}": value for name, value in judged.items()}  # it is always of all rows
    return {name: value if math.isfinite(value) else 1e30 for name, value in metrics.items()}


def tokens_of(facts: Mapping[str, Any], examples_seen: int) -> int:
    """Count the tokens that were trained on, as they would be billed: those of the rows, padding aside."""
    per_epoch = int(facts.get("examples_per_epoch", 0))
    return round(int(facts.get("tokens_per_epoch", 0)) * examples_seen / per_epoch) if per_epoch else 0
