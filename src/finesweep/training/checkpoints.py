"""Folders of a trial: checkpoints to go on from, and the best weights to keep.

In: a running Trainer, trained parameters. Out: folders below the artifact folder that appear whole or not at all, in
`trial-0007/attempt-1/checkpoint-<optimizer step>` and `trial-0007/best-<step>`. It must not know reports or decisions.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import transformers
from safetensors.torch import load_file, save_file

from finesweep.errors import ModelError
from finesweep.layout import trial_dir
from finesweep.spec.sweep import Task
from finesweep.training.models import Model, load_model, resolve_model
from finesweep.training.tasks import Tokenizer, pad_id_of, task_kind

_MANIFEST = "checkpoint.json"  # names and sizes of the other files, and where the trial stood
_BEST = "best.json"
_TRAINED = "trained.safetensors"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Progress:
    """What the trainer's own files do not hold: the training loss since the last report."""

    optimizer_step: int
    loss_sum: float
    loss_steps: int


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
    """Where one attempt at a trial writes."""

    artifact_dir: Path
    number: int
    attempt: int

    @property
    def path(self) -> Path:
        return trial_dir(self.artifact_dir, self.number)

    def relative(self, path: Path) -> str:
        return path.relative_to(self.artifact_dir).as_posix()

    def newest_checkpoint(self) -> Checkpoint | None:
        """Find the furthest whole checkpoint of all attempts."""
        found = sorted(self.path.glob("attempt-*/checkpoint-*"), key=_optimizer_step, reverse=True)
        for path in found:
            try:
                return Checkpoint(path, _read_manifest(path))
            except (OSError, ValueError, KeyError, TypeError) as error:
                _log.warning("%s is not whole and is skipped: %s", path, error)
        return None

    def write_checkpoint(self, trainer: Any, trained: Mapping[str, Any], progress: Progress) -> Path:
        """Write what it takes to go on: trained weights, optimizer, scheduler, random states, position in the data.

        `trainer` is a transformers.Trainer. Older checkpoints of the trial are removed once this one is whole.
        """
        path = self.path / f"attempt-{self.attempt}" / f"checkpoint-{progress.optimizer_step}"

        def fill(folder: Path) -> None:
            save_file(_contiguous(trained), folder / "model.safetensors")
            # the Trainer's own files, in its own layout: `train(resume_from_checkpoint=…)` reads them
            trainer._save_optimizer_and_scheduler(str(folder))
            trainer._save_scaler(str(folder))
            trainer._save_rng_state(str(folder))
            trainer.state.save_to_json(str(folder / "trainer_state.json"))
            sizes = {file.name: file.stat().st_size for file in folder.iterdir()}
            manifest = {"files": sizes, "progress": dataclasses.asdict(progress)}
            (folder / _MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")

        _write_whole(path, fill)
        for older in self.path.glob("attempt-*/checkpoint-*"):
            if older != path:
                shutil.rmtree(older, ignore_errors=True)
        return path

    def best(self) -> Best | None:
        """Find the best weights kept so far, by any attempt."""
        found = []
        for path in self.path.glob("best-*"):
            try:
                facts = json.loads((path / _BEST).read_text(encoding="utf-8"))
                found.append(Best(path, facts["step"], facts["value"]))
            except (OSError, ValueError, KeyError) as error:
                _log.warning("%s is not whole and is skipped: %s", path, error)
        return max(found, key=lambda best: best.step, default=None)  # each was better than those before it

    def write_best(
        self,
        model: Model,
        tokenizer: Tokenizer,
        trained: Mapping[str, Any],
        *,
        reference: str,
        task: Task,
        step: int,
        value: float,
    ) -> Path:
        """Keep the weights as they are now, not those kept before. A model trained whole is a plain model folder."""
        path = self.path / f"best-{step}"
        is_whole = len(trained) == len(list(model.named_parameters()))

        def fill(folder: Path) -> None:
            if is_whole:
                model.save_pretrained(folder)
            else:
                model.config.save_pretrained(folder)
                save_file(_contiguous(trained), folder / _TRAINED)
            tokenizer.save_pretrained(folder)
            facts = {"step": step, "value": value, "task": task, "model": reference}
            (folder / _BEST).write_text(json.dumps(facts, indent=1), encoding="utf-8")

        _write_whole(path, fill)
        for older in self.path.glob("best-*"):
            if older != path:
                shutil.rmtree(older, ignore_errors=True)
        return path

    def remove_checkpoints(self) -> None:
        for path in [*self.path.glob("attempt-*"), *self.path.glob(".best-*")]:  # also what a killed worker left
            shutil.rmtree(path, ignore_errors=True)

    def remove(self) -> None:
        """Remove all weights of the trial; its log stays."""
        self.remove_checkpoints()
        for path in self.path.glob("best-*"):
            shutil.rmtree(path, ignore_errors=True)


def load_trained(folder: Path, *, cache_dir: Path) -> Model:
    """Load the weights that a trial kept; where only some were trained, the others come from the sweep's model."""
    try:
        facts = json.loads((folder / _BEST).read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"{folder} holds no weights of a trial ({error.strerror}). Name a best-… folder.") from error
    kind = task_kind(facts["task"])
    if not (folder / _TRAINED).exists():
        return kind.model_class.from_pretrained(folder)
    config = transformers.AutoConfig.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    labels = [config.id2label[i] for i in sorted(config.id2label)]
    source = resolve_model(facts["model"], cache_dir=cache_dir)
    model, _ = load_model(source, task=facts["task"], labels=labels, pad_id=pad_id_of(tokenizer), seed=0)
    _, unknown = model.load_state_dict(load_file(folder / _TRAINED), strict=False)
    if unknown:
        raise ModelError(f"{folder} does not fit the model {facts['model']}: it has no {', '.join(sorted(unknown))}.")
    return model


def _optimizer_step(path: Path) -> int:
    number = path.name.removeprefix("checkpoint-")
    return int(number) if number.isdecimal() else -1


def _read_manifest(path: Path) -> Progress:
    manifest = json.loads((path / _MANIFEST).read_text(encoding="utf-8"))
    for name, size in manifest["files"].items():
        if (found := (path / name).stat().st_size) != size:
            raise ValueError(f"{name} has {found} bytes instead of {size}")
    return Progress(**manifest["progress"])


def _contiguous(tensors: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tensor.detach().contiguous() for name, tensor in tensors.items()}


def _write_whole(path: Path, fill: Callable[[Path], None]) -> None:
    """Fill a folder beside `path`, make it durable, and move it into place."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        fill(beside)
        for file in [*beside.iterdir(), beside]:
            _sync(file)
        shutil.rmtree(path, ignore_errors=True)
        beside.replace(path)
        _sync(path.parent)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
