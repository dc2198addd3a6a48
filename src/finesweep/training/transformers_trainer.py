"""The Trainer behind the seam: one per worker process, trials one after another.

In: a resolved sweep, its grid, two folders. Out: attempt results. Data, tokenizer and base weights are loaded once; a
trial leaves nothing behind but what is on disk.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from finesweep.errors import DataError, ModelError, ResourcesError
from finesweep.events import AttemptResult, Grid, TrialSpec
from finesweep.spec.sweep import DataSpec, TransformersSweep
from finesweep.trainer import Reporter, StackReporter
from finesweep.training.checkpoints import TrialFolder
from finesweep.training.encoding import pad_id_of
from finesweep.training.features.cache import FeatureCache
from finesweep.training.memory import forget_trial
from finesweep.training.model_files import resolve_model
from finesweep.training.models import BaseModel, load_tokenizer
from finesweep.training.prepare import Prepared, load_split, prepare
from finesweep.training.recipe import Shared, on_cpu, train
from finesweep.training.stack.recipe import Heads, StackOfOne
from finesweep.training.tracking import track


@dataclass(frozen=True)
class TransformersTrainerFactory:
    """Picklable: called once in each worker.

    With fingerprints, those of the sweep's beginning, a worker refuses data and a model that are others by now: trials
    before and after would not be comparable.
    """

    spec: TransformersSweep
    grid: Grid
    artifact_dir: Path
    cache_dir: Path
    data_fingerprint: str | None = None
    model_fingerprint: str | None = None

    def __call__(self) -> TransformersTrainer:
        """Load what trials share. Raises ResourcesError, DataError or ModelError."""
        check_devices(self.spec)
        if threads := os.environ.get("OMP_NUM_THREADS"):
            torch.set_num_threads(int(threads))  # torch reads it at import only, which may have been earlier
        prepared = prepare(self.spec, cache_dir=self.cache_dir)
        self._check_unchanged(prepared)
        shared = load_shared(self.spec, prepared, cache_dir=self.cache_dir)
        gc.collect()
        gc.freeze()  # what is here now stays; looking through a million objects after each trial took most of a second
        return TransformersTrainer(self.spec, self.grid, self.artifact_dir, shared)

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
    def __init__(self, spec: TransformersSweep, grid: Grid, artifact_dir: Path, shared: Shared) -> None:
        self._spec, self._grid, self._artifact_dir, self._shared = spec, grid, artifact_dir, shared
        self._heads = Heads(spec, grid, shared, artifact_dir=artifact_dir)

    def run(self, trial: TrialSpec, reporter: Reporter) -> AttemptResult:
        forget_trial()  # one that failed was held by its exception until now
        try:
            return track(
                trial,
                reporter,
                spec=self._spec,
                trackers=self._spec.training.report_to,
                artifact_dir=self._artifact_dir,
                train=partial(self._train, trial),
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
        features=FeatureCache(
            spec,
            base_model,
            train=train,
            validation=validation,
            data_key=prepared.folder.name,
            model_fingerprint=prepared.model_fingerprint,
            pad_id=pad_id_of(tokenizer),
            device=device,
            root=cache_dir / "features",
        ),
    )


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
