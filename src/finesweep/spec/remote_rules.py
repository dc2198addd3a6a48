"""Rules for trials that are jobs of a fine-tuning server: what its protocol knows, and what it does not.

In: the sections that could be read. Out: findings by key path.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from finesweep.spec.faults import Finding, KeyPath, show, unknown
from finesweep.spec.grid import extremes
from finesweep.spec.parameters import DerivedParameter, Parameter
from finesweep.spec.study import MetricDirection, Objective
from finesweep.spec.sweep import AUTO, Budget, DataSpec, Evaluation, ModelSpec, Remote

OWN_WORDS: Mapping[str, str] = {  # of local sweeps, for what events tell: these two are told under both
    "full_valid_loss": "loss",
    "full_valid_mean_token_accuracy": "token_accuracy",
}
REMOTE_METRICS: Mapping[str, MetricDirection] = {  # what the events of jobs tell, and which way is better
    "loss": "minimize",
    "token_accuracy": "maximize",
    "valid_loss": "minimize",
    "valid_mean_token_accuracy": "maximize",
    "full_valid_loss": "minimize",  # of all validation rows, at the end of an epoch or of the job
    "full_valid_mean_token_accuracy": "maximize",
    "train_loss": "minimize",
    "train_mean_token_accuracy": "maximize",
}
LIMITS: Mapping[str, tuple[float, float]] = {
    "n_epochs": (1, 50),
    "batch_size": (1, 256),
    "learning_rate_multiplier": (0, float("inf")),  # above 0
}
_SECRET_NAME = re.compile(
    r"[A-Z][A-Z0-9_]*(KEY|TOKEN|SECRET|PASSWORD)"
)  # whose values are hidden wherever they turn up


def remote_faults(
    parameters: Mapping[str, Parameter],
    objectives: Mapping[KeyPath, Objective],
    data: DataSpec | None,
    evaluation: Evaluation | None,
    model: ModelSpec | None,
) -> Iterator[Finding]:
    """Find what a fine-tuning server would refuse, or nobody would heed."""
    for name, parameter in parameters.items():
        yield from _limit_faults(name, parameter)
    for path, objective in objectives.items():
        if objective.metric not in REMOTE_METRICS:
            at = (*path, "metric")
            yield Finding(at, unknown("metric of trainer remote", objective.metric, tuple(REMOTE_METRICS)))
        elif objective.direction != REMOTE_METRICS[objective.metric]:
            better = REMOTE_METRICS[objective.metric]
            yield Finding(
                (*path, "direction"), f"of {objective.metric} the better is what {better}s it. Write {better}."
            )
    if data is not None and data.format == "text":
        message = "fine-tuning servers take prompts with completions, or chats. Choose prompt-completion or messages."
        yield Finding(("data", "format"), message)
    if evaluation is not None and evaluation.model_fields_set:
        yield Finding(("evaluation",), "the server alone measures, and its events tell what. Remove this section.")
    if model is not None:
        yield Finding(("model",), "with trainer remote the server's model is named as remote.model. Remove this key.")


def remote_budget_faults(budget: Budget, remote: Remote | None, *, is_remote: bool) -> Iterator[Finding]:
    """Find limits that nobody would heed, and money without a price."""
    if not is_remote:
        for key in ("tokens", "money"):
            if getattr(budget, key) is not None:
                message = f"only trainer remote counts {key}. Remove it, or limit trials or hours."
                yield Finding(("budget", key), message)
        return
    if budget.money is not None and remote is not None and remote.price_per_million is None:
        yield Finding(("budget", "money"), "what a token costs is not known. Say it as remote.price_per_million.")
    if remote is not None and not _SECRET_NAME.fullmatch(remote.api_key_env):
        message = (
            f"{show(remote.api_key_env)} is not named like a secret, so its value would not be hidden. Use a variable"
            " whose name ends in KEY or TOKEN, as OPENAI_API_KEY."
        )
        yield Finding(("remote", "api_key_env"), message)


def _limit_faults(name: str, parameter: Parameter) -> Iterator[Finding]:
    if name not in LIMITS:
        return  # told by the rule of names
    low, high = LIMITS[name]
    for value in extremes(parameter):
        if value == AUTO or (isinstance(value, str) and isinstance(parameter, DerivedParameter)):
            continue  # what an expression comes to is known to each trial
        if isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high and value > 0:
            continue
        wanted = "a number above 0" if high == float("inf") else f"a whole number from {low:g} to {high:g}"
        message = f"{name} can be {show(value)} here, but must be {wanted}, or {show(AUTO)}."
        yield Finding(("study", "parameters", name), message)
