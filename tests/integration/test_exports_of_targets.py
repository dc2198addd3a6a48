"""Exported configurations are taken by the code of the stacks that they are for, each installed apart."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from finesweep.export.record import ExportRecord
from finesweep.export.targets import ending_of, export_to, write_exported
from finesweep.spec.sweep import DataSpec, Evaluation, ModelSpec, TrainingSpec

TOOL = Path(__file__).parents[2] / "tools" / "check_exports.py"
RECORDS: Mapping[str, Mapping[str, Any]] = {
    "whole": {
        "training": {
            "lr_scheduler_type": "cosine", "weight_decay": 0.1, "optim": "adamw_torch", "max_grad_norm": 0.5,
            "neftune_noise_alpha": 5.0, "lr_scheduler_kwargs": {"num_cycles": 0.4}, "dataloader_num_workers": 2,
            "label_smoothing_factor": 0.1, "activation_checkpointing": True, "dataloader_in_order": False,
            "activation_checkpointing_kwargs": {"use_reentrant": False}, "train_sampling_strategy": "group_by_length",
        },
    },
    "blocks": {"training": {"method": "feature-extraction", "unfrozen_layers": 1}, "data": {"format": "text"}},
    "adapters": {
        "training": {"method": "lora", "lora_rank": 4, "bf16": True},
        "data": {"format": "messages", "validation": 0.1},
        "model": {"name": "org/tiny", "attention": "sdpa", "revision": "v1", "trust_remote_code": True},
    },
    "packed": {
        "training": {"method": "lora", "lora_target_modules": "q_proj,v_proj"},
        "data": {"dataset": "org/rows", "train": "train", "validation": "validation", "config": "one"},
        "model": {"name": "org/tiny", "quantize": "4bit", "dtype": "bfloat16"},
    },
}  # fmt: skip
REFUSED = {("trl", "blocks"), ("openai", "blocks")}


def record_of(name: str) -> ExportRecord:
    training, data, model = (RECORDS[name].get(section, {}) for section in ("training", "data", "model"))
    settings = TrainingSpec.model_validate({"batch_size": 16, "warmup_ratio": 0.2, **training})
    files = {"train": "/data/train.jsonl", "validation": "/data/validation.jsonl"}
    return ExportRecord(
        sweep=name,
        trial=3,
        task="causal-lm",
        trainer="transformers",
        code_dir=None,
        model=ModelSpec.model_validate({"name": "/models/tiny", **model}).model_dump(mode="json"),
        data=DataSpec.model_validate({**files, **data}).model_dump(mode="json"),
        settings=settings.model_dump(mode="json"),
        n_devices=1,
        evaluation=Evaluation().model_dump(mode="json"),
        seed=settings.seed,
        configuration={},
        objective={"metric": "loss", "direction": "minimize", "value": "best"},
        value=0.5,
        value_step=480,
        grid={"unit": "examples", "every": 40, "longest": 480},
        metrics={"loss": 0.5},
        examples_seen=480,
        facts={
            "device_batch_size": 4,
            "warmup_steps": 6,
            "last_step": 480,
            "unfrozen_modules": ["lm_head", "model.layers.3", "model.norm"],
        },
        artifacts={},
        provenance={},
        command=None,
    )


@pytest.mark.slow
@pytest.mark.parametrize("stack", ["trl", "axolotl", "llamafactory", "openai"])
def test_the_stack_takes_what_is_exported_to_it(stack: str, tmp_path: Path) -> None:
    where = importlib.util.spec_from_file_location("check_exports", TOOL)
    assert where is not None and where.loader is not None
    tool = importlib.util.module_from_spec(where)
    where.loader.exec_module(tool)
    packages = tmp_path / "packages"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(packages)]
    installed = subprocess.run([*install, *tool.PACKAGES[stack]], capture_output=True, text=True)
    if installed.returncode != 0:
        pytest.skip(f"{stack} cannot be installed here: {installed.stderr.strip().splitlines()[-1]}")
    paths = []
    for name in RECORDS:
        if (stack, name) not in REFUSED:
            folder = tmp_path / name
            folder.mkdir()
            exported = export_to(record_of(name), stack, n_devices=None if stack == "openai" else 2)
            paths.append(str(write_exported(exported, folder / ending_of(stack), force=False)[0]))
    checked = subprocess.run(
        [sys.executable, str(TOOL), stack, *paths],
        env={**os.environ, "PYTHONPATH": str(packages)}, capture_output=True, text=True,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stderr[-4000:]
    assert checked.stdout.count(f"{stack} takes it") == len(paths) >= 3
