"""Folders of a trial: checkpoints to go on from, and the best weights to keep.

In: a running Trainer, trained parameters. Out: folders below the artifact folder that appear whole or not at all, in
`trial-0007/attempt-1/checkpoint-<optimizer step>` and `trial-0007/attempt-1/best-<step>`. It must not know reports or
decisions.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import transformers
from safetensors.torch import load_file, save_file

from finesweep.errors import ModelError
from finesweep.layout import trial_dir
from finesweep.spec.sweep import ModelSpec, Task, TrainingSpec
from finesweep.training.adapters import ADAPTERS, is_adapted, load_adapters, save_adapters
from finesweep.training.encoding import Tokenizer, pad_id_of
from finesweep.training.judging import Watched
from finesweep.training.model_files import resolve_model
from finesweep.training.models import Model, load_model, load_tokenizer
from finesweep.training.pooling import add_pooling
from finesweep.training.whole_folder import write_whole

_MANIFEST = "checkpoint.json"  # names and sizes of the other files, and where the trial stood
_BEST = "best.json"
_TRAINED = "trained.safetensors"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Progress:
    """What the trainer's own files do not hold."""

    optimizer_step: int
    loss_sum: float  # training loss since the last report
    loss_steps: int
    train_seconds: float  # of the trial so far, without evaluations
    watched: Watched


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

    @property
    def path(self) -> Path:
        return trial_dir(self.artifact_dir, self.number)

    @property
    def attempt_path(self) -> Path:
        return self.path / f"attempt-{self.attempt}"

    def begin(self) -> None:
        """Make the attempt's folder, by which earlier attempts know that they are overtaken."""
        self.attempt_path.mkdir(parents=True, exist_ok=True)

    def relative(self, path: Path) -> str:
        return path.relative_to(self.artifact_dir).as_posix()

    def newest_checkpoint(self, *, holding: str | None = None) -> Checkpoint | None:
        """Find the furthest whole checkpoint, of the kind that holds a file of that name."""
        for path in sorted(self._found("checkpoint-*"), key=_number_in_name, reverse=True):
            if holding is not None and not (path / holding).exists():
                _log.warning("%s is of a trial trained in another way and is skipped", path)
                continue
            try:
                return Checkpoint(path, _read_manifest(path))
            except (OSError, ValueError, KeyError, TypeError) as error:
                _log.warning("%s is not whole and is skipped: %s", path, error)
        return None

    def write_checkpoint(self, fill: Callable[[Path], None], progress: Progress) -> Path:
        """Write what it takes to go on: `fill` writes what the trainer needs, and only its kind can read.

        Older checkpoints of the trial are removed once this one is whole.
        """
        path = self.attempt_path / f"checkpoint-{progress.optimizer_step}"

        def fill_and_note(folder: Path) -> None:
            fill(folder)
            sizes = {file.name: file.stat().st_size for file in folder.iterdir()}
            manifest = {"files": sizes, "progress": dataclasses.asdict(progress)}
            (folder / _MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")

        write_whole(path, fill_and_note)
        self._remove(older for older in self._found("checkpoint-*") if older != path)
        return path

    def best(self) -> Best | None:
        """Find the best weights kept so far: the last, for each was better than those before it."""
        by_age = sorted(self._found("best-*"), key=lambda path: (_number_in_name(path.parent), _number_in_name(path)))
        for path in reversed(by_age):
            try:
                facts = json.loads((path / _BEST).read_text(encoding="utf-8"))
                return Best(path, facts["step"], facts["value"])
            except (OSError, ValueError, KeyError) as error:
                _log.warning("%s is not whole and is skipped: %s", path, error)
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

        A model trained whole is a plain model folder, adapters are an adapter folder as peft writes it. Of a head and
        blocks only these are kept, for `load_trained`: the frozen rest would be most of a copy of the model each trial.
        How states were pooled stands beside them: plain transformers knows of no such thing.
        """
        path = self.attempt_path / f"best-{step}"

        def fill(folder: Path) -> None:
            if is_adapted(model):
                save_adapters(model, folder)
            elif settings.method == "full":
                model.save_pretrained(folder)
            else:
                model.config.save_pretrained(folder)
                save_file(contiguous(trained), folder / _TRAINED)
            if is_adapted(model) or settings.method == "full":  # folders that others can load as they are
                tokenizer.save_pretrained(folder)
            labels = list(model.config.id2label.values())
            loaded_from = model_spec.model_dump(mode="json")
            facts: dict[str, object] = {
                "step": step,
                "value": value,
                "task": task,
                "labels": labels,
                "model": loaded_from,
            }
            facts |= {"pooling": settings.pooling}
            (folder / _BEST).write_text(json.dumps(facts, indent=1), encoding="utf-8")

        write_whole(path, fill)
        self._remove(older for older in self._found("best-*") if older != path)
        return path

    def clear(self, *, but: Path | None = None) -> None:
        """Remove all weights but those in `but`, also what a killed worker left half written; the trial's log stays."""
        self._remove(path for path in self._found("*") if path != but)

    def _found(self, pattern: str) -> list[Path]:
        return [p for p in self.path.glob(f"attempt-*/{pattern}") if _number_in_name(p.parent) <= self.attempt]

    def _remove(self, folders: Iterable[Path]) -> None:
        if any(_number_in_name(path) > self.attempt for path in self.path.glob("attempt-*")):
            return
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)


def load_trained(folder: Path, *, cache_dir: Path) -> Model:
    """Load the weights that a trial kept; where only some were trained, the others come from the sweep's model."""
    try:
        facts = json.loads((folder / _BEST).read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"{folder} holds no weights of a trial ({error.strerror}). Name a best-… folder.") from error
    is_partial, has_adapters = (folder / _TRAINED).exists(), (folder / ADAPTERS).exists()
    spec = ModelSpec.model_validate(facts["model"])
    if not is_partial and not has_adapters:
        spec = spec.model_copy(update={"name": str(folder.absolute()), "revision": None})
    source = resolve_model(spec, cache_dir=cache_dir)
    pad_id = pad_id_of(load_tokenizer(source))
    with _quietly():
        model, _ = load_model(source, task=facts["task"], labels=facts["labels"], pad_id=pad_id, seed=0)
    add_pooling(model, facts.get("pooling", "model"))
    if has_adapters:
        return load_adapters(model, folder)
    if is_partial:
        _, unknown = model.load_state_dict(load_file(folder / _TRAINED), strict=False)
        if unknown:
            raise ModelError(f"{folder} does not fit the model {spec.name}: it has no {', '.join(sorted(unknown))}.")
    return model


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keep transformers from warning of a head drawn at random, which is about to be replaced."""
    logging_of_theirs = transformers.utils.logging
    before = logging_of_theirs.get_verbosity()
    logging_of_theirs.set_verbosity_error()
    try:
        yield
    finally:
        logging_of_theirs.set_verbosity(before)


def _number_in_name(path: Path) -> int:
    """Return 12 of `checkpoint-12`, -1 where no number is."""
    number = path.name.rpartition("-")[2]
    return int(number) if number.isdecimal() else -1


def _read_manifest(path: Path) -> Progress:
    manifest = json.loads((path / _MANIFEST).read_text(encoding="utf-8"))
    for name, size in manifest["files"].items():
        if (found := (path / name).stat().st_size) != size:
            raise ValueError(f"{name} has {found} bytes instead of {size}")
    progress = manifest["progress"]
    watched = progress.pop("watched")
    return Progress(**progress, watched=Watched(**{**watched, "recent_losses": tuple(watched["recent_losses"])}))


def contiguous(tensors: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
