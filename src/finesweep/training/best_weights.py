"""The best weights of a trial: what is kept of them, by method, and how they are loaded again.

In: a trained model, a folder to be filled. Out: the folder's files; a model. It must not know trials or attempts.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import transformers
from safetensors.torch import load_file, save_file

from finesweep.errors import ModelError
from finesweep.layout import size_of, tuned_elsewhere
from finesweep.spec.sweep import ModelSpec, Pooling, Task, TrainingSpec
from finesweep.training.adapters import ADAPTERS, is_adapted, load_adapters, save_adapters
from finesweep.training.encoding import Tokenizer, pad_id_of
from finesweep.training.manifest import DamagedError, check_contents, manifest_of
from finesweep.training.model_files import resolve_model
from finesweep.training.models import Model, load_model, load_tokenizer
from finesweep.training.pooling import add_pooling
from finesweep.training.quota import bytes_to_write

BEST = "best.json"  # where they come from, and what the other files are
_TRAINED = "trained.safetensors"


def write_weights(
    folder: Path,
    model: Model,
    tokenizer: Tokenizer,
    trained: Mapping[str, Any],
    *,
    model_spec: ModelSpec,
    task: Task,
    settings: TrainingSpec,
    step: int,
    value: float,
) -> None:
    """Fill a folder with a model's weights.

    A model trained whole is a plain model folder, adapters are an adapter folder as peft writes it. Of a head and
    blocks only these are kept, for `load_trained`: the frozen rest would be most of a copy of the model each trial.
    How states were pooled stands beside them: plain transformers knows of no such thing.
    """
    if is_adapted(model):
        save_adapters(model, folder)
    elif settings.method == "full":
        model.save_pretrained(folder)
    else:
        model.config.save_pretrained(folder)
        save_file(contiguous(trained), folder / _TRAINED)
    if _is_for_others(model, settings):
        tokenizer.save_pretrained(folder)
    facts = {"step": step, "value": value}
    note_weights(folder, model, facts, model_spec=model_spec, task=task, pooling=settings.pooling)


def note_weights(
    folder: Path, model: Model, facts: Mapping[str, Any], *, model_spec: ModelSpec, task: Task, pooling: Pooling
) -> None:
    """Say beside weights what `load_trained` has to know of them, and `facts`; what else is there must be whole."""
    facts = {
        **facts,
        "task": task,
        "labels": list(model.config.id2label.values()),
        "model": model_spec.model_dump(mode="json"),
        "pooling": pooling,
        "files": manifest_of(folder),
    }
    (folder / BEST).write_text(json.dumps(facts, indent=1), encoding="utf-8")


def bytes_of_weights(model: Model, tokenizer: Tokenizer, trained: Mapping[str, Any], *, settings: TrainingSpec) -> int:
    """Tell how many bytes `write_weights` will write at most."""
    is_whole = settings.method == "full" and not is_adapted(model)
    n_bytes = bytes_to_write(model.state_dict() if is_whole else trained)
    n_bytes += 3 * len(model.config.to_json_string())  # labels stand in two files
    return n_bytes + (_tokenizer_bytes(tokenizer) if _is_for_others(model, settings) else 0)


def load_trained(folder: Path, *, cache_dir: Path) -> Model:
    """Load the weights that a trial kept; where only some were trained, the others come from the sweep's model.

    Of a folder of production training too, whose weights may lie in a folder of theirs.
    """
    facts = read_facts(folder)
    folder = folder / facts.get("weights", "")
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


def read_facts(folder: Path) -> Mapping[str, Any]:
    """Read what stands beside weights. Raises ModelError where there are none, or where they are damaged."""
    try:
        facts: Mapping[str, Any] = json.loads((folder / BEST).read_text(encoding="utf-8"))
        check_contents(folder, facts.get("files", {}))
    except OSError as error:
        if (tuned := tuned_elsewhere(folder)) is not None:
            raise ModelError(
                f"{folder} is of a job of a fine-tuning server, whose weights stay there. Ask the server for the model "
                f"{tuned}."
            ) from None
        raise ModelError(f"{folder} holds no weights of a trial ({error.strerror}). Name a best-… folder.") from error
    except (DamagedError, ValueError, AttributeError) as error:
        raise ModelError(f"{folder} is damaged: {error}. Train the trial's configuration again.") from error
    return facts


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


def contiguous(tensors: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tensor.detach().contiguous() for name, tensor in tensors.items()}


def _is_for_others(model: Model, settings: TrainingSpec) -> bool:
    """Tell whether other libraries can load what is kept as it is; then the tokenizer stands beside it."""
    return is_adapted(model) or settings.method == "full"


@lru_cache(maxsize=1)  # a worker has one tokenizer
def _tokenizer_bytes(tokenizer: Tokenizer) -> int:
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        return size_of(Path(folder))
