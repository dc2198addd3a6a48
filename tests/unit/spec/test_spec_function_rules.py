"""Sweeps of a trainer of the user's own: names are free, model and data may be left out, the grid must be known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from finesweep.errors import SpecError
from finesweep.events import Grid
from finesweep.spec.files import check_sweep, load_sweep
from finesweep.spec.grid import plan_grid
from finesweep.spec.settings import laid_over
from finesweep.spec.space import starting_configurations
from finesweep.spec.sweep import FunctionSweep

STUDY: dict[str, Any] = {
    "objective": {"metric": "any_name", "direction": "maximize"},
    "pruner": {"type": "asha"},
    "parameters": {
        "rate": {"type": "float", "low": 1e-4, "high": 1e-1, "log": True},
        "kind": {"type": "categorical", "choices": ["small", "large"]},
        "depth": {
            "by": "kind",
            "small": {"type": "int", "low": 1, "high": 2},
            "large": {"type": "int", "low": 3, "high": 9},
        },
        "batch_size": {"type": "categorical", "choices": ["auto", 8]},  # ours where we train, anything here
    },
}  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "shop_loop.py").write_text("def train(trial, reporter): ...\n")
    sweep = {"name": "own", "trainer": "shop_loop:train", "study": STUDY, "training": {"eval_every": 100, "deep": [1]}}
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump({**sweep, "budget": {"trials": 30}}))
    return tmp_path / "sweep.yaml"


def faults(path: Path, *overrides: str) -> list[str]:
    return [f"{fault.key}: {fault.message}" for fault in check_sweep(path, overrides=overrides).faults]


def notes(path: Path, *overrides: str) -> list[str]:
    checked = check_sweep(path, overrides=overrides)
    assert checked.faults == ()
    return [f"{note.key}: {note.message}" for note in checked.notes]


def test_model_task_and_data_may_be_left_out_and_names_are_free(path: Path) -> None:
    assert faults(path) == notes(path) == []
    spec = load_sweep(path)
    assert isinstance(spec, FunctionSweep)
    assert (spec.model, spec.task, spec.data) == (None, None, None)
    assert spec.training.model_extra == {"deep": [1]}
    assert starting_configurations(spec) == ()  # defaults are those of the trainer that we know


def test_without_a_trainer_of_ones_own_they_are_missed(path: Path) -> None:
    told = faults(path, "trainer=transformers")
    for key, example in {"model": "roberta-base", "task": "classification", "data": "{train: "}.items():
        assert any(fault.startswith(f"{key}: this key is missing. Add it, as in `{key}: {example}") for fault in told)


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["training.eval_every=null"], "training.eval_every: trials are compared where they have seen equally many"),
        (
            ["training.eval_every=null", "study.pruner={type: patient, then: {type: median}}"],
            "training.eval_every: trials are compared where they have seen equally many",
        ),
        (["study.pruner.type=hyperband"], "training.total_examples: hyperband divides trials by how long the longest"),
        (["study.pruner={type: patient, then: {type: hyperband}}"], "training.total_examples: hyperband divides"),
        (["study.pruner.first_rung=150"], "study.pruner.first_rung: first_rung (150) must be a multiple of eval_every"),
        (
            ["study.pruner.compare_at=progress", "training.eval_every=400"],
            "training.eval_every: eval_every is 400, but with `compare_at: progress` it counts percent",
        ),
        (["training.eval_every=0"], "training.eval_every: eval_every is 0 but must be at least 1"),
        (["training.rate=1"], "training.rate: rate is fixed here (1) and searched by the study"),
        (
            ["evaluation={metrics: {cost: statistics:mean}}"],
            "evaluation: a trainer of your own reports what it measures",
        ),
        (["study.parameters={seed: {type: int, low: 0, high: 9}}"], "study.parameters.seed: seed cannot be searched"),
        (
            ["study.parameters={a-b: {type: int, low: 0, high: 9}}"],
            'study.parameters.a-b: "a-b" is no name: use letters',
        ),
        (
            ["study.parameters={total_examples: {type: int, low: 0, high: 9}}"],
            "study.parameters.total_examples.low: total_examples is 0 but must be at least 1",
        ),
        (["training.total_examples=many"], 'training.total_examples: "many" is not a whole number'),
    ],
)
def test_what_the_sweep_must_know_is_missed(path: Path, overrides: list[str], told: str) -> None:
    found = faults(path, *overrides)
    assert len(found) == 1
    assert found[0].startswith(told)


@pytest.mark.parametrize(
    ("overrides", "grid"),
    [
        ([], Grid("examples", 100, 0)),
        (["training.eval_every=null", "study.pruner.type=none"], Grid("examples", 1, 0)),
        (["training={total_examples: 990}"], Grid("examples", 198, 990)),
        (["training.total_examples=990", "study.pruner.type=hyperband"], Grid("examples", 100, 990)),
        (["training={}", "study.pruner.compare_at=progress"], Grid("progress", 20, 100)),
        (
            [
                "training={}",
                "study.parameters={total_examples: {type: categorical, choices: [200, 600]}}",
                "study.pruner.type=hyperband",
            ],
            Grid("examples", 120, 600),
        ),
    ],
)
def test_the_grid_goes_by_what_is_known(path: Path, overrides: list[str], grid: Grid) -> None:
    assert plan_grid(load_sweep(path, overrides=overrides)) == grid


def test_a_share_of_an_unknown_length_is_noted(path: Path) -> None:
    progress = ["training.eval_every=10", "study.pruner.compare_at=progress"]
    (note,) = notes(path, *progress)
    assert "reporter.total_examples" in note
    assert notes(path, *progress, "training.total_examples=500") == []


def test_a_fixed_setting_may_choose_branches(path: Path) -> None:
    assert faults(path, "study.parameters.kind=null", "training.kind=large")  # null is no parameter
    branches = "{by: kind, small: {type: int, low: 1, high: 2}, large: {type: int, low: 3, high: 9}}"
    own = ["training={kind: large, eval_every: 100}", f"study.parameters={{depth: {branches}}}"]
    assert faults(path, *own) == []
    assert notes(path, "training.kind=huge", *own[1:], "budget.trials=1") != []


def test_a_derived_length_is_held_to_its_rules(path: Path) -> None:
    spec = load_sweep(path)
    assert isinstance(spec, FunctionSweep)
    assert laid_over(spec.training, {"total_examples": 80.0}).total_examples == 80
    with pytest.raises(SpecError, match="total_examples is 0 but must be at least 1"):
        laid_over(spec.training, {"total_examples": 0})


def test_a_quota_is_refused_where_it_could_not_be_kept(path: Path) -> None:
    assert faults(path, "artifacts.keep=top 2") == []
    (fault,) = faults(path, "artifacts.quota_gib=5")
    assert fault.startswith("artifacts.quota_gib: a trainer of your own writes to its folder what it likes")
