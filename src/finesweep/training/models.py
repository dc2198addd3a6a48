"""Find a model, load it once per worker, and hand every trial an untouched copy of it.

In: a model reference of a sweep. Out: tokenizer and model in full precision. It must not know methods or trials.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import importlib.util
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from filelock import FileLock

from finesweep.errors import ModelError
from finesweep.spec.sweep import Task
from finesweep.training.encoding import Tokenizer, pad_id_of
from finesweep.training.tasks import head_arguments, task_kind
from finesweep.training.whole_folder import write_whole

Model = Any  # transformers.PreTrainedModel, which is untyped here

_EDGE_BYTES = 1 << 20  # of a weights file's head and tail; reading gigabytes to tell two models apart is too slow


@dataclass(frozen=True, slots=True)
class ModelSource:
    reference: str  # as the sweep names it
    location: str  # a folder or a hub id
    fingerprint: str


def resolve_model(reference: str, *, cache_dir: Path) -> ModelSource:
    """Find where a model lies; one in a GGUF file is unpacked into the cache first. Raises ModelError."""
    if reference.startswith("package:"):
        path = _package_path(reference)
    elif _names_a_path(reference):
        path = Path(reference)
    else:
        return ModelSource(reference, location=reference, fingerprint=_hub_fingerprint(reference))
    if path.suffix.lower() == ".gguf" and path.is_file():
        fingerprint = _files_digest([path])
        return ModelSource(reference, str(_unpack_gguf(path, fingerprint, reference, cache_dir)), fingerprint)
    if not (path / "config.json").is_file():
        raise ModelError(
            f'model: "{reference}" names {path}, which is neither a folder with a config.json nor a GGUF file. '
            "Correct the path, or name a model of the hub (organisation/name) or of a package (package:NAME/folder)."
        )
    weights = sorted(p for p in path.iterdir() if p.suffix in (".safetensors", ".bin", ".json") and p.is_file())
    return ModelSource(reference, location=str(path.resolve()), fingerprint=_files_digest(weights))


def load_tokenizer(source: ModelSource) -> Tokenizer:
    try:
        return transformers.AutoTokenizer.from_pretrained(source.location)
    except (OSError, ValueError) as error:
        raise _not_loaded(source, "tokenizer", error) from error


def max_positions(source: ModelSource, tokenizer: Tokenizer) -> int | None:
    """Return how many tokens the model can place in a row; None where its positions are relative or not told."""
    try:
        config = transformers.AutoConfig.from_pretrained(source.location).get_text_config()
    except (OSError, ValueError) as error:
        raise _not_loaded(source, "configuration", error) from error
    positions: int | None = getattr(config, "max_position_embeddings", None)
    if positions is None or positions < 1 or not getattr(config, "position_biased_input", True):  # the last: DeBERTa
        return None
    n_reserved = (getattr(config, "pad_token_id", None) or 0) + 1  # RoBERTa counts from behind the padding token's id
    return tokenizer.model_max_length if tokenizer.model_max_length == positions - n_reserved else positions


class BaseModel:
    """A model as loaded, kept in memory and never trained: trials get copies of it."""

    def __init__(self, source: ModelSource, *, task: Task, labels: Sequence[str], tokenizer: Tokenizer) -> None:
        self._source, self._task, self._labels = source, task, tuple(labels)
        self._pad_id = pad_id_of(tokenizer)
        self._pristine: Model | None = None
        self._seed: int | None = None
        self.fresh_parameters: frozenset[str] = frozenset()  # not in the files but drawn at random: a task head

    def copy(self, seed: int) -> Model:
        """Return a model equal to one loaded afresh under `seed`."""
        if self._pristine is None or (self.fresh_parameters and seed != self._seed):
            self._pristine = None  # let go of the old one before loading the new one
            self._pristine, self.fresh_parameters = load_model(
                self._source, task=self._task, labels=self._labels, pad_id=self._pad_id, seed=seed
            )
            self._seed = seed
        return copy.deepcopy(self._pristine)


def load_model(
    source: ModelSource, *, task: Task, labels: Sequence[str], pad_id: int, seed: int
) -> tuple[Model, frozenset[str]]:
    """Load from files in full precision, and name the parameters that `seed` drew because no file held them."""
    transformers.set_seed(seed)
    try:
        model, info = task_kind(task).model_class.from_pretrained(
            source.location,
            dtype=torch.float32,  # mixed precision keeps these as its master weights
            output_loading_info=True,
            **head_arguments(task, labels),
        )
    except (OSError, ValueError) as error:
        raise _not_loaded(source, "model", error) from error
    if model.config.pad_token_id is None:
        model.config.pad_token_id = pad_id  # a causal model with a classification head finds the last token by it
    mismatched = {entry if isinstance(entry, str) else entry[0] for entry in info["mismatched_keys"]}
    fresh = set(info["missing_keys"]) | mismatched
    return model, frozenset(fresh & {name for name, _ in model.named_parameters()})


def _package_path(reference: str) -> Path:
    name, _, inside = reference.removeprefix("package:").partition("/")
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(
            f'model: "{reference}" names the Python package "{name}", which is not installed. '
            f"Install it: pip install {name.replace('_', '-')}"
        )
    return Path(spec.submodule_search_locations[0]) / inside


def _names_a_path(reference: str) -> bool:
    """Tell a path from a hub id. The spec has made local paths absolute: the current folder decides nothing."""
    return Path(reference).is_absolute() or reference.lower().endswith(".gguf")


def _unpack_gguf(path: Path, fingerprint: str, reference: str, cache_dir: Path) -> Path:
    """Write a GGUF file's weights as a plain model folder, once: unpacking takes most of a minute."""
    folder = cache_dir / "models" / f"{path.stem}-{fingerprint[:12]}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f"{folder.name}.lock")):
        if folder.exists():
            return folder
        if importlib.util.find_spec("gguf") is None:
            raise ModelError(f'model: "{reference}" is a GGUF file. Reading it takes: pip install "finesweep[gguf]"')
        options = {"gguf_file": path.name}

        def fill(beside: Path) -> None:
            with contextlib.redirect_stderr(io.StringIO()):  # its progress bar knows no switch
                model = transformers.AutoModelForCausalLM.from_pretrained(path.parent, dtype=torch.float32, **options)
            _plain(model).save_pretrained(beside)
            transformers.AutoTokenizer.from_pretrained(path.parent, **options).save_pretrained(beside)

        try:
            write_whole(folder, fill)
        except (OSError, ValueError) as error:
            raise ModelError(f'model: "{reference}" cannot be unpacked: {_first_line(error)}') from error
    return folder


def _plain(model: Model) -> Model:
    """Return a model of the same weights that has forgotten its quantisation, with which it refuses to be saved."""
    config = model.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    plain = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    plain.load_state_dict(model.state_dict())
    return plain


def _hub_fingerprint(reference: str) -> str:
    """Return the id with the commit that is used. Raises ModelError where the hub or its cache cannot give it."""
    if Path(reference).is_dir():  # transformers looks here first, and another worker may stand elsewhere
        raise ModelError(
            f'model: "{reference}" is a model of the hub, but there is a folder of that name in {Path.cwd()}, which '
            "transformers would load instead. For the folder, write its absolute path in the sweep; for the hub's "
            "model, start in another folder."
        )
    try:
        config_path = transformers.utils.cached_file(reference, "config.json")
    except OSError as error:
        raise ModelError(
            f'model: "{reference}" is no folder here and cannot be had from the hub: {_first_line(error)} '
            "Correct the name, or give a folder, a GGUF file or package:NAME/folder."
        ) from error
    return f"{reference}@{Path(config_path).parent.name}"


def _files_digest(paths: Sequence[Path]) -> str:
    """Hash names, sizes, heads and tails; small files whole."""
    digest = hashlib.blake2b(digest_size=16)
    for path in paths:
        size = path.stat().st_size
        digest.update(f"{path.name}:{size};".encode())
        with path.open("rb") as file:
            digest.update(file.read(_EDGE_BYTES))
            if size > _EDGE_BYTES:
                file.seek(max(_EDGE_BYTES, size - _EDGE_BYTES))
                digest.update(file.read(_EDGE_BYTES))
    return digest.hexdigest()


def _not_loaded(source: ModelSource, what: str, error: Exception) -> ModelError:
    return ModelError(
        f'model: the {what} of "{source.reference}" cannot be loaded from {source.location}: {_first_line(error)} '
        "Check that the folder is complete and of a kind that fits the task."
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
