"""Hold exported configurations to the code of the stack that they are for: `tools/check_exports.py STACK FILE...`.

It runs where that stack can be imported: `PACKAGES` says what is installed, without what depends on it, into a folder
that is put before the interpreter's own packages. tests/integration/test_export_targets.py does so.
"""

from __future__ import annotations

import importlib.machinery
import json
import os
import sys
import types
from pathlib import Path
from typing import Any

PACKAGES = {
    "trl": ["trl==1.16.0"],
    "axolotl": ["axolotl==0.19.0"],
    "llamafactory": [
        *("llamafactory==0.9.5", "transformers==5.6.0", "tokenizers==0.22.2", "huggingface-hub==1.33.0"),
        *("omegaconf==2.4.0", "antlr4-python3-runtime==4.9.3", "fire==0.7.1"),
    ],
    "openai": ["openai==3.57.0", "distro==1.9.0"],
}


def check_trl(path: Path) -> None:
    from trl import DatasetMixtureConfig, ModelConfig, ScriptArguments, SFTConfig, TrlParser

    parser = TrlParser((ScriptArguments, SFTConfig, ModelConfig, DatasetMixtureConfig))
    parser.parse_args_and_config(args=["--config", str(path), "--use_cpu", "true"])  # fails with unknown keys


def check_axolotl(path: Path) -> None:
    import yaml
    from axolotl.utils.schemas.config import AxolotlConfigWCapabilities

    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    unknown = set(content) - set(AxolotlConfigWCapabilities.model_fields)
    assert not unknown, f"axolotl has no {unknown}"  # it would ignore them
    gpu = {"bf16": True, "fp8": False, "tf32": True, "n_gpu": 2, "n_node": 1, "compute_capability": "sm_90"}
    more = {"capabilities": gpu, "env_capabilities": {"torch_version": "2.11.0"}}
    AxolotlConfigWCapabilities.model_validate({**content, **more})


def check_llamafactory(path: Path) -> None:
    import yaml

    os.environ["DISABLE_VERSION_CHECK"] = "1"  # of packages that only training takes
    sound = types.ModuleType("torchaudio")  # which data of sound take
    sound.__spec__ = importlib.machinery.ModuleSpec("torchaudio", None)
    sys.modules["torchaudio"] = sound
    from llamafactory.data.parser import get_dataset_list
    from llamafactory.hparams.parser import get_train_args

    os.chdir(path.parent)  # dataset_dir is the folder of the file
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    if content.pop("pure_bf16", False):  # which it looks for a GPU for
        content["bf16"] = False
    _, data, _, _, _ = get_train_args({**content, "use_cpu": True})  # fails with unknown keys
    named = [*data.dataset, *(data.eval_dataset or [])]
    assert len(get_dataset_list(named, data.dataset_dir)) == len(named)


def check_openai(path: Path) -> None:
    from openai.types.fine_tuning.job_create_params import JobCreateParams
    from pydantic import TypeAdapter

    kind: TypeAdapter[Any] = TypeAdapter(JobCreateParams)
    kind.validate_python(json.loads(path.read_text(encoding="utf-8")), extra="forbid")


if __name__ == "__main__":
    stack, *files = sys.argv[1:]
    check = {
        "trl": check_trl,
        "axolotl": check_axolotl,
        "llamafactory": check_llamafactory,
        "openai": check_openai,
    }[stack]
    for file in files:
        check(Path(file).resolve())
        print(f"{file}: {stack} takes it")
