"""Rules for trials that are jobs of a fine-tuning server: what its protocol knows, and what it does not.

In: the sections that could be read. Out: findings by key path.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from finesweep.secrets import is_secret_variable
from finesweep.spec.faults import Finding, KeyPath, show, unknown
from finesweep.spec.protocol import CHAT_MODELS, COMPLETION_MODELS
from finesweep.spec.study import MetricDirection, Objective
from finesweep.spec.sweep import Budget, DataSpec, Evaluation, ModelSpec, Remote, Resources

OWN_WORDS: Mapping[str, str] = {  # what events tell of all validation rows, in the words of local sweeps
    "full_valid_loss": "loss",
    "full_valid_mean_token_accuracy": "token_accuracy",
}
REMOTE_METRICS: Mapping[str, MetricDirection] = {  # what the events of jobs tell, and which way is better
    "loss": "minimize",  # of all validation rows, at the end of an epoch or of the job
    "token_accuracy": "maximize",
    "valid_loss": "minimize",
    "valid_mean_token_accuracy": "maximize",
    "train_loss": "minimize",
    "train_mean_token_accuracy": "maximize",
}
_NOT_HEEDED: Mapping[str, str] = {  # keys of `data`
    "max_length": "the server decides how many tokens of a row it takes.",
    "test": "jobs are judged by validation rows, and test rows would be set aside for nobody.",
}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")  # of an environment variable


def remote_faults(
    objectives: Mapping[KeyPath, Objective],
    data: DataSpec | None,
    evaluation: Evaluation | None,
    model: ModelSpec | None,
    resources: Resources | None,
    remote: Remote | None,
) -> Iterator[Finding]:
    """Find what a fine-tuning server would refuse, or nobody would heed."""
    for path, objective in objectives.items():
        if objective.metric not in REMOTE_METRICS:
            at = (*path, "metric")
            ours = OWN_WORDS.get(objective.metric)
            message = unknown("metric of trainer remote", objective.metric, tuple(REMOTE_METRICS))
            yield Finding(at, message if ours is None else f"{objective.metric} is called {ours} here. Write that.")
        elif objective.direction != REMOTE_METRICS[objective.metric]:
            better = REMOTE_METRICS[objective.metric]
            yield Finding(
                (*path, "direction"), f"of {objective.metric} the better is what {better}s it. Write {better}."
            )
    if data is not None and data.format == "text":
        message = "fine-tuning servers take prompts with completions, or chats. Choose prompt-completion or messages."
        yield Finding(("data", "format"), message)
    if data is not None:
        for name in sorted(_NOT_HEEDED.keys() & data.model_fields_set):
            yield Finding(("data", name), f"{_NOT_HEEDED[name]} Remove this key.")
    if data is not None and remote is not None:
        yield from _format_faults(data.format, remote.model)
    if evaluation is not None and evaluation.model_fields_set:
        yield Finding(("evaluation",), "the server alone measures, and its events tell what. Remove this section.")
    if model is not None:
        yield Finding(("model",), "with trainer remote the server's model is named as remote.model. Remove this key.")
    for name in () if resources is None else sorted(resources.model_fields_set - {"max_parallel"}):
        message = "jobs take nothing of this machine: of resources only max_parallel is heeded. Remove this key."
        yield Finding(("resources", name), message)
    if remote is not None:
        yield from _key_faults(remote.api_key_env)


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


def _format_faults(format_: str, model: str) -> Iterator[Finding]:
    """Of models whose kind is known by their name: a server would refuse the rows once they are uploaded."""
    family = model.removeprefix("ft:")
    if format_ == "messages" and family.startswith(COMPLETION_MODELS):
        message = f"{show(model)} is a completion model, which learns from prompts and completions. Write those, or"
        yield Finding(("data", "format"), f"{message} choose a chat model as remote.model.")
    if format_ == "prompt-completion" and family.startswith(CHAT_MODELS):
        message = f"{show(model)} is a chat model, which learns from chats. Write rows of messages (format: messages),"
        yield Finding(("data", "format"), f"{message} or choose a completion model as remote.model.")


def _key_faults(variable: str) -> Iterator[Finding]:
    """Whoever writes the key itself here must not find it in the message."""
    at = ("remote", "api_key_env")
    use = "Use a variable whose name ends in _KEY or _TOKEN, as OPENAI_API_KEY."
    is_secret, may_be_key = is_secret_variable(variable), any(letter.isdecimal() for letter in variable)
    if not _NAME.fullmatch(variable) or (may_be_key and not is_secret):
        message = "what stands here is no name of an environment variable; the key itself belongs into that variable."
        yield Finding(at, f"{message} {use}")
    elif not is_secret:
        yield Finding(at, f"{show(variable)} is not named like a secret, so its value would not be hidden. {use}")
