"""What people know from trainers here and fine-tuning servers lack. In: a setting's name. Out: why it is none."""

from __future__ import annotations

from collections.abc import Mapping

from finesweep.spec.faults import unknown
from finesweep.spec.protocol import HYPERPARAMETERS

_NOT_REMOTE: Mapping[str, str] = {  # a setting -> what a server does not have
    "learning_rate": "learning rates, only learning_rate_multiplier",
    "epochs": "epochs by this name; it says n_epochs",
    "warmup_steps": "warm-up",
    "warmup_ratio": "warm-up",
    "weight_decay": "weight decay",
    "method": "choice of which weights move",
    "unfrozen_layers": "freezing",
    "lora_rank": "adapters",
    "lora_alpha": "adapters",
    "lora_dropout": "adapters",
    "lora_target_modules": "adapters",
    "lr_scheduler_type": "choice of the schedule",
    "optim": "choice of the optimizer",
    "device_batch_size": "devices",
    "total_examples": "length of a job to be told, but by n_epochs",
}


def remote_name_problem(name: str) -> str:
    """Say why a fine-tuning server's protocol does not know a setting."""
    if name in _NOT_REMOTE:
        return f"{name} cannot be set: the protocol of fine-tuning servers has no {_NOT_REMOTE[name]}. Leave it out."
    return unknown("setting of trainer remote", name, HYPERPARAMETERS)
