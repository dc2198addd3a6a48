"""Folders of a trial: checkpoints to go on from, and the best weights to keep.

In: a running Trainer, trained parameters. Out: folders below the artifact folder that appear whole or not at all, in
`trial-0007/attempt-1/checkpoint-<optimizer step>` and `trial-0007/attempt-1/best-<step>`. It must not know reports or
decisions.

A running trial has its last two checkpoints: should the newer one turn out damaged, the one before it is used.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finesweep.events import TrialSpec
from finesweep.layout import (
    PartKind,
    attempt_dir,
    attempts_of,
    best_name,
    checkpoint_name,
    parts_of,
    step_of,
    trial_dir,
)
from finesweep.spec.sweep import Artifacts, ModelSpec, Task, TrainingSpec
from finesweep.trainer import naming_disk
from finesweep.training.best_weights import BEST, bytes_of_weights, write_weights
from finesweep.training.encoding import Tokenizer
from finesweep.training.judging import Watched
from finesweep.training.manifest import DamagedError, Manifest, check_contents, check_sizes, manifest_of
from finesweep.training.models import Model
from finesweep.training.quota import NoRoomError, reserve, settle
from finesweep.training.whole_folder import write_whole

_MANIFEST = "checkpoint.json"  # what the other files are, and where the trial stood
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError)  # what damaged JSON leads to

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Progress:
    """What the trainer's own files do not hold."""

    optimizer_step: int
    loss_sum: float  # training loss since the last report
    loss_steps: int
    train_seconds: float  # of the trial so far, without evaluations
    watched: Watched
    best_value: float | None = None  # the best value told so far that weights were to be kept of
    best_step: int | None = None  # whose weights were kept; None: none were, or they did not fit the quota


@dataclass(frozen=True, slots=True)
class Checkpoint:
    path: Path
    progress: Progress


@dataclass(frozen=True, slots=True)
class Best:
    path: Path
    step: int
    value: float


@dataclass(frozen=True, slots=True)
class TrialFolder:
    """Where one attempt at a trial writes. What it and earlier ones wrote it reads and removes, never a later one's.

    A worker that outlived its driver may still be at work when the trial's next attempt has begun. As soon as that has
    its folder, the old one removes nothing at all: the new one may go on from, or point at, any of it.
    """

    artifact_dir: Path
    number: int
    attempt: int
    quota_bytes: int | None = None  # for the weights and checkpoints of all trials; None: no limit

    @classmethod
    def of(cls, trial: TrialSpec, artifact_dir: Path, artifacts: Artifacts) -> TrialFolder:
        """Give the folder of an attempt, held to the sweep's quota."""
        return cls(artifact_dir, trial.number, trial.attempt, artifacts.quota_bytes)

    @property
    def path(self) -> Path:
        return trial_dir(self.artifact_dir, self.number)

    @property
    def attempt_path(self) -> Path:
        return attempt_dir(self.artifact_dir, self.number, self.attempt)

    def begin(self) -> None:
        """Make the attempt's folder, by which earlier attempts know that they are overtaken.

        Of what these left, what was never finished is removed, and what is not what it was when it was written.
        """
        with naming_disk(self.artifact_dir):
            self.attempt_path.mkdir(parents=True, exist_ok=True)
        self._remove(self._found(PartKind.HALF_WRITTEN))
        for kind, name in ((PartKind.CHECKPOINT, _MANIFEST), (PartKind.WEIGHTS, BEST)):
            for path in self._found(kind):
                try:
                    check_contents(path, _files_of(_read(path / name)))
                except (DamagedError, *_UNREADABLE) as error:
                    _log.warning("%s is not whole and is skipped: %s", path, _one_line(error))
                    if not isinstance(error, OSError) or isinstance(error, FileNotFoundError):
                        self._remove([path])

    def relative(self, path: Path) -> str:
        return path.relative_to(self.artifact_dir).as_posix()

    def newest_checkpoint(self, *, holding: str | None = None) -> Checkpoint | None:
        """Find the furthest whole checkpoint, of the kind that holds a file of that name.

        One that lies behind best weights which are lost by now is of no use: going on from it, the trial would never
        have them again.
        """
        best = self.best()
        for path in sorted(self._found(PartKind.CHECKPOINT), key=step_of, reverse=True):
            if holding is not None and not (path / holding).exists():
                _log.warning("%s is of a trial trained in another way and is skipped", path)
                continue
            try:
                progress = _read_progress(path)
            except (DamagedError, *_UNREADABLE) as error:
                _log.warning("%s is not whole and is skipped: %s", path, _one_line(error))
                continue
            if progress.best_step is not None and (best is None or best.step < progress.best_step):
                _log.warning(
                    "%s is skipped: the best weights before it, of step %d, are lost", path, progress.best_step
                )
                continue
            return Checkpoint(path, progress)
        return None

    def write_checkpoint(self, fill: Callable[[Path], None], progress: Progress, *, n_bytes: int) -> Path:
        """Write what it takes to go on: `fill` writes what the trainer needs, at most so many bytes.

        Once it is whole, the trial's other checkpoints but the newest are removed; before that, only as far as the
        quota demands. Raises NoRoomError where it does not fit all the same.
        """
        path = self.attempt_path / checkpoint_name(progress.optimizer_step)
        _, older = self._checkpoints_but(path)

        def fill_and_note(folder: Path) -> None:
            fill(folder)
            manifest = {"files": manifest_of(folder), "progress": dataclasses.asdict(progress)}
            (folder / _MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")

        self._write(path, fill_and_note, n_bytes=n_bytes, removable=older)
        self._remove(older)
        return path

    def best(self) -> Best | None:
        """Find the best weights kept so far: the last, for each was better than those before it."""
        for path in reversed(self._found(PartKind.WEIGHTS)):
            try:
                facts = _read(path / BEST)
                check_sizes(path, _files_of(facts))
                return Best(path, facts["step"], facts["value"])
            except (DamagedError, *_UNREADABLE) as error:
                _log.warning("%s is not whole and is skipped: %s", path, _one_line(error))
        return None

    def write_best(
        self,
        model: Model,
        tokenizer: Tokenizer,
        trained: Mapping[str, Any],
        *,
        model_spec: ModelSpec,
        task: Task,
        settings: TrainingSpec,
        step: int,
        value: float,
    ) -> Path:
        """Keep the weights as they are now, not those kept before.

        Where the quota demands it, those kept before go first, and then the trial's checkpoints: what a trial leaves
        behind is worth more than the time that the death of its worker may cost. Raises NoRoomError where it does not
        fit all the same; then none are kept, for those before are no longer the best.
        """
        path = self.attempt_path / best_name(step)

        def fill(folder: Path) -> None:
            write_weights(
                folder,
                model,
                tokenizer,
                trained,
                model_spec=model_spec,
                task=task,
                settings=settings,
                step=step,
                value=value,
            )

        n_bytes = 0 if self.quota_bytes is None else bytes_of_weights(model, tokenizer, trained, settings=settings)
        before = [other for other in self._found(PartKind.WEIGHTS) if other != path]
        newest, older = self._checkpoints_but(None)
        try:
            self._write(path, fill, n_bytes=n_bytes, removable=[*older, *before, *newest])
        except NoRoomError:
            self._remove(before)
            raise
        self._remove(before)
        return path

    def clear(self, *, but: Path | None = None) -> None:
        """Remove all weights but those in `but`, also what a killed worker left half written; the trial's log stays."""
        self._remove(path for path in self._found(*PartKind) if path != but)

    def _checkpoints_but(self, new: Path | None) -> tuple[list[Path], list[Path]]:
        """Give the newest of the trial's checkpoints, if there is one, and the older ones beside it.

        One that is further than the new one was not gone on from, and was so for a reason.
        """
        others = [path for path in self._found(PartKind.CHECKPOINT) if path != new]
        further = [path for path in others if new is not None and step_of(path) > step_of(new)]
        usable = sorted((path for path in others if path not in further), key=step_of)
        return usable[-1:], [*further, *usable[:-1]]

    def _write(self, path: Path, fill: Callable[[Path], None], *, n_bytes: int, removable: Sequence[Path]) -> None:
        """Write a folder whole, of at most so many bytes, within the quota."""
        quota_bytes = self.quota_bytes
        if quota_bytes is None:
            write_whole(path, fill)
            return
        may_go = [] if self._is_overtaken() else removable

        def fill_reserved(folder: Path) -> None:
            reserve(self.artifact_dir, folder, n_bytes, quota_bytes=quota_bytes, removable=may_go)
            fill(folder)
            settle(self.artifact_dir, folder, n_bytes, quota_bytes=quota_bytes, removable=may_go)

        write_whole(path, fill_reserved)

    def _found(self, *kinds: PartKind) -> list[Path]:
        """List parts of this attempt and earlier ones, in the order of attempts and steps."""
        parts = parts_of(self.path)
        return [p.path for p in parts if p.kind in kinds and p.attempt is not None and p.attempt <= self.attempt]

    def _remove(self, folders: Iterable[Path]) -> None:
        if self._is_overtaken():
            return
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)

    def _is_overtaken(self) -> bool:
        return any(attempt > self.attempt for attempt in attempts_of(self.path))


def _read(path: Path) -> Any:  # Any: JSON
    return json.loads(path.read_text(encoding="utf-8"))


def _files_of(facts: Any) -> Manifest:
    manifest: Manifest = facts["files"]
    return manifest


def _read_progress(path: Path) -> Progress:
    manifest = _read(path / _MANIFEST)
    check_sizes(path, _files_of(manifest))
    progress = manifest["progress"]
    watched = progress.pop("watched")
    return Progress(**progress, watched=Watched(**{**watched, "recent_losses": tuple(watched["recent_losses"])}))


def _one_line(error: Exception) -> str:
    return str(error) if isinstance(error, DamagedError) else f"{type(error).__name__}: {error}"
