"""One trial under transformers' Trainer: between its callbacks and the attempt that watches it.

In: a running trainer, the trial's folder. Out: what the attempt asks for, and the trainer stopped when it is over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import transformers

from finesweep.events import Decision, Report
from finesweep.spec.sweep import TrainingSpec, TransformersSweep
from finesweep.training.attempt import Attempt, tell_all
from finesweep.training.checkpoints import Progress, TrialFolder
from finesweep.training.encoding import Tokenizer
from finesweep.training.generation import Sample
from finesweep.training.hf_trainer import SweepTrainer
from finesweep.training.quota import bytes_to_write


class TrainedModel:
    """What an attempt asks of a trial, of a trainer."""

    def __init__(
        self,
        trainer: SweepTrainer,
        settings: TrainingSpec,
        *,
        spec: TransformersSweep,
        folder: TrialFolder,
        tokenizer: Tokenizer,
    ) -> None:
        self._trainer, self._settings, self._spec = trainer, settings, spec
        self._folder, self._tokenizer = folder, tokenizer

    @property
    def n_trainable(self) -> int:
        return self._trainer.trainable.n_trainable

    @property
    def samples(self) -> Sequence[Sample]:
        return self._trainer.samples

    def loss_at_start(self) -> float:
        return self._trainer.loss_at_start()

    def score(self) -> dict[str, float]:
        return self._trainer.score()

    def model_mib(self) -> float:
        return self._trainer.model_mib()

    def keep_best(self, *, step: int, value: float) -> None:
        self._folder.write_best(
            self._trainer.model,
            self._tokenizer,
            self._trainer.trained_weights(),
            model_spec=self._spec.model,
            task=self._spec.task,
            settings=self._settings,
            step=step,
            value=value,
        )

    def telemetry(self) -> dict[str, float]:
        return self._trainer.telemetry()

    def write_checkpoint(self, progress: Progress) -> None:
        n_bytes = bytes_to_write(self._trainer.trained_weights(), self._trainer.optimizer.state_dict())
        self._folder.write_checkpoint(self._fill, progress, n_bytes=n_bytes)

    def settle(self) -> None:
        """Nothing: what is kept is written at once."""

    def _fill(self, folder: Path) -> None:
        """Write what the trainer goes on from: `SweepTrainer` reads it, in `train(resume_from_checkpoint=…)`."""
        self._trainer.write_state(folder)


class Watching(transformers.TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
    """Tells an attempt of a trainer's steps, and ends the training when the attempt is over."""

    def __init__(self, trainer: SweepTrainer, attempt: Attempt, report: Callable[[Report], Decision]) -> None:
        self._trainer, self._attempt, self._report = trainer, attempt, report

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._attempt.begin(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        due = self._attempt.after_step(state.global_step, self._trainer.take_loss())
        if tell_all(due, self._report):
            control.should_training_stop = True
