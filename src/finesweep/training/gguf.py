"""GGUF files as plain model folders: weights dequantised once, into the cache.

In: a file. Out: a folder of safetensors, configuration and tokenizer that appears whole or not at all.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
from pathlib import Path
from typing import Any

import torch
import transformers
from filelock import FileLock

from finesweep.errors import ModelError, first_line
from finesweep.training.whole_folder import write_whole


def unpack_gguf(path: Path, fingerprint: str, *, name: str, cache_dir: Path) -> Path:
    """Write a GGUF file's weights as a plain model folder, once: unpacking takes most of a minute."""
    folder = cache_dir / "models" / f"{path.stem}-{fingerprint[:12]}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f"{folder.name}.lock")):
        if folder.exists():
            return folder
        if importlib.util.find_spec("gguf") is None:
            raise ModelError(f'model: "{name}" is a GGUF file. Reading it takes: pip install "finesweep[gguf]"')
        try:
            write_whole(folder, lambda beside: _unpack(path, beside))
        except Exception as error:  # a broken file fails anywhere in its parser, with whatever comes up there
            raise ModelError(
                f'model: "{name}" cannot be unpacked ({type(error).__name__}: {first_line(error)}). '
                f"Is the file whole? It has {path.stat().st_size:,} bytes. Fetch it again."
            ) from error
    return folder


def _unpack(path: Path, folder: Path) -> None:
    options = {"gguf_file": path.name}
    with contextlib.redirect_stderr(io.StringIO()):  # its progress bar knows no switch
        model = transformers.AutoModelForCausalLM.from_pretrained(path.parent, dtype=torch.float32, **options)
    _plain(model).save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(path.parent, **options).save_pretrained(folder)


def _plain(model: Any) -> Any:  # Any: a transformers.PreTrainedModel, which is untyped here
    """Return a model of the same weights that has forgotten its quantisation, with which it refuses to be saved."""
    config = model.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    plain = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    plain.load_state_dict(model.state_dict())
    return plain
