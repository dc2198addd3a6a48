"""A trial's folder on disk: what is damaged is told from what is whole, and the quota holds whoever writes."""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import save_file

from finesweep.layout import parts_of, size_of, trial_dir, trial_dirs
from finesweep.spec.sweep import ModelSpec, TrainingSpec
from finesweep.training.checkpoints import Progress, TrialFolder
from finesweep.training.judging import Watched
from finesweep.training.quota import NoRoomError, bytes_to_write

N_BYTES = 50_000  # of a checkpoint below, with what its files say of themselves

DAMAGES: dict[str, Callable[[Path], object]] = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "of zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "with one bit flipped": lambda path: path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1])),
    "empty": lambda path: path.write_bytes(b""),
    "missing": Path.unlink,
}


def write(folder: TrialFolder, step: int, *, best_step: int | None = None) -> Path:
    """Write a checkpoint of two files."""

    def fill(path: Path) -> None:
        (path / "model.safetensors").write_bytes(bytes([step]) * 20_000)
        (path / "trainer.safetensors").write_bytes(bytes([step]) * 29_000)

    return folder.write_checkpoint(fill, Progress(step, 0.0, 0, 0.0, Watched(), best_step=best_step), n_bytes=N_BYTES)


def newest(folder: TrialFolder) -> str | None:
    """What the trial's next attempt would go on from."""
    later = TrialFolder(folder.artifact_dir, folder.number, folder.attempt + 1)
    later.begin()
    found = later.newest_checkpoint()
    return None if found is None else found.path.name


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["model.safetensors", "trainer.safetensors", "checkpoint.json"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path: Path, name: str, damage: str) -> None:
    folder = TrialFolder(tmp_path, 7, 1)
    folder.begin()
    paths = [write(folder, step) for step in (4, 8, 12)]
    assert newest(folder) == "checkpoint-12"
    DAMAGES[damage](paths[-1] / name)
    assert newest(folder) == "checkpoint-8"
    DAMAGES[damage](paths[-2] / name)
    assert newest(folder) is None


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "best.json"])
def test_damaged_best_weights_are_none_and_no_trial_goes_on_behind_them(
    tmp_path: Path, tiny_bert: Path, tokenizer: Any, name: str, damage: str
) -> None:
    folder = TrialFolder(tmp_path, 7, 1)
    folder.begin()
    write(folder, 4)
    best = keep(folder, tiny_bert, tokenizer, step=40)
    write(folder, 8, best_step=40)
    assert newest(folder) == "checkpoint-8"
    DAMAGES[damage](best / name)
    assert newest(folder) == "checkpoint-4"
    assert folder.best() is None


def keep(folder: TrialFolder, model: Path, tokenizer: Any, *, step: int) -> Path:
    return folder.write_best(
        transformers.BertModel.from_pretrained(model),
        tokenizer,
        {},
        model_spec=ModelSpec(name=str(model)),
        task="classification",
        settings=TrainingSpec(),
        step=step,
        value=0.5,
    )


# --- the quota ---------------------------------------------------------------------------------------------------


def used(artifact_dir: Path) -> int:
    return sum(size_of(part.path) for trial in trial_dirs(artifact_dir).values() for part in parts_of(trial))


def names(artifact_dir: Path, number: int) -> list[str]:
    return [part.path.name for part in parts_of(trial_dir(artifact_dir, number))]


def test_older_checkpoints_go_first_where_the_quota_demands_it(tmp_path: Path) -> None:
    """Two are kept and a third is written where there is room; else the older one goes before."""
    folder = TrialFolder(tmp_path, 7, 1, quota_bytes=2 * N_BYTES + 1000)
    folder.begin()
    for step in (4, 8, 12):
        write(folder, step)
    assert names(tmp_path, 7) == ["checkpoint-8", "checkpoint-12"]


def test_a_checkpoint_that_does_not_fit_beside_the_only_one_is_not_written(tmp_path: Path) -> None:
    folder = TrialFolder(tmp_path, 7, 1, quota_bytes=N_BYTES + N_BYTES // 2)
    folder.begin()
    write(folder, 4)
    with pytest.raises(NoRoomError, match=r"do not fit artifacts\.quota_gib"):
        write(folder, 8)
    assert names(tmp_path, 7) == ["checkpoint-4"]
    assert newest(folder) == "checkpoint-4"


def test_other_trials_files_count_and_are_left_alone(tmp_path: Path) -> None:
    one, other = (TrialFolder(tmp_path, number, 1, quota_bytes=2 * N_BYTES) for number in (1, 2))
    one.begin(), other.begin()
    write(one, 4), write(one, 8)
    with pytest.raises(NoRoomError):
        write(other, 4)
    assert names(tmp_path, 1) == ["checkpoint-4", "checkpoint-8"]
    assert names(tmp_path, 2) == []


def test_files_that_become_larger_than_was_said_must_fit_all_the_same(tmp_path: Path) -> None:
    folder = TrialFolder(tmp_path, 7, 1, quota_bytes=N_BYTES + 1000)
    folder.begin()
    with pytest.raises(NoRoomError):
        folder.write_checkpoint(
            lambda path: (path / "big").write_bytes(bytes(2 * N_BYTES)),  # type: ignore[arg-type, return-value]
            Progress(4, 0.0, 0, 0.0, Watched()),
            n_bytes=N_BYTES,
        )
    assert names(tmp_path, 7) == []


def test_best_weights_take_the_place_of_those_before_and_then_of_checkpoints(
    tmp_path: Path, tiny_bert: Path, tokenizer: Any
) -> None:
    free = TrialFolder(tmp_path / "free", 7, 1)
    free.begin()
    n_best = size_of(keep(free, tiny_bert, tokenizer, step=40))
    slack = 120_000  # that room is reserved for beside the weights
    folder = TrialFolder(tmp_path, 7, 1, quota_bytes=n_best + slack + N_BYTES)
    folder.begin()
    write(folder, 4)
    keep(folder, tiny_bert, tokenizer, step=40)
    assert names(tmp_path, 7) == ["checkpoint-4", "best-40"]
    keep(folder, tiny_bert, tokenizer, step=80)
    assert names(tmp_path, 7) == ["checkpoint-4", "best-80"]
    tight = TrialFolder(tmp_path, 7, 1, quota_bytes=n_best + slack)
    keep(tight, tiny_bert, tokenizer, step=120)
    assert names(tmp_path, 7) == ["best-120"]
    too_tight = TrialFolder(tmp_path, 7, 1, quota_bytes=n_best)
    with pytest.raises(NoRoomError):
        keep(too_tight, tiny_bert, tokenizer, step=160)
    assert names(tmp_path, 7) == []  # those before are no longer the best


N_ROUNDS = 10


def compete(artifact_dir: Path, number: int, quota_bytes: int, together: Any, fitted: Any) -> None:
    """Round after round, write a checkpoint at the same moment as others do."""
    folder = TrialFolder(artifact_dir, number, 1, quota_bytes=quota_bytes)
    folder.begin()
    for step in range(1, N_ROUNDS + 1):
        together.wait()
        with contextlib.suppress(NoRoomError):
            write(folder, step)
            fitted.put((step, used(artifact_dir)))
        together.wait()
        folder.clear()


def test_the_quota_is_never_exceeded_by_workers_that_write_at_once(tmp_path: Path) -> None:
    """Room for two checkpoints, and three processes that write one each: two of them fit, every time."""
    quota_bytes = 2 * N_BYTES + 1000
    for number in range(100, 500):  # to look through them all takes a while, in which others may begin to look
        (trial_dir(tmp_path, number) / "attempt-1").mkdir(parents=True)
    context = multiprocessing.get_context("fork")
    together, fitted = context.Barrier(3), context.Queue()
    workers = [context.Process(target=compete, args=(tmp_path, n, quota_bytes, together, fitted)) for n in range(3)]
    for worker in workers:
        worker.start()
    found = [fitted.get(timeout=60) for _ in range(2 * N_ROUNDS)]
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert fitted.empty()
    assert sorted(step for step, _ in found) == [step for step in range(1, N_ROUNDS + 1) for _ in range(2)]
    assert max(n_bytes for _, n_bytes in found) <= quota_bytes


def test_what_is_to_be_written_is_known_before(tmp_path: Path) -> None:
    shared = torch.zeros(1000)
    state = {"a": shared, "tied": shared, "groups": [{"step": torch.tensor(1.0)}, 3], "b": torch.zeros(10, 10)}
    said = bytes_to_write({"a": shared, "b": state["b"]}, state)
    save_file({"a": shared, "b": torch.zeros(10, 10)}, tmp_path / "x.safetensors")
    torch.save(state, tmp_path / "x.pt")
    assert (tmp_path / "x.safetensors").stat().st_size + (tmp_path / "x.pt").stat().st_size - 4400 <= said < 80_000
