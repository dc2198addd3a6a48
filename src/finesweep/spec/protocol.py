"""What the protocol of fine-tuning servers fixes: its numbers, and where a request says hyperparameters.

Source: OpenAI's API reference, `POST /v1/fine_tuning/jobs` and `POST /v1/files`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

HYPERPARAMETERS = ("n_epochs", "batch_size", "learning_rate_multiplier")
MOST_EPOCHS, MOST_BATCH = 50, 256
LONGEST_SUFFIX = 40  # characters of what a model is called by; some servers take more
FEWEST_ROWS = 10  # of a file
MOST_BYTES = 512 * 2**20  # of a file
COMPLETION_MODELS, CHAT_MODELS = ("davinci-", "babbage-"), ("gpt-",)  # as their names begin

Form = Literal["method", "top-level"]


def request_part(hyperparameters: Mapping[str, Any], form: Form) -> dict[str, Any]:
    """Put hyperparameters where the body of a request has them: under the method, or at the top as older servers do."""
    if form == "method":
        return {"method": {"type": "supervised", "supervised": {"hyperparameters": dict(hyperparameters)}}}
    return {"hyperparameters": dict(hyperparameters)}
