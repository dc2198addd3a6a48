"""What happens after each optimizer step of an attempt: reports on the grid, polls, checkpoints, the best weights.

In: what trains, what its optimizer steps came to. Out: reports to be answered, files in the trial's folder, how the
attempt ended. It must not know what trains, or whether it trains one trial or several at once.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from finesweep.events import AttemptResult, Decision, Ending, Grid, Report
from finesweep.layout import samples_path, size_of
from finesweep.spec.evaluation_rules import measured_metrics
from finesweep.spec.sweep import COSTS, TrainingSpec, TransformersSweep
from finesweep.trainer import naming_disk
from finesweep.training.checkpoints import Checkpoint, Progress, TrialFolder
from finesweep.training.generation import Sample, append_samples
from finesweep.training.judging import Watched, is_diverged, note_loss, note_value
from finesweep.training.quota import NoRoomError
from finesweep.training.schedule import Schedule, end_step, off_grid_step, steps_reached

NOTHING_TOLD = -1

Reports = Generator[Report, Decision, bool]  # what is to be told, and each time answered; in the end: is it over?

_log = logging.getLogger(__name__)


class Trained(Protocol):
    """What an attempt asks of whatever trains its weights."""

    @property
    def n_trainable(self) -> int: ...

    @property
    def samples(self) -> Sequence[Sample]:
        """What the model wrote when it was last scored."""

    def loss_at_start(self) -> float:
        """Return the mean training loss before the first update, or what ignorance costs if that is more."""

    def score(self) -> dict[str, float]:
        """Judge the weights as they are now by the validation rows."""

    def model_mib(self) -> float: ...

    def telemetry(self) -> dict[str, float]:
        """Tell how the device and the optimizer are: see `gauges`."""

    def keep_best(self, *, step: int, value: float) -> None:
        """Keep the weights as they are now, and not those kept before. Raises NoRoomError."""

    def write_checkpoint(self, progress: Progress) -> None:
        """Write what it takes to go on from here. Raises NoRoomError."""

    def settle(self) -> None:
        """Write what was kept and is not written yet. Raises NoRoomError."""


class Attempt:
    """Watches one attempt from step to step, and says in the end how it ended."""

    def __init__(
        self,
        trained: Trained,
        *,
        poll: Callable[[], Decision],
        describe: Callable[[Mapping[str, Any]], None],
        spec: TransformersSweep,
        grid: Grid,
        settings: TrainingSpec,
        schedule: Schedule,
        folder: TrialFolder,
        told_up_to: int = NOTHING_TOLD,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Steps up to `told_up_to` were told before memory ran out; what was told holds."""
        self._trained, self._poll, self._describe = trained, poll, describe
        self._spec, self._grid, self._settings, self._schedule = spec, grid, settings, schedule
        self._folder = folder
        self.told_up_to = told_up_to
        self._clock = clock
        self._last_checkpoint_s = self._working_since_s = clock()
        self._train_seconds = 0.0
        self._loss_sum, self._loss_steps = 0.0, 0
        self._watched = Watched()
        self._has_told_divergence = False
        self._is_over = False
        self._reason: str | None = None  # of an end before the schedule's
        self._decision = Decision.CONTINUE
        self._no_room: dict[str, Any] = {}  # facts of what the quota did not hold
        best = folder.best()
        self._best_value = best.value if best else None
        self._best_step = best.step if best else None

    def go_on_from(self, checkpoint: Checkpoint) -> None:
        progress = checkpoint.progress
        told = progress.best_value
        if told is not None and self._spec.study.objective.is_better(told, self._best_value):
            self._best_value = told  # of weights that did not fit the quota: lesser ones must not stand for them
        self._loss_sum, self._loss_steps = progress.loss_sum, progress.loss_steps
        self._train_seconds, self._watched = progress.train_seconds, progress.watched

    def begin(self, optimizer_step: int) -> None:
        """Take note that training is about to begin, or to go on after `optimizer_step`."""
        if optimizer_step == 0:
            self._watched = replace(self._watched, start_loss=self._trained.loss_at_start())
        self._working_since_s = self._clock()

    def after_step(self, step: int, loss: float) -> Reports:
        """Take in an optimizer step and its mean loss; give the reports that are due now, one after another."""
        self._note(loss)
        is_last = step >= self._schedule.optimizer_steps
        reached = steps_reached(self._grid, self._schedule, step)

        if self._is_diverged() and not self._has_told_divergence:
            self._has_told_divergence = True  # at once; should it be let go on, the grid will tell the rest
            yield from self._report_divergence(step)
        elif reached or is_last:
            steps = (*reached, end_step(self._grid, self._schedule)) if is_last else reached
            yield from self._report(steps, step, is_last=is_last)
        self._is_over |= is_last

        if self._decision is Decision.CONTINUE and not self._is_over:
            self._decision = self._poll()
        is_due = bool(reached) and self._clock() - self._last_checkpoint_s >= self._settings.checkpoint_minutes * 60
        if not self._is_over and (self._decision is Decision.PAUSE or (self._decision is Decision.CONTINUE and is_due)):
            self._write_checkpoint(step)
        self._working_since_s = self._clock()
        return self._decision is not Decision.CONTINUE or self._is_over

    def end(self) -> AttemptResult:
        """Tidy the trial's folder and say how the attempt ended."""
        if self._decision is Decision.STOP:
            self._folder.clear()
            return AttemptResult(Ending.STOPPED)
        if self._decision is Decision.PAUSE and not self._is_over:
            return AttemptResult(Ending.PAUSED)
        self._keep(self._trained.settle)
        best = self._folder.best()
        self._folder.clear(but=best.path if best else None)
        if best is None:
            return AttemptResult(Ending.DONE, self._reason)
        return AttemptResult(
            Ending.DONE,
            self._reason,
            artifacts={"best": self._folder.relative(best.path)},
            artifact_bytes={"best": size_of(best.path)},
        )

    def _note(self, loss: float) -> None:
        """Take in an optimizer step; what comes after it, evaluation and all, is no training time."""
        self._train_seconds += self._clock() - self._working_since_s
        self._loss_sum += loss
        self._loss_steps += 1
        self._watched = note_loss(self._watched, loss)

    def _is_diverged(self) -> bool:
        return is_diverged(self._watched, factor=self._settings.divergence_factor)

    def _report(self, steps: tuple[int, ...], optimizer_step: int, *, is_last: bool) -> Generator[Report, Decision]:
        """Evaluate once and tell every step of the grid that this optimizer step is the first to reach.

        All of them, also after an answer of PAUSE: the checkpoint then written lies behind them. Only STOP cuts short.
        A trial that has come to its end is whole: none of them may prune it.
        """
        metrics = {**self._trained.score(), "train_loss": self._take_train_loss(), **self._costs()}
        self._keep_samples(steps[0])
        value = metrics[self._spec.study.objective.metric]
        self._is_over = self._has_lost_patience(value) or is_last
        before = self.told_up_to
        for step in steps:
            yield from self._tell(step, metrics, optimizer_step, is_final=self._is_over)
            if self._decision is Decision.STOP:
                return
        if steps[-1] > before:  # the weights kept belong to the value told, and that one holds
            self._keep_best(value, step=steps[-1])

    def _keep_samples(self, step: int) -> None:
        path = samples_path(self._folder.artifact_dir, self._folder.number)
        with naming_disk(self._folder.path):
            append_samples(path, self._trained.samples, step=step)

    def _has_lost_patience(self, value: float) -> bool:
        settings, objective = self._settings, self._spec.study.objective
        self._watched = note_value(self._watched, value, objective, min_delta=settings.early_stopping_min_delta)
        patience = settings.early_stopping_patience
        if patience is None or self._watched.n_without < patience:
            return False
        self._reason = "early stopping"
        return True

    def _report_divergence(self, optimizer_step: int) -> Generator[Report, Decision]:
        """Tell that the weights are worth nothing now: no evaluation, only what training cost them."""
        unknown = dict.fromkeys(measured_metrics(self._spec.task, self._spec.evaluation), math.nan)
        metrics = {**unknown, "train_loss": self._take_train_loss(), **self._costs()}
        step = off_grid_step(self._grid, self._schedule, optimizer_step)
        is_final = optimizer_step >= self._schedule.optimizer_steps
        yield from self._tell(step, metrics, optimizer_step, is_final=is_final)

    def _take_train_loss(self) -> float:
        """Return the mean training loss since the last report."""
        loss = self._loss_sum / self._loss_steps
        self._loss_sum, self._loss_steps = 0.0, 0
        return loss

    def _costs(self) -> dict[str, float]:
        """Return what the objectives name of a trial's costs."""
        costs = {
            "trainable_parameters": self._trained.n_trainable,
            "model_mib": self._trained.model_mib(),
            "train_seconds": self._train_seconds,
        }
        assert costs.keys() == COSTS.keys(), "every cost of the spec is told here"
        return {o.metric: costs[o.metric] for o in self._spec.study.objectives if o.metric in costs}

    def _tell(
        self, step: int, metrics: Mapping[str, float], optimizer_step: int, *, is_final: bool
    ) -> Generator[Report, Decision]:
        if step <= self.told_up_to:
            return
        examples_seen = self._schedule.examples_at(optimizer_step)
        telemetry = self._trained.telemetry()
        decision = yield Report(step, metrics, examples_seen, final=is_final, telemetry=telemetry)
        self.told_up_to = step
        said = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
        of_trial = {"trial": self._folder.number}  # whose log it goes to, where several train at once
        _log.info("step %d, %d examples seen, %s: %s", step, examples_seen, said, decision, extra=of_trial)
        if self._decision is not Decision.STOP and decision is not Decision.CONTINUE:
            self._decision = decision

    def _keep_best(self, value: float, *, step: int) -> None:
        objective = self._spec.study.objective
        if self._spec.artifacts.keep == "none":
            return
        if objective.value == "last":
            if not self._is_over:
                return
        elif not math.isfinite(value) or not objective.is_better(value, self._best_value):
            return
        self._best_value, self._best_step = value, step
        self._keep(lambda: self._trained.keep_best(step=step, value=value))

    def _keep(self, write: Callable[[], None]) -> None:
        """Keep the best weights; where the quota does not hold them, the trial goes on and will have none to show."""
        try:
            write()
        except NoRoomError as error:
            self._best_step = None
            self._say_no_room("its best weights are not kept", error, weights_kept=False)
        else:
            if self._best_step is not None and "weights_kept" in self._no_room:
                del self._no_room["weights_kept"]
                self._describe({"weights_kept": True})

    def _write_checkpoint(self, optimizer_step: int) -> None:
        """Write a checkpoint; where the quota does not hold it, the trial goes on, and risks more with its worker."""
        self._keep(self._trained.settle)  # what is kept must not be later than what one goes on from
        progress = Progress(
            optimizer_step,
            self._loss_sum,
            self._loss_steps,
            self._train_seconds,
            self._watched,
            best_value=self._best_value,
            best_step=self._best_step,
        )
        try:
            self._trained.write_checkpoint(progress)
        except NoRoomError as error:
            n = self._no_room.get("checkpoints_skipped", 0) + 1
            self._say_no_room("a checkpoint of it is not written", error, checkpoints_skipped=n)
        self._last_checkpoint_s = self._clock()

    def _say_no_room(self, what: str, error: NoRoomError, **facts: Any) -> None:
        """Warn once of each kind, and count it in the trial's facts."""
        if not facts.keys() <= self._no_room.keys():
            _log.warning("trial %d: %s: %s", self._folder.number, what, error, extra={"trial": self._folder.number})
        self._no_room |= facts
        self._describe(facts)


def tell_all(reports: Reports, report: Callable[[Report], Decision]) -> bool:
    """Tell the reports that are due after a step, each once the one before is answered. Say whether it is over."""
    try:
        due = next(reports)
        while True:
            due = reports.send(report(due))
    except StopIteration as end:
        is_over: bool = end.value
        return is_over
