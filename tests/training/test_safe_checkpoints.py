"""Checkpoints are safetensors and JSON: whatever pickles lie in one, none is run."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from finesweep.errors import ModelError
from finesweep.events import Decision, Ending
from finesweep.training.manifest import manifest_of
from finesweep.training.trainer_state import STATE, read_state, write_state

TRIAL = {"batch_size": 8, "epochs": 2}
PICKLES = ("optimizer.pt", "optimizer.bin", "scheduler.pt", "scaler.pt", "rng_state.pth", "pytorch_model.bin")


class MakesFile:
    """Pickles to something that makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def paused(set_up: Any, recorder: Any, **options: Any) -> Path:
    """Pause a trial in its midst; return its checkpoint."""
    pause = recorder(decide=lambda report: Decision.PAUSE if report.step == 40 else Decision.CONTINUE)
    result, _ = set_up.run(pause, number=2, attempt=1, **TRIAL, **options)
    assert result.ending is Ending.PAUSED
    [checkpoint] = set_up.artifact_dir.glob("trial-0002/attempt-1/checkpoint-*")
    return Path(checkpoint)


def make_whole(checkpoint: Path) -> None:
    """Have a checkpoint's list of files say what there is, as somebody who plants files would."""
    facts = json.loads((checkpoint / "checkpoint.json").read_text())
    (checkpoint / "checkpoint.json").unlink()
    (checkpoint / "checkpoint.json").write_text(json.dumps({**facts, "files": manifest_of(checkpoint)}))


@pytest.mark.parametrize("optim", ["adamw_torch", "adafactor", "sgd", "rmsprop"])
def test_a_checkpoint_is_safetensors_and_json(bench: Any, recorder: Any, optim: str) -> None:
    set_up = bench(optim=optim)
    checkpoint = paused(set_up, recorder)
    for path in checkpoint.iterdir():
        if path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
        else:
            assert path.suffix == ".safetensors"
            with safe_open(path, framework="pt") as tensors:
                assert tensors.keys() is not None
    _, unbroken = set_up.run(number=1, **TRIAL)
    resumed, after = set_up.run(number=2, attempt=2, **TRIAL)
    assert resumed.ending is Ending.DONE
    assert after.reports == unbroken.reports[1:]


def test_pickles_in_a_checkpoint_are_not_run(bench: Any, recorder: Any, tmp_path: Path) -> None:
    set_up, marker = bench(), tmp_path / "ran"
    checkpoint = paused(set_up, recorder)
    planted = pickle.dumps(MakesFile(marker))
    pickle.loads(planted)
    marker.unlink()  # it would have run
    for name in PICKLES:
        (checkpoint / name).write_bytes(planted)
    make_whole(checkpoint)
    resumed, told = set_up.run(number=2, attempt=2, **TRIAL)
    assert resumed.ending is Ending.DONE
    assert told.facts["resumed_from"] == f"trial-0002/attempt-1/{checkpoint.name}"
    assert not marker.exists()


def test_a_pickle_in_place_of_the_state_is_not_run(bench: Any, recorder: Any, tmp_path: Path) -> None:
    set_up, marker = bench(), tmp_path / "ran"
    checkpoint = paused(set_up, recorder)
    for path in (checkpoint / STATE, checkpoint / "trainer.safetensors", checkpoint / "model.safetensors"):
        path.write_bytes(pickle.dumps(MakesFile(marker)))
    make_whole(checkpoint)
    with pytest.raises(Exception, match=r"(?i)header|json|decode"):
        set_up.run(number=2, attempt=2, **TRIAL)
    assert not marker.exists()


def test_states_come_back_as_they_were(tmp_path: Path) -> None:
    shared = torch.arange(4.0)
    states = {
        "optimizer": {
            "state": {0: {"mean": torch.full((2, 2), 1e-40), "map": shared}, 7: {"map": shared}},
            "param_groups": [{"lr": 0.1 + 0.2, "betas": (0.9, 0.999), "foreach": None, "params": [0, 7], "x": []}],
            "views": [shared[1:3], shared.view(2, 2), torch.eye(3).T, torch.zeros(2, dtype=torch.bfloat16)],
        },
        "empty": {},
        "infinite": [float("inf"), float("-inf")],
    }  # fmt: skip
    write_state(tmp_path, states, {"weight": torch.ones(1)})
    optimizer = read_state(tmp_path, "optimizer")
    assert optimizer["param_groups"] == states["optimizer"]["param_groups"]  # type: ignore[index]
    assert optimizer["state"].keys() == {0, 7}
    assert optimizer["state"][0]["map"] is optimizer["state"][7]["map"]
    assert torch.equal(optimizer["state"][0]["mean"], torch.full((2, 2), 1e-40))
    for came, was in zip(optimizer["views"], states["optimizer"]["views"], strict=True):  # type: ignore[index]
        assert torch.equal(came, was)
        assert came.dtype is was.dtype
    assert read_state(tmp_path, "empty") == {}
    assert read_state(tmp_path, "infinite") == states["infinite"]
    assert read_state(tmp_path, "none such") is None


def test_a_state_that_only_a_pickle_could_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"the optimizer holds a set, .* Choose another training\.optim"):
        write_state(tmp_path, {"optimizer": {"state": {1, 2}}}, {})
