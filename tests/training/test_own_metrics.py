"""Metrics of the user's own in a trial: reported, judged by, and in the way of a trial where they are broken."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from finesweep.errors import EvaluationError, FunctionError
from finesweep.events import Ending
from finesweep.training.prepare import prepare

MODULE = """
import numpy as np

def share_right(probabilities, labels):
    return (probabilities.argmax(axis=-1) == labels).mean()

def undefined(probabilities, labels):
    return float("nan")

def loss_again(statistics, token_ids):
    n_tokens = (token_ids != -100).sum(axis=1)
    assert (n_tokens == statistics[:, 1]).all() and token_ids.max() < 64
    return statistics[:, 0].sum() / n_tokens.sum()

def nothing(probabilities, labels):
    pass
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "shop_metrics.py").write_text(MODULE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return "shop_metrics"


def test_they_are_reported_beside_those_of_the_task(bench: Any, module: str) -> None:
    own = {"right": f"{module}:share_right", "undefined": f"{module}:undefined"}
    set_up = bench(evaluation={"metrics": own}, objective={"metric": "right", "direction": "maximize"})
    result, told = set_up.run(learning_rate=5e-3, epochs=2)
    assert result.ending is Ending.DONE
    for report in told.reports:
        assert report.metrics["right"] == pytest.approx(report.metrics["accuracy"])
        assert math.isnan(report.metrics["undefined"])


def test_those_of_generative_models_are_given_rows_and_their_tokens(bench: Any, module: str, tied_llama: Path) -> None:
    own = {"metrics": {"again": f"{module}:loss_again"}}
    _, told = bench(model=tied_llama, task="causal-lm", evaluation=own).run(epochs=1)
    for report in told.reports:
        assert report.metrics["again"] == pytest.approx(report.metrics["loss"])


def test_one_that_returns_nothing_fails_the_trial_with_its_name(bench: Any, module: str) -> None:
    set_up = bench(evaluation={"metrics": {"cost": f"{module}:nothing"}})
    with pytest.raises(EvaluationError, match=r"evaluation.metrics.cost: shop_metrics:nothing returned None"):
        set_up.run()


def test_divergence_is_told_of_them_too(bench: Any, module: str) -> None:
    set_up = bench(evaluation={"metrics": {"right": f"{module}:share_right"}}, max_grad_norm=0.0, optim="sgd")
    _, told = set_up.run(learning_rate=1e30, batch_size=8)
    assert math.isnan(told.reports[0].metrics["right"])
    assert not math.isfinite(told.reports[0].metrics["loss"])


def test_one_that_is_not_there_is_found_before_any_trial(make_spec: Any, cache_dir: Path, module: str) -> None:
    spec = make_spec(evaluation={"metrics": {"cost": f"{module}:share_rihgt"}})
    with pytest.raises(FunctionError, match=r"evaluation\.metrics\.cost: .*share_right"):
        prepare(spec, cache_dir=cache_dir)
