"""A folder is there whole, and on the disk, or not at all."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from finesweep.training.whole_folder import write_whole


def fill(folder: Path) -> None:
    (folder / "deep/er").mkdir(parents=True)
    (folder / "one").write_text("1")
    (folder / "deep/er/two").write_text("2")


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Collect the paths that are made durable, as they are called at that time."""
    paths: list[Path] = []
    sync = os.fsync

    def watch(descriptor: int) -> None:
        paths.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    return paths


def test_every_file_and_folder_is_durable_before_it_is_in_place_and_then_its_place(
    tmp_path: Path, synced: list[Path]
) -> None:
    write_whole(tmp_path / "whole", fill)
    beside = synced[-2]
    assert beside.name.startswith(".whole.")
    assert {str(path.relative_to(beside)) for path in synced[:-1]} == {".", "one", "deep", "deep/er", "deep/er/two"}
    assert synced[-1] == tmp_path
    assert [path.name for path in tmp_path.iterdir()] == ["whole"]
    assert (tmp_path / "whole/deep/er/two").read_text() == "2"


def test_a_folder_takes_the_place_of_an_older_one_only_once_it_is_whole(tmp_path: Path) -> None:
    write_whole(tmp_path / "whole", fill)

    def break_off(folder: Path) -> None:
        (folder / "one").write_text("other")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_whole(tmp_path / "whole", break_off)
    assert [path.name for path in tmp_path.iterdir()] == ["whole"]
    assert (tmp_path / "whole/one").read_text() == "1"
    shutil.rmtree(tmp_path / "whole/deep")
    write_whole(tmp_path / "whole", fill)
    assert (tmp_path / "whole/deep").is_dir()
