"""Where a model lies, which version of it, and what it is recognised by.

In: the model section of a sweep, a cache folder. Out: `ModelSource`. It must not know weights, only their files.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import transformers

from finesweep.errors import ModelError, first_line
from finesweep.spec.inputs import InputProblem, package_path
from finesweep.spec.sweep import ModelSpec
from finesweep.training.gguf import unpack_gguf

_EDGE_BYTES = 1 << 20  # of a weights file's head and tail; reading gigabytes to tell two models apart is too slow
_SAFETENSORS = ("model.safetensors", "model.safetensors.index.json")
_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")


@dataclass(frozen=True, slots=True)
class ModelSource:
    spec: ModelSpec
    location: str  # a folder or a hub id
    revision: str | None  # the commit of a hub id: a branch may move between two workers' loading
    fingerprint: str  # of the files and of how they are loaded

    @property
    def options(self) -> dict[str, Any]:
        """Say to every `from_pretrained` which version is meant and whose code may run."""
        pinned = {} if self.revision is None else {"revision": self.revision}
        return {**pinned, "trust_remote_code": self.spec.trust_remote_code}

    @property
    def is_on_hub(self) -> bool:
        return self.revision is not None


def resolve_model(spec: ModelSpec, *, cache_dir: Path) -> ModelSource:
    """Find where a model lies; one in a GGUF file is unpacked into the cache first. Raises ModelError."""
    if spec.quantize is not None and importlib.util.find_spec("bitsandbytes") is None:
        raise ModelError(f'model.quantize: {spec.quantize} takes: pip install "finesweep[quantization]"')
    if spec.name.startswith("package:"):
        path = _package_path(spec.name)
    elif _names_a_path(spec.name):
        path = Path(spec.name)
    else:
        commit = _hub_commit(spec)
        return ModelSource(spec, spec.name, commit, _as_loaded(spec, f"{spec.name}@{commit}"))
    if path.suffix.lower() == ".gguf" and path.is_file():
        digest = _files_digest([path])
        folder = unpack_gguf(path, digest, name=spec.name, cache_dir=cache_dir)
        return ModelSource(spec, str(folder), None, _as_loaded(spec, digest))
    if not (path / "config.json").is_file():
        raise ModelError(
            f'model: "{spec.name}" names {path}, which is neither a folder with a config.json nor a GGUF file. '
            "Correct the path, or name a model of the hub (organisation/name) or of a package (package:NAME/folder)."
        )
    suffixes = (".safetensors", ".bin", ".json", *((".py",) if spec.trust_remote_code else ()))
    files = sorted(p for p in path.iterdir() if p.suffix in suffixes and p.is_file())
    return ModelSource(spec, str(path.resolve()), None, _as_loaded(spec, _files_digest(files)))


def check_weights(source: ModelSource) -> None:
    """Raise ModelError unless there are weights of a kind that the sweep lets be loaded, and all of them."""
    has_file = _has_hub_file if source.is_on_hub else _has_local_file
    if any(has_file(source, name) for name in _SAFETENSORS):
        if not source.is_on_hub:
            _check_shards(source)
        return
    pickle = next((name for name in _PICKLES if has_file(source, name)), None)
    if pickle is None:
        raise ModelError(
            f'model: "{source.spec.name}" has no weights: there is no {_SAFETENSORS[0]} in {source.location}. '
            "Complete it, or name another model."
        )
    if not source.spec.allow_pickle:
        raise ModelError(
            f'model: "{source.spec.name}" has its weights in {pickle} only. That is a pickle file, which can run code '
            "of its maker's as it is read. Set model.allow_pickle: true if you trust where it comes from, or convert "
            "the weights to safetensors."
        )


def _package_path(reference: str) -> Path:
    try:
        return package_path(reference)
    except InputProblem as problem:
        raise ModelError(f"model: {problem}") from None


def _names_a_path(reference: str) -> bool:
    """Tell a path from a hub id. The spec has made local paths absolute: the current folder decides nothing."""
    return Path(reference).is_absolute() or reference.lower().endswith(".gguf")


def _hub_commit(spec: ModelSpec) -> str:
    """Return the commit that the revision means. Raises ModelError where the hub or its cache cannot give it."""
    if Path(spec.name).is_dir():  # transformers looks here first, and another worker may stand elsewhere
        raise ModelError(
            f'model: "{spec.name}" is a model of the hub, but there is a folder of that name in {Path.cwd()}, which '
            "transformers would load instead. For the folder, write its absolute path in the sweep; for the hub's "
            "model, start in another folder."
        )
    try:
        config_path = transformers.utils.cached_file(spec.name, "config.json", revision=spec.revision)
    except OSError as error:
        at = "" if spec.revision is None else f" at revision {spec.revision}"
        raise ModelError(
            f'model: "{spec.name}"{at} is no folder here and cannot be had from the hub: {first_line(error)} '
            "Correct the name, or give a folder, a GGUF file or package:NAME/folder."
        ) from error
    return Path(config_path).parent.name


def _as_loaded(spec: ModelSpec, files: str) -> str:
    """Add to a fingerprint of files what else changes the weights in memory."""
    dtype = spec.dtype if spec.dtype != "float32" else None
    return "-".join(part for part in (files, dtype, spec.quantize) if part is not None)


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


def _has_local_file(source: ModelSource, name: str) -> bool:
    return (Path(source.location) / name).is_file()


def _has_hub_file(source: ModelSource, name: str) -> bool:
    has_file: bool = transformers.utils.hub.has_file(source.location, name, revision=source.revision)
    return has_file


def _check_shards(source: ModelSource) -> None:
    """Find weights in several files of which some are missing, as after a broken download."""
    index = Path(source.location) / "model.safetensors.index.json"
    if not index.is_file() or _has_local_file(source, "model.safetensors"):
        return
    try:
        shards = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError) as error:
        raise ModelError(f'model: "{source.spec.name}": {index} is no index of weights. Download it again.') from error
    missing = [name for name in shards if not _has_local_file(source, name)]
    if missing:
        raise ModelError(
            f'model: "{source.spec.name}" lacks {len(missing)} of {len(shards)} files of weights, such as '
            f"{missing[0]}, in {source.location}. Complete it."
        )
