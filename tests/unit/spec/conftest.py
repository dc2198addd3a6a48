"""A study and a sweep on disk that are right, to be broken by one edit at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from finesweep.spec.files import Checked, check_sweep, load_sweep
from finesweep.spec.sweep import SweepSpec

STUDY = """\
objective: {metric: macro_f1, direction: maximize}
sampler: {type: tpe, seed: 0}
pruner:
  type: asha
  first_rung: 20
  compare_at: progress
parameters:
  method: {type: categorical, choices: [feature-extraction, full]}
  learning_rate:
    by: method
    feature-extraction: {type: float, low: 1e-4, high: 1e-1, log: true}
    full: {type: float, low: 5e-6, high: 1e-4, log: true}
  batch_size: {type: categorical, choices: [8, 16, 32]}
  epochs: {type: int, low: 2, high: 5}
  unfrozen_layers: {type: int, low: 0, high: 2, when: {method: feature-extraction}}
  weight_decay: {type: float, low: 0, high: 0.1}
"""

SWEEP = """\
name: tickets
study: ../studies/study.yaml
model: org/some-model
task: classification
data: {train: t.jsonl, validation: v.jsonl}
training:
  bf16: true
  eval_every: 10
  seed: 1
start_with:
  - {method: full, learning_rate: 3e-5, batch_size: 16}
budget: {trials: 60, hours: 10}
resources: {gpus_per_trial: 1}
"""


@dataclass(frozen=True)
class Files:
    root: Path
    right_study: str = STUDY
    right_sweep: str = SWEEP

    @property
    def sweep_path(self) -> Path:
        return self.root / "sweeps" / "sweep.yaml"

    @property
    def study_path(self) -> Path:
        return self.root / "studies" / "study.yaml"

    def edit(self, which: str, old: str, new: str) -> None:
        path = self.sweep_path if which == "sweep" else self.study_path
        text = path.read_text(encoding="utf-8")
        assert old in text, f"{old!r} is not in the {which}"
        path.write_text(text.replace(old, new, 1), encoding="utf-8")

    def check(self, *overrides: str) -> Checked:
        return check_sweep(self.sweep_path, overrides=overrides)

    def load(self, *overrides: str) -> SweepSpec:
        return load_sweep(self.sweep_path, overrides=overrides)

    def faults(self, *overrides: str) -> list[str]:
        return self._short(self.check(*overrides).faults)

    def notes(self, *overrides: str) -> list[str]:
        checked = self.check(*overrides)
        assert checked.faults == (), self._short(checked.faults)
        return self._short(checked.notes)

    def _short(self, remarks: Sequence[object]) -> list[str]:
        return [str(remark).replace(f"{self.root}/", "") for remark in remarks]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Write the right study and sweep with their data."""
    return _write_files(tmp_path)


@pytest.fixture(scope="module")
def shared_files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Write them once for a module whose tests write both files anew."""
    return _write_files(tmp_path_factory.mktemp("shared"))


def _write_files(root: Path) -> Files:
    files = Files(root)
    files.study_path.parent.mkdir()
    files.sweep_path.parent.mkdir()
    files.study_path.write_text(STUDY, encoding="utf-8")
    files.sweep_path.write_text(SWEEP, encoding="utf-8")
    for name in ("t.jsonl", "v.jsonl"):
        (files.sweep_path.parent / name).write_text('{"text": "a", "label": "b"}\n', encoding="utf-8")
    return files
