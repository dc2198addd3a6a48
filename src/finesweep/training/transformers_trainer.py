"""The Trainer behind the seam: one per worker process, trials one after another.

In: a resolved sweep, its grid, two folders. Out: attempt results. Data, tokenizer and base weights are loaded once; a
trial leaves nothing behind but what is on disk.
"""

from __future__ import annotations

import gc
import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import torch

from finesweep.errors import DataError, ModelError, ResourcesError
from finesweep.events import TEST_METRICS, AttemptResult, Ending, Grid, TrialSpec
from finesweep.spec.settings import settings_for
from finesweep.spec.sweep import DataSpec, TransformersSweep
from finesweep.trainer import Reporter, StackReporter
from finesweep.training.best_weights import load_trained
from finesweep.training.checkpoints import TrialFolder
from finesweep.training.encoding import pad_id_of
from finesweep.training.features.cache import FeatureCache
from finesweep.training.judge_rows import score_rows
from finesweep.training.memory import forget_trial, keep_to_share
from finesweep.training.model_files import resolve_model
from finesweep.training.models import BaseModel, load_tokenizer
from finesweep.training.precision import restored_products
from finesweep.training.prepare import Prepared, load_split, prepare
from finesweep.training.recipe import Shared, on_cpu, train
from finesweep.training.stack.recipe import Heads, StackOfOne
from finesweep.training.tracking import track

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TransformersTrainerFactory:
    """Picklable: called once in each worker.

    With fingerprints, those of the sweep's beginning, a worker refuses data and a model that are others by now: trials
    before and after would not be comparable. With `judges_test`, a trial that has come to its end is judged on the test
    rows as well, by its best weights, and that is told as a fact: no decision ever sees it. `memory_share` is what the
    worker may take of its GPU's memory; the rest is for those beside it.
    """

    spec: TransformersSweep
    grid: Grid
    artifact_dir: Path
    cache_dir: Path
    data_fingerprint: str | None = None
    model_fingerprint: str | None = None
    judges_test: bool = False
    memory_share: float = 1.0

    def __call__(self) -> TransformersTrainer:
        """Load what trials share. Raises ResourcesError, DataError or ModelError."""
        check_devices(self.spec)
        if not on_cpu(self.spec):
            keep_to_share(self.memory_share)
        if threads := os.environ.get("OMP_NUM_THREADS"):
            torch.set_num_threads(int(threads))  # torch reads it at import only, which may have been earlier
        prepared = prepare(self.spec, cache_dir=self.cache_dir)
        self._check_unchanged(prepared)
        shared = load_shared(self.spec, prepared, cache_dir=self.cache_dir)
        test = None
        if self.judges_test and prepared.n_test_rows:
            test = partial(_test_facts, self.spec, shared, load_split(prepared, "test"), cache_dir=self.cache_dir)
        gc.collect()
        gc.freeze()  # what is here now stays; looking through a million objects after each trial took most of a second
        return TransformersTrainer(self.spec, self.grid, self.artifact_dir, shared, test_facts=test)

    def _check_unchanged(self, prepared: Prepared) -> None:
        if self.data_fingerprint not in (None, prepared.data_fingerprint):
            raise DataError(
                f"data: {_named(self.spec.data)} has changed since the sweep began "
                f"(fingerprint {self.data_fingerprint}, now {prepared.data_fingerprint}). Restore the file, or begin a "
                "new sweep under another --name."
            )
        if self.model_fingerprint not in (None, prepared.model_fingerprint):
            raise ModelError(
                f"model: {self.spec.model.name} has changed since the sweep began "
                f"(fingerprint {self.model_fingerprint}, now {prepared.model_fingerprint}). Restore its files, or "
                "begin a new sweep under another --name."
            )


class TransformersTrainer:
    def __init__(
        self,
        spec: TransformersSweep,
        grid: Grid,
        artifact_dir: Path,
        shared: Shared,
        *,
        test_facts: Callable[[TrialSpec, Path], Mapping[str, Any]] | None = None,
    ) -> None:
        """Judge what trials keep by `test_facts`, given a trial and the folder of its best weights."""
        self._spec, self._grid, self._artifact_dir, self._shared = spec, grid, artifact_dir, shared
        self._test_facts = test_facts
        self._heads = Heads(spec, grid, shared, artifact_dir=artifact_dir)

    def run(self, trial: TrialSpec, reporter: Reporter) -> AttemptResult:
        forget_trial()  # one that failed was held by its exception until now
        try:
            with restored_products():
                return track(
                    trial,
                    reporter,
                    spec=self._spec,
                    trackers=self._spec.training.report_to,
                    artifact_dir=self._artifact_dir,
                    train=partial(self._train_and_judge, trial),
                )
        finally:
            forget_trial()

    def can_stack(self, trials: Sequence[TrialSpec]) -> bool:
        """Tell whether trials train heads that can be lanes of one computation. Computes features if nobody has yet."""
        return self._heads.can_train(trials)

    def run_stack(self, trials: Sequence[TrialSpec], reporter: StackReporter) -> None:
        """Train heads as lanes of one computation."""
        forget_trial()
        self._heads.train(trials, reporter)

    def _train_and_judge(self, trial: TrialSpec, reporter: Reporter) -> AttemptResult:
        result = self._train(trial, reporter)
        best = result.artifacts.get("best")
        if self._test_facts is not None and result.ending is Ending.DONE and best is not None:
            forget_trial()
            reporter.describe(self._test_facts(trial, self._artifact_dir / best))
        return result

    def _train(self, trial: TrialSpec, reporter: Reporter) -> AttemptResult:
        if self._heads.can_train([trial]):
            alone = StackOfOne(reporter)
            self._heads.train([trial], alone)
            return alone.result
        self._heads.let_go()
        folder = TrialFolder.of(trial, self._artifact_dir, self._spec.artifacts)
        return train(trial, reporter, spec=self._spec, grid=self._grid, shared=self._shared, folder=folder)


def load_shared(spec: TransformersSweep, prepared: Prepared, *, cache_dir: Path) -> Shared:
    source = resolve_model(spec.model, cache_dir=cache_dir)
    tokenizer = load_tokenizer(source)
    device = "cpu" if on_cpu(spec) else "cuda"
    base_model = BaseModel(source, task=spec.task, labels=prepared.labels, tokenizer=tokenizer, device=device)
    train, validation = load_split(prepared, "train"), load_split(prepared, "validation")
    return Shared(
        tokenizer=tokenizer,
        base_model=base_model,
        train=train,
        validation=validation,
        scoring=prepared.scoring,
        n_train_tokens=prepared.n_train_tokens,
        features=feature_cache(
            spec,
            base_model,
            prepared,
            data_key=prepared.folder.name,
            train=train,
            validation=validation,
            pad_id=pad_id_of(tokenizer),
            cache_dir=cache_dir,
        ),
    )


def feature_cache(
    spec: TransformersSweep,
    base_model: BaseModel,
    prepared: Prepared,
    *,
    data_key: str,
    train: datasets.Dataset,
    validation: datasets.Dataset,
    pad_id: int,
    cache_dir: Path,
) -> FeatureCache:
    """Keep what frozen layers compute of these rows; `data_key` names the rows, of whatever sweep."""
    return FeatureCache(
        spec,
        base_model,
        train=train,
        validation=validation,
        data_key=data_key,
        model_fingerprint=prepared.model_fingerprint,
        pad_id=pad_id,
        device="cpu" if on_cpu(spec) else "cuda",
        root=cache_dir / "features",
    )


def _test_facts(
    spec: TransformersSweep,
    shared: Shared,
    rows: datasets.Dataset,
    trial: TrialSpec,
    best_dir: Path,
    *,
    cache_dir: Path,
) -> Mapping[str, Any]:
    """Judge the weights that a trial kept by the test rows. A metric that is not finite is told as None."""
    metrics = score_rows(
        load_trained(best_dir, cache_dir=cache_dir),
        rows,
        scoring=shared.scoring,
        tokenizer=shared.tokenizer,
        settings=settings_for(spec.training, trial.configuration),
        use_cpu=on_cpu(spec),
        scratch_dir=best_dir.parent,
    )
    told = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
    said = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
    _log.info("on %d test rows, by the best weights: %s", len(rows), said)
    return {TEST_METRICS: told, "n_test_rows": len(rows)}


def _named(data: DataSpec) -> str:
    """Name where the rows of trials come from."""
    files = [value for value in (data.train, data.validation) if isinstance(value, str)]
    return data.dataset or " or ".join(files)


def check_devices(spec: TransformersSweep) -> None:
    """Raise ResourcesError unless this process sees one GPU at most: transformers would spread a trial over all."""
    n = 0 if on_cpu(spec) else torch.cuda.device_count()
    if n > 1:
        raise ResourcesError(
            f"this process sees {n} GPUs (CUDA_VISIBLE_DEVICES={os.environ.get('CUDA_VISIBLE_DEVICES', 'not set')}), "
            "but a trial runs on one. Name one before starting, for example CUDA_VISIBLE_DEVICES=0, or set "
            "resources.devices: cpu."
        )
