"""The recipe of heads trained together, from the settings of trials to their ends.

In: trials, what the trials of a worker share, the stack's reporter. Out: facts, reports and endings of each trial. It
must not know Ray, or how decisions are made.
"""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
import transformers

from finesweep.events import AttemptResult, Decision, Grid, Report, TrialSpec
from finesweep.spec.settings import settings_for
from finesweep.spec.stacking import head_key
from finesweep.spec.sweep import TrainingSpec, TransformersSweep
from finesweep.trainer import Reporter, StackReporter, failed_by
from finesweep.training.attempt import Attempt
from finesweep.training.checkpoints import TrialFolder
from finesweep.training.facts import dtype_of, facts_at_start, facts_of_features
from finesweep.training.features.cache import Features
from finesweep.training.features.probing import add_noise
from finesweep.training.memory import is_out_of_memory
from finesweep.training.methods import Trainable
from finesweep.training.order import epoch_order, make_sampler
from finesweep.training.recipe import Shared, drops_last, on_cpu
from finesweep.training.schedule import Schedule, end_step, plan
from finesweep.training.stack.chance import Order
from finesweep.training.stack.head import read_head
from finesweep.training.stack.lane import OPTIMIZER, HeadTask, Lane, Rows, setting
from finesweep.training.stack.run import Running, train_lanes

_READ_ON = 8  # rows that a head's layers are read off

_log = logging.getLogger(__name__)


class Heads:
    """What a worker knows of the heads that its trials train: one task for each way to feed them."""

    def __init__(self, spec: TransformersSweep, grid: Grid, shared: Shared, *, artifact_dir: Path) -> None:
        self._spec, self._grid, self._shared, self._artifact_dir = spec, grid, shared, artifact_dir
        self._cache = shared.features
        self._prepared_cpu_s = 0.0
        self._feature_facts: Mapping[str, Any] = {}
        self._start: Hashable = None  # what `_untrained` was made for
        self._untrained: Trainable
        self._tasks: dict[Hashable, HeadTask | None] = {}
        self._order = lru_cache(maxsize=4)(self._make_order)  # lanes of a seed share the order of an epoch

    def can_train(self, trials: Sequence[TrialSpec]) -> bool:
        """Tell whether trials that are alike can be lanes of one computation. Computes features if nobody has yet."""
        began_cpu_s = time.process_time()
        is_possible = self._task(settings_for(self._spec.training, trials[0].configuration)) is not None
        self._prepared_cpu_s = time.process_time() - began_cpu_s
        return is_possible

    def train(self, trials: Sequence[TrialSpec], reporter: StackReporter) -> None:
        """Train them. What goes wrong in one lane fails that lane."""
        lanes = []
        for trial in trials:
            try:
                lanes.append(self._lane(trial, reporter, n_lanes=len(trials)))
            except Exception as error:
                _log.exception("trial %d failed", trial.number, extra={"trial": trial.number})
                reporter.end(trial.number, failed_by(error))
        if lanes:  # what was done for all of them is charged to the first
            lanes[0].cpu_s, self._prepared_cpu_s = self._prepared_cpu_s, 0.0
        train_lanes(lanes, reporter, at_end=partial(_tell_costs, reporter))

    def _task(self, settings: TrainingSpec) -> HeadTask | None:
        """Find what the lanes of these settings have in common; None where they have to be trained one by one."""
        key = head_key(self._spec, settings)
        if key is None or self._cache is None:
            return None
        features = self._cache.find(settings)  # asked for each time: it notes that the store is in use
        if not isinstance(features, Features):
            return None
        self._feature_facts = facts_of_features(features)
        if key not in self._tasks:
            self._tasks[key] = self._read_if_it_fits(settings, features)
        return self._tasks[key]

    def let_go(self) -> None:
        """Free what is kept on a device between stacks: another kind of trial is about to need it."""
        self._tasks = {key: task for key, task in self._tasks.items() if task is None or task.device.type == "cpu"}

    def _read_if_it_fits(self, settings: TrainingSpec, features: Features) -> HeadTask | None:
        try:
            return self._read(settings, features)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            _log.info("the features of all rows do not fit the device: heads are trained one by one, batch by batch")
            return None

    def _read(self, settings: TrainingSpec, features: Features) -> HeadTask | None:
        device = torch.device("cpu" if on_cpu(self._spec) else "cuda")
        splits = (features.train, features.validation)
        rows = [
            Rows(split.vectors.to(device), torch.tensor(split.labels, device=device))
            for split in splits
            if split.vectors is not None
        ]
        if len(rows) < len(splits):
            return None
        shell = self._shell(settings)
        decayed = transformers.Trainer.get_decay_parameter_names(None, shell.model)  # which looks at the model alone
        task = HeadTask(
            layers=(),
            decayed=frozenset(decayed),
            train=rows[0],
            validation=rows[1],
            scoring=self._shared.scoring,
            autocast=torch.bfloat16 if setting(settings, "bf16") else None,
        )
        noisy = copy.deepcopy(shell.model).to(device)
        add_noise(noisy, shell.names)
        with task.precision():
            layers = read_head(noisy, rows[0].vectors[:_READ_ON], lambda m, vectors: m(features=vectors).logits)
        return None if layers is None else replace(task, layers=layers)

    def _lane(self, trial: TrialSpec, reporter: StackReporter, *, n_lanes: int) -> Running:
        settings = settings_for(self._spec.training, trial.configuration)
        found, task = self._feature_facts, self._task(settings)
        assert task is not None, "can_train said so"
        folder = TrialFolder.of(trial, self._artifact_dir, self._spec.artifacts)
        folder.begin()
        schedule = plan(settings, n_rows=len(task.train.labels), drop_last=drops_last(settings))
        shell = self._shell(settings)
        lane = Lane(
            task,
            settings,
            schedule,
            shell=shell,
            order=self._order_of(settings, schedule),
            write_best=self._write_best(folder, shell, settings),
            write_checkpoint=folder.write_checkpoint,
        )
        attempt = Attempt(
            lane,
            poll=partial(reporter.poll, trial.number),
            describe=partial(reporter.describe, trial.number),
            spec=self._spec,
            grid=self._grid,
            settings=settings,
            schedule=schedule,
            folder=folder,
        )
        checkpoint = folder.newest_checkpoint(holding=OPTIMIZER)
        if checkpoint is not None:
            attempt.go_on_from(checkpoint)
            lane.go_on_from(checkpoint)
        facts = facts_at_start(
            settings,
            schedule,
            shell,
            device=task.device,
            last_step=end_step(self._grid, schedule),
            resumed_from=folder.relative(checkpoint.path) if checkpoint else None,
        )
        reporter.describe(
            trial.number,
            {
                **facts,
                **found,
                "stacked_with": n_lanes - 1,
                "dtype": dtype_of(self._spec.model, bf16=task.autocast is not None, fp16=False),
                "tokens_per_epoch": self._shared.n_train_tokens,
            },
        )
        return Running(trial.number, lane, attempt, examples_before=schedule.examples_at(lane.optimizer_step))

    def _shell(self, settings: TrainingSpec) -> Trainable:
        """Return a head as it is before the first update; lanes have copies of its weights."""
        assert self._cache is not None, "features were found there"
        start = (head_key(self._spec, settings), settings.seed)
        if self._start != start:
            self._start, self._untrained = start, self._cache.shell(settings)
        return self._untrained

    def _write_best(self, folder: TrialFolder, shell: Trainable, settings: TrainingSpec) -> Callable[..., Path]:
        return partial(
            folder.write_best,
            shell.model,
            self._shared.tokenizer,
            model_spec=self._spec.model,
            task=self._spec.task,
            settings=settings,
        )

    def _order_of(self, settings: TrainingSpec, schedule: Schedule) -> Order:
        strategy, drop_last = setting(settings, "train_sampling_strategy"), drops_last(settings)
        by_batch = strategy == "group_by_length" or drop_last
        return self._order(strategy, schedule.batch_size if by_batch else 1, settings.seed, drop_last)

    def _make_order(self, strategy: str, batch_size: int, seed: int, drop_last: bool) -> Order:
        rows = self._shared.train
        return epoch_order(make_sampler(rows, strategy, batch_size=batch_size, seed=seed, drop_last=drop_last))


class StackOfOne:
    """Lets a trial by itself be trained as the only lane of a stack."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._result: AttemptResult | None = None

    @property
    def result(self) -> AttemptResult:
        assert self._result is not None, "every lane ends"
        return self._result

    def describe(self, number: int, facts: Mapping[str, Any]) -> None:
        self._reporter.describe(facts)

    def report(self, reports: Mapping[int, Report]) -> Mapping[int, Decision]:
        return {number: self._reporter.report(report) for number, report in reports.items()}

    def poll(self, number: int) -> Decision:
        return self._reporter.poll()

    def end(self, number: int, result: AttemptResult) -> None:
        self._result = result


def _tell_costs(reporter: StackReporter, running: Running) -> None:
    n_examples = running.lane.schedule.examples_at(running.lane.optimizer_step) - running.examples_before
    took_s = time.perf_counter() - running.began_s
    reporter.describe(running.number, {"cpu_seconds": running.cpu_s, "examples_per_second": n_examples / took_s})
