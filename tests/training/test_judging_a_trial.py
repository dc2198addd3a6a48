"""How a trial ends before its schedule does, and what it tells of its costs."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest

from finesweep.events import Decision, Ending, Grid
from finesweep.training.judging import N_RECENT

STANDING_STILL = {"learning_rate": 1e-12, "batch_size": 8, "epochs": 6}


def stop_what_diverged(report: Any) -> Decision:
    return Decision.CONTINUE if math.isfinite(report.metrics["loss"]) else Decision.STOP


def test_patience_ends_a_trial_whole(bench: Any) -> None:
    set_up = bench(objective={"metric": "accuracy", "direction": "maximize"}, early_stopping_patience=2)
    result, told = set_up.run(**STANDING_STILL)
    assert result.ending is Ending.DONE
    assert result.reason == "early stopping"
    assert [(report.step, report.final) for report in told.reports] == [(40, False), (80, False), (120, True)]
    assert result.artifacts == {"best": "trial-0007/attempt-1/best-40"}


def test_a_small_gain_is_none(bench: Any) -> None:
    """Learning goes on all the way here, by less than is asked for."""
    asked_for = {"early_stopping_patience": 1, "early_stopping_min_delta": 0.2}
    steady = {"learning_rate": 1e-3, "batch_size": 8, "epochs": 6}
    _, patient = bench(early_stopping_patience=1).run(number=1, **steady)
    _, demanding = bench(**asked_for).run(number=2, **steady)
    assert len(demanding.reports) < len(patient.reports)
    losses = [report.metrics["loss"] for report in demanding.reports]
    assert losses[-2] - 0.2 < losses[-1] < losses[-2]


def test_where_the_last_value_counts_the_weights_kept_are_those_of_the_early_end(bench: Any) -> None:
    objective = {"metric": "accuracy", "direction": "maximize", "value": "last"}
    result, told = bench(objective=objective, early_stopping_patience=1).run(**STANDING_STILL)
    assert told.steps == [40, 80]
    assert result.artifacts == {"best": "trial-0007/attempt-1/best-80"}


def test_the_reports_of_one_optimizer_step_are_one_evaluation(bench: Any) -> None:
    set_up = bench(grid=Grid("examples", every=4, longest=1000), early_stopping_patience=2)
    _, told = set_up.run(learning_rate=1e-12, batch_size=16)
    assert [(report.step, report.final) for report in told.reports][-4:] == [
        (36, True),
        (40, True),
        (44, True),
        (48, True),
    ]
    assert told.steps[0] == 4


def test_pause_in_answer_to_the_report_that_exhausts_patience_comes_too_late(bench: Any, recorder: Any) -> None:
    pause = recorder(decide=lambda report: Decision.PAUSE if report.final else Decision.CONTINUE)
    result, told = bench(early_stopping_patience=1).run(pause, **STANDING_STILL)
    assert result.ending is Ending.DONE
    assert told.polls < 15


def test_a_loss_that_blows_up_is_told_at_once(bench: Any, recorder: Any) -> None:
    set_up = bench(max_grad_norm=0.0, optim="sgd", grid=Grid("examples", every=1000, longest=1000))
    result, told = set_up.run(recorder(decide=stop_what_diverged), learning_rate=30.0, batch_size=8, epochs=6)
    assert result.ending is Ending.STOPPED
    (report,) = told.reports
    assert not report.final
    assert report.examples_seen == 53 + 3 * 8, "N_RECENT optimizer steps"
    assert N_RECENT == 10
    assert report.metrics["train_loss"] > 5 * math.log(3)
    assert all(math.isnan(report.metrics[name]) for name in ("loss", "accuracy", "macro_f1", "mcc"))


def test_how_much_is_too_much_is_a_setting(bench: Any, recorder: Any) -> None:
    set_up = bench(max_grad_norm=0.0, optim="sgd", divergence_factor=1e9)
    result, _ = set_up.run(recorder(decide=stop_what_diverged), learning_rate=30.0, batch_size=8, epochs=3)
    assert result.ending is Ending.DONE


@pytest.mark.parametrize(
    "settings",
    [
        {"batch_size": 1, "epochs": 1},
        {"label_smoothing_factor": 0.5},
        {"label_smoothing_factor": 0.9, "lr_scheduler_type": "constant"},
        {"method": "feature-extraction"},
    ],
)
def test_noise_and_smoothing_are_no_divergence(bench: Any, recorder: Any, settings: dict[str, Any]) -> None:
    trial = {"learning_rate": 1e-3, "batch_size": 4, "epochs": 2, **settings}
    result, _ = bench(divergence_factor=2.5, **trial).run(recorder(decide=stop_what_diverged))
    assert result.ending is Ending.DONE


def test_a_model_that_knows_its_task_may_lose_some_of_it(bench: Any, recorder: Any, cache_dir: Any) -> None:
    """It begins near 0, and a rise to many times that is still far from ignorance."""
    first = bench(artifacts={"keep": "all"})
    result, told = first.run(number=1, learning_rate=1e-2, batch_size=8, epochs=12)
    known = first.artifact_dir / result.artifacts["best"]
    files = {"validation": str(first.trainer._spec.data.train)}
    again = bench(model=known, data=files, optim="sgd", max_grad_norm=0.0)
    stop = recorder(decide=stop_what_diverged)
    result, told = again.run(stop, number=2, learning_rate=0.3, batch_size=4, epochs=2)
    losses = [report.metrics["train_loss"] for report in told.reports]
    assert result.ending is Ending.DONE, losses


def test_costs_are_told_where_an_objective_names_them(bench: Any) -> None:
    costs = [
        {"metric": name, "direction": "minimize"} for name in ("trainable_parameters", "model_mib", "train_seconds")
    ]
    set_up = bench(objective=[{"metric": "loss", "direction": "minimize"}, *costs], method="feature-extraction")
    _, told = set_up.run(epochs=2)
    seconds = [report.metrics["train_seconds"] for report in told.reports]
    assert 0 < seconds[0] < seconds[-1]
    for report in told.reports:
        assert report.metrics["trainable_parameters"] == told.facts["n_trainable"]
        assert report.metrics["model_mib"] == told.facts["n_parameters"] * 4 / 2**20
    _, without = bench().run(number=8)
    assert set(without.reports[0].metrics) == {"loss", "accuracy", "macro_f1", "mcc", "train_loss"}


def test_training_time_counts_training_alone_over_all_attempts(bench: Any, recorder: Any) -> None:
    objective = [{"metric": "loss", "direction": "minimize"}, {"metric": "train_seconds", "direction": "minimize"}]
    slow_s = 1.0

    def decide(report: Any) -> Decision:
        time.sleep(slow_s)
        return Decision.PAUSE if report.step == 80 else Decision.CONTINUE

    set_up = bench(objective=objective)
    _, before = set_up.run(recorder(decide=decide), attempt=1, batch_size=8, epochs=2)
    _, after = set_up.run(attempt=2, batch_size=8, epochs=2)
    seconds = [report.metrics["train_seconds"] for report in (*before.reports, *after.reports)]
    assert seconds == sorted(seconds)
    assert 0 < seconds[0] < seconds[-1] < slow_s
