"""What a trial tells and how it obeys: the grid, divergence, STOP and PAUSE."""

from __future__ import annotations

import math
import threading
from pathlib import Path
from typing import Any

import pytest

from finesweep.events import Decision, Ending, Grid
from finesweep.trainer import Trainer

N_TRAIN = 53


@pytest.mark.parametrize(
    ("batch_size", "examples_seen"),  # none of the sizes divides the 53 rows
    [(8, [40, 77, 106, 146, 159]), (16, [48, 85, 106, 154, 159]), (32, [53, 85, 106, 159, 159])],
)
def test_reports_fall_on_the_same_steps_for_every_batch_size(
    bench: Any, batch_size: int, examples_seen: list[int]
) -> None:
    _, told = bench(grid=Grid("examples", every=35, longest=1000)).run(batch_size=batch_size, epochs=3)
    assert [report.examples_seen for report in told.reports] == examples_seen
    assert told.steps == [35, 70, 105, 140, 159]
    assert all(report.final == (report.examples_seen == 3 * N_TRAIN) for report in told.reports)
    for report in told.reports:
        assert report.step <= report.examples_seen < report.step + batch_size


def test_a_trial_that_ends_on_the_grid_reports_its_end_once(bench: Any) -> None:
    _, told = bench(data={"max_train_rows": 40}, grid=Grid("examples", every=20, longest=80)).run(batch_size=8)
    assert [(report.step, report.final) for report in told.reports] == [
        (20, False),
        (40, False),
        (60, False),
        (80, True),
    ]


def test_progress_is_percent_of_the_trials_own_steps(bench: Any) -> None:
    set_up = bench(grid=Grid("progress", every=25, longest=100))
    _, short = set_up.run(number=1, batch_size=16, epochs=1)
    _, long = set_up.run(number=2, batch_size=8, epochs=4)
    assert short.steps == long.steps == [25, 50, 75, 100]
    assert [report.examples_seen for report in short.reports] == [16, 32, 48, 53]


def test_progress_ends_at_100_off_the_grid(bench: Any) -> None:
    _, told = bench(grid=Grid("progress", every=40, longest=100)).run(batch_size=16, epochs=2)
    assert [(report.step, report.final) for report in told.reports] == [(40, False), (80, False), (100, True)]


@pytest.mark.parametrize(
    ("grid", "told_at_the_end"),
    [
        (Grid("progress", every=20, longest=100), [80, 100]),  # four optimizer steps: 25, 50, 75, 100
        (Grid("progress", every=15, longest=100), [90, 100]),
        (Grid("examples", every=10, longest=1000), [50, 53]),  # 48 and 53 examples
        (Grid("examples", every=2, longest=1000), [50, 52, 53]),
    ],
)
def test_all_reports_of_the_last_optimizer_step_are_final(bench: Any, grid: Grid, told_at_the_end: list[int]) -> None:
    _, told = bench(grid=grid).run(batch_size=16, epochs=1)
    assert told.facts["optimizer_steps"] == 4
    assert [report.step for report in told.reports if report.final] == told_at_the_end
    assert told.steps[-len(told_at_the_end) :] == told_at_the_end


@pytest.mark.parametrize(
    ("grid", "last_step"),
    [(Grid("examples", every=40, longest=1000), 106), (Grid("progress", every=15, longest=100), 100)],
)
def test_the_end_of_a_trial_is_told_before_its_first_report(
    bench: Any, recorder: Any, grid: Grid, last_step: int
) -> None:
    known: list[int] = []

    def decide(report: Any) -> Decision:
        known.append(told.facts["last_step"])
        return Decision.CONTINUE

    told = recorder(decide=decide)
    bench(grid=grid).run(told, batch_size=16, epochs=2)
    assert set(known) == {last_step} == {told.steps[-1]}


def test_the_worker_asks_between_reports(bench: Any) -> None:
    _, told = bench().run(batch_size=8, epochs=2)
    assert told.polls == 13  # after each of 14 optimizer steps but the last


def test_stop_in_answer_to_a_report(bench: Any, recorder: Any) -> None:
    set_up = bench()
    told_to_stop = recorder(decide=lambda report: Decision.STOP if report.step >= 80 else Decision.CONTINUE)
    result, told = set_up.run(told_to_stop, batch_size=8, epochs=4)
    assert result.ending is Ending.STOPPED
    assert told.steps == [40, 80]
    assert not list(set_up.artifact_dir.rglob("*.safetensors"))


def test_stop_between_reports(bench: Any, recorder: Any) -> None:
    told_to_stop = recorder(on_poll=lambda n: Decision.STOP if n == 3 else Decision.CONTINUE)
    result, told = bench().run(told_to_stop, batch_size=8)
    assert (result.ending, told.polls, told.steps) == (Ending.STOPPED, 3, [])


def test_after_pause_the_rest_of_the_optimizer_step_is_told_and_then_one_checkpoint_is_written(
    bench: Any, recorder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_up = bench(grid=Grid("examples", every=5, longest=1000), checkpoint_minutes=0)
    trial = {"batch_size": 16, "epochs": 2}
    _, unbroken = set_up.run(number=1, **trial)
    written: list[tuple[str, list[int]]] = []
    pause = recorder(decide=lambda report: Decision.PAUSE if report.step >= 20 else Decision.CONTINUE)

    move = Path.replace

    def watch(path: Path, target: Path) -> Path:
        if target.name.startswith("checkpoint-"):
            written.append((target.name, pause.steps))
        return move(path, target)

    monkeypatch.setattr(Path, "replace", watch)
    result, before = set_up.run(pause, number=2, attempt=1, **trial)
    assert result.ending is Ending.PAUSED
    assert before.steps == [5, 10, 15, 20, 25, 30]  # the second optimizer step is the first to reach 20, 25 and 30
    assert written == [("checkpoint-1", [5, 10, 15]), ("checkpoint-2", before.steps)]
    _, after = set_up.run(number=2, attempt=2, **trial)
    assert [*before.reports, *after.reports] == unbroken.reports


def test_stop_after_pause_within_one_optimizer_step_stops(bench: Any, recorder: Any) -> None:
    answers = {20: Decision.PAUSE, 25: Decision.STOP}
    set_up = bench(grid=Grid("examples", every=5, longest=1000), checkpoint_minutes=0)
    result, told = set_up.run(recorder(decide=lambda r: answers.get(r.step, Decision.CONTINUE)), batch_size=16)
    assert result.ending is Ending.STOPPED
    assert told.steps == [5, 10, 15, 20, 25]
    assert not list(set_up.artifact_dir.rglob("*.safetensors"))


def test_pause_in_answer_to_the_last_report_comes_too_late(bench: Any, recorder: Any) -> None:
    result, _ = bench().run(recorder(decide=lambda r: Decision.PAUSE if r.final else Decision.CONTINUE), epochs=1)
    assert result.ending is Ending.DONE


def test_divergence_is_reported_at_once(bench: Any, recorder: Any) -> None:
    def judge(report: Any) -> Decision:
        return Decision.CONTINUE if math.isfinite(report.metrics["loss"]) else Decision.STOP

    set_up = bench(max_grad_norm=0.0, optim="sgd", grid=Grid("examples", every=1000, longest=1000))
    result, told = set_up.run(recorder(decide=judge), learning_rate=1e30, batch_size=8, epochs=3)
    assert result.ending is Ending.STOPPED
    (report,) = told.reports
    assert not report.final
    assert report.step == report.examples_seen == 16  # the step after the first that moved the weights
    assert not math.isfinite(report.metrics["loss"])
    assert all(math.isnan(report.metrics[name]) for name in ("accuracy", "macro_f1", "mcc"))


def test_divergence_on_the_axis_of_progress_comes_after_earlier_reports(bench: Any, recorder: Any) -> None:
    set_up = bench(max_grad_norm=0.0, optim="sgd", grid=Grid("progress", every=1, longest=100))
    told_to_stop = recorder(decide=lambda r: Decision.CONTINUE if math.isfinite(r.metrics["loss"]) else Decision.STOP)
    _, told = set_up.run(told_to_stop, learning_rate=1e30, batch_size=8, epochs=3)
    assert told.steps == sorted(set(told.steps))
    assert not math.isfinite(told.reports[-1].metrics["loss"])


def test_best_weights_are_those_of_the_best_report(bench: Any) -> None:
    set_up = bench(objective={"metric": "accuracy", "direction": "maximize"})
    result, told = set_up.run(learning_rate=5e-3, batch_size=8, epochs=5)
    best = max(told.reports, key=lambda report: (report.metrics["accuracy"], -report.step))
    assert result.artifacts == {"best": f"trial-0007/attempt-1/best-{best.step}"}
    assert [path.name for path in (set_up.artifact_dir / "trial-0007/attempt-1").iterdir()] == [f"best-{best.step}"]


def test_last_weights_are_kept_where_the_last_value_counts(bench: Any) -> None:
    result, told = bench(objective={"metric": "loss", "direction": "maximize", "value": "last"}).run(epochs=2)
    assert result.artifacts == {"best": f"trial-0007/attempt-1/best-{told.steps[-1]}"}


def test_no_weights_are_kept_where_none_are_wanted(bench: Any) -> None:
    set_up = bench(artifacts={"keep": "none"})
    result, _ = set_up.run()
    assert result.artifacts == {}
    assert not list(set_up.artifact_dir.rglob("*.safetensors"))


def test_a_trial_runs_in_a_background_thread(bench: Any) -> None:
    set_up = bench()
    results = []
    thread = threading.Thread(target=lambda: results.append(set_up.run(number=1)))
    thread.start()
    thread.join()
    _, told = set_up.run(number=2)
    assert results[0][1].reports == told.reports


def test_it_is_a_trainer_of_the_seam(bench: Any) -> None:
    trainer: Trainer = bench().trainer
    assert callable(trainer.run)
