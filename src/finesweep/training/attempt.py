"""What happens after each optimizer step of an attempt: reports on the grid, polls, checkpoints, the best weights.

In: a running trainer, a reporter. Out: reports, files in the trial's folder, how the attempt ended. It must not know
how a trainer is set up.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from typing import Any

import transformers

from finesweep.events import AttemptResult, Decision, Ending, Grid, Report
from finesweep.spec.evaluation_rules import measured_metrics
from finesweep.spec.sweep import SweepSpec, TrainingSpec
from finesweep.trainer import Reporter
from finesweep.training.checkpoints import Checkpoint, Progress, TrialFolder
from finesweep.training.encoding import Tokenizer
from finesweep.training.hf_trainer import SweepTrainer
from finesweep.training.schedule import Schedule, end_step, off_grid_step, steps_reached

_log = logging.getLogger(__name__)


class Attempt(transformers.TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
    """Watches one attempt as the trainer's callback, and says in the end how it ended."""

    def __init__(
        self,
        trainer: SweepTrainer,
        reporter: Reporter,
        *,
        spec: SweepSpec,
        grid: Grid,
        settings: TrainingSpec,
        schedule: Schedule,
        folder: TrialFolder,
        tokenizer: Tokenizer,
    ) -> None:
        self._trainer, self._reporter = trainer, reporter
        self._spec, self._grid, self._schedule = spec, grid, schedule
        self._checkpoint_s = settings.checkpoint_minutes * 60
        self._folder, self._tokenizer = folder, tokenizer
        self._loss_sum, self._loss_steps = 0.0, 0
        self._is_finite = True
        self._last_checkpoint_s = time.monotonic()
        self._decision = Decision.CONTINUE
        best = folder.best()
        self._best_value = best.value if best else None

    def go_on_from(self, checkpoint: Checkpoint) -> None:
        self._loss_sum, self._loss_steps = checkpoint.progress.loss_sum, checkpoint.progress.loss_steps

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        loss = self._trainer.take_loss()
        self._loss_sum += loss
        self._loss_steps += 1
        step = state.global_step
        is_over = step >= self._schedule.optimizer_steps
        reached = steps_reached(self._grid, self._schedule, step)

        if not math.isfinite(loss) and self._is_finite:
            self._is_finite = False  # told once, at once; should it be let go on, the grid will tell the rest
            self._report_divergence(step, loss)
        elif reached or is_over:
            self._report(reached, step, is_over=is_over)

        if self._decision is Decision.CONTINUE and not is_over:
            self._decision = self._reporter.poll()
        is_due = bool(reached) and time.monotonic() - self._last_checkpoint_s >= self._checkpoint_s
        if not is_over and (self._decision is Decision.PAUSE or (self._decision is Decision.CONTINUE and is_due)):
            self._write_checkpoint(step)
        if self._decision is not Decision.CONTINUE:
            control.should_training_stop = True

    def end(self) -> AttemptResult:
        """Tidy the trial's folder and say how the attempt ended."""
        if self._decision is Decision.STOP:
            self._folder.clear()
            return AttemptResult(Ending.STOPPED)
        if self._decision is Decision.PAUSE and self._trainer.state.global_step < self._schedule.optimizer_steps:
            return AttemptResult(Ending.PAUSED)
        best = self._folder.best()
        self._folder.clear(but=best.path if best else None)
        return AttemptResult(Ending.DONE, artifacts={"best": self._folder.relative(best.path)} if best else {})

    def _report(self, reached: tuple[int, ...], optimizer_step: int, *, is_over: bool) -> None:
        """Evaluate once and tell every step of the grid that this optimizer step is the first to reach.

        All of them, also after an answer of PAUSE: the checkpoint then written lies behind them. Only STOP cuts short.
        """
        metrics = self._trainer.score()
        metrics["train_loss"] = self._loss_sum / self._loss_steps
        self._loss_sum, self._loss_steps = 0.0, 0
        steps = (*reached, end_step(self._grid, self._schedule)) if is_over else reached
        for step in steps:  # a trial that has made its last optimizer step is whole: none of these may prune it
            self._tell(step, metrics, optimizer_step, is_final=is_over)
            if self._decision is Decision.STOP:
                return
        self._keep_best(metrics[self._spec.study.objective.metric], step=steps[-1], is_over=is_over)

    def _report_divergence(self, optimizer_step: int, loss: float) -> None:
        """Tell a loss that is not finite without evaluating: the weights are worth nothing now."""
        metrics = dict.fromkeys((*measured_metrics(self._spec.task, self._spec.evaluation), "train_loss"), math.nan)
        step = off_grid_step(self._grid, self._schedule, optimizer_step)
        is_final = optimizer_step >= self._schedule.optimizer_steps
        self._tell(step, {**metrics, "loss": loss, "train_loss": loss}, optimizer_step, is_final=is_final)

    def _tell(self, step: int, metrics: Mapping[str, float], optimizer_step: int, *, is_final: bool) -> None:
        examples_seen = self._schedule.examples_at(optimizer_step)
        decision = self._reporter.report(Report(step, metrics, examples_seen, final=is_final))
        said = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
        _log.info("step %d, %d examples seen, %s: %s", step, examples_seen, said, decision)
        if self._decision is not Decision.STOP and decision is not Decision.CONTINUE:
            self._decision = decision

    def _keep_best(self, value: float, *, step: int, is_over: bool) -> None:
        objective = self._spec.study.objective
        if self._spec.artifacts.keep == "none":
            return
        if objective.value == "last":
            if not is_over:
                return
        elif not math.isfinite(value) or not objective.is_better(value, self._best_value):
            return
        self._best_value = value
        self._folder.write_best(
            self._trainer.model,
            self._tokenizer,
            self._trainer.trained_weights(),
            reference=self._spec.model.name,
            task=self._spec.task,
            step=step,
            value=value,
        )

    def _write_checkpoint(self, optimizer_step: int) -> None:
        progress = Progress(optimizer_step, self._loss_sum, self._loss_steps)
        self._folder.write_checkpoint(self._trainer, self._trainer.trained_weights(), progress)
        self._last_checkpoint_s = time.monotonic()
