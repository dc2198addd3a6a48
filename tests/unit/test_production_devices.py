"""Which GPU a single training takes: one that is free, or the one that was named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from finesweep.errors import ResourcesError
from finesweep.production.processes import take_one_device
from finesweep.spec.sweep import Resources


@pytest.fixture(autouse=True)
def _two_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second is in use."""
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho '0, GPU-5a, H100, 80000, 4'\necho '1, GPU-5b, H100, 80000, 70000'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/bin{os.pathsep}/usr/bin")


def taken(**environment: str) -> str | None:
    take_one_device(Resources(), environment, lambda text: None)
    return environment.get("CUDA_VISIBLE_DEVICES")


def test_one_that_is_free_is_taken() -> None:
    assert taken() == "0"
    assert taken(CUDA_VISIBLE_DEVICES="1,0") == "0"


def test_one_that_is_named_is_taken_be_it_in_use() -> None:
    assert taken(CUDA_VISIBLE_DEVICES="1") == "1"
    assert taken(CUDA_VISIBLE_DEVICES="GPU-5b") == "GPU-5b"


def test_where_all_are_in_use_the_way_out_is_one_for_this_command(tmp_path: Path) -> None:
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho '0, GPU-5b, H100, 80000, 70000'\n")
    with pytest.raises(ResourcesError, match=r"every GPU is in use(.|\n)*For this command alone, name one in CUDA_VIS"):
        taken()
