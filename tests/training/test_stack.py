"""Heads trained as lanes of one computation learn, report and end as each does by itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file
from tests.training.conftest import CLASSES, Bench

from finesweep.events import (
    GRAD_NORM,
    LEARNING_RATE,
    MEMORY_GIB,
    AttemptResult,
    Decision,
    Ending,
    Grid,
    Report,
    TrialSpec,
)
from finesweep.training.best_weights import load_trained

GRID = Grid("examples", every=40, longest=10_000)
HEAD = {"method": "feature-extraction", "unfrozen_layers": 0}
OBJECTIVE = {"metric": "loss", "direction": "minimize"}
# N_TRAIN is 53: 14 steps an epoch with 4 rows each, 7 with 8; epochs end in smaller batches
TRIALS: Mapping[int, Mapping[str, Any]] = {
    0: {"learning_rate": 1e-3, "batch_size": 4, "epochs": 3, "warmup_steps": 5, "weight_decay": 0.1},
    2: {"learning_rate": 1e-2, "batch_size": 8, "epochs": 2, "warmup_steps": 0, "weight_decay": 0.0},
    3: {"learning_rate": 5e-3, "batch_size": 4, "epochs": 1.5, "warmup_steps": 2, "weight_decay": 0.01},
    5: {"learning_rate": 3e-3, "batch_size": 4, "epochs": 3, "warmup_steps": 0, "weight_decay": 0.0},
}


@dataclass
class StackRecorder:
    """A stack's reporter that remembers, and answers as a test wants it to."""

    decide: Callable[[int, Report], Decision] = lambda number, report: Decision.CONTINUE
    on_poll: Callable[[int], Decision] = lambda number: Decision.CONTINUE
    reports: dict[int, list[Report]] = field(default_factory=dict)
    batches: list[list[int]] = field(default_factory=list)
    facts: dict[int, dict[str, Any]] = field(default_factory=dict)
    ends: dict[int, AttemptResult] = field(default_factory=dict)

    def describe(self, number: int, facts: Mapping[str, Any]) -> None:
        self.facts.setdefault(number, {}).update(facts)

    def report(self, reports: Mapping[int, Report]) -> Mapping[int, Decision]:
        self.batches.append(list(reports))
        for number, report in reports.items():
            self.reports.setdefault(number, []).append(report)
        return {number: self.decide(number, report) for number, report in reports.items()}

    def poll(self, number: int) -> Decision:
        return self.on_poll(number)

    def end(self, number: int, result: AttemptResult) -> None:
        assert number not in self.ends, f"lane {number} has ended twice"
        self.ends[number] = result


@pytest.fixture
def stacked(bench: Callable[..., Bench]) -> Callable[..., Bench]:
    """Return a function that sets up a trainer whose trials train heads on stored features."""

    def set_up(**options: Any) -> Bench:
        return bench(**{"grid": GRID, "objective": OBJECTIVE, **HEAD, **options})

    return set_up


@pytest.fixture
def alone(bench: Callable[..., Bench]) -> Callable[..., Bench]:
    """Return a function that sets up transformers' own Trainer on the whole model: nothing is stored or stacked."""

    def set_up(**options: Any) -> Bench:
        return bench(**{"grid": GRID, "objective": OBJECTIVE, "resources": {"feature_cache_gib": 0}, **HEAD, **options})

    return set_up


def run_stack(
    bench: Bench,
    recorder: StackRecorder | None = None,
    *,
    trials: Mapping[int, Mapping[str, Any]] = TRIALS,
    attempt: int = 1,
) -> StackRecorder:
    recorder = recorder or StackRecorder()
    specs = [TrialSpec(number, attempt, configuration) for number, configuration in trials.items()]
    assert bench.trainer.can_stack(specs)
    bench.trainer.run_stack(specs, recorder)
    assert recorder.ends.keys() == trials.keys()
    return recorder


def assert_alike(got: list[Report], expected: list[Report], *, within: float = 1e-5) -> None:
    assert [report.step for report in got] == [report.step for report in expected]
    assert [report.examples_seen for report in got] == [report.examples_seen for report in expected]
    assert [report.final for report in got] == [report.final for report in expected]
    for one, other in zip(got, expected, strict=True):
        assert one.metrics.keys() == other.metrics.keys()
        for name, value in one.metrics.items():
            assert value == pytest.approx(other.metrics[name], rel=within, abs=within, nan_ok=True), (name, one.step)
        assert {LEARNING_RATE, MEMORY_GIB} <= one.telemetry.keys() & other.telemetry.keys()
        for name in {LEARNING_RATE, GRAD_NORM} & other.telemetry.keys():
            assert one.telemetry[name] == pytest.approx(other.telemetry[name], rel=max(within, 1e-4)), (name, one.step)


# --- equal to one by one ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["classification", "multi-label-classification", "regression"])
def test_each_lane_learns_what_it_learns_by_itself(stacked: Any, alone: Any, recorder: Any, task: str) -> None:
    together = run_stack(stacked(task=task))
    by_itself = alone(task=task)
    for number, configuration in TRIALS.items():
        _, expected = by_itself.run(number=100 + number, **configuration)
        assert "not cached" in expected.facts["features"]
        assert_alike(together.reports[number], expected.reports)
        assert together.facts[number]["stacked_with"] == len(TRIALS) - 1
        for fact in ("n_trainable", "n_parameters", "optimizer_steps", "warmup_steps", "last_step"):
            assert together.facts[number][fact] == expected.facts[fact]


CONFIG = {
    "vocab_size": 64,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 40,
    "initializer_range": 0.3,
    "pad_token_id": 0,
}
MODELS: Mapping[str, Callable[[], Any]] = {
    "roberta": lambda: transformers.RobertaModel(transformers.RobertaConfig(**CONFIG), add_pooling_layer=False),
    "electra": lambda: transformers.ElectraModel(transformers.ElectraConfig(**CONFIG, embedding_size=16)),
    "distilbert": lambda: transformers.DistilBertModel(
        transformers.DistilBertConfig(
            vocab_size=64, dim=16, n_layers=2, n_heads=2, hidden_dim=24, initializer_range=0.3, pad_token_id=0
        )
    ),
    "modernbert": lambda: transformers.ModernBertModel(
        transformers.ModernBertConfig(
            **{**CONFIG, "initializer_range": 0.1, "classifier_dropout": 0.2},
            **dict.fromkeys(("eos_token_id", "bos_token_id", "cls_token_id", "sep_token_id"), 1),
        )
    ),
    "llama": lambda: transformers.LlamaModel(transformers.LlamaConfig(**CONFIG)),
}


@pytest.fixture
def model_of(tmp_path: Path, tokenizer: Any) -> Callable[[str], Path]:
    def make(kind: str) -> Path:
        torch.manual_seed(4)
        MODELS[kind]().save_pretrained(tmp_path / kind)
        tokenizer.save_pretrained(tmp_path / kind)
        return tmp_path / kind

    return make


@pytest.mark.parametrize("kind", MODELS)
def test_heads_of_several_layers_too(stacked: Any, alone: Any, model_of: Any, kind: str) -> None:
    folder = model_of(kind)
    together = run_stack(stacked(model=folder))
    by_itself = alone(model=folder)
    for number, configuration in TRIALS.items():
        _, expected = by_itself.run(number=100 + number, **configuration)
        assert_alike(together.reports[number], expected.reports)


@pytest.mark.parametrize(
    "settings",
    [
        {"train_sampling_strategy": "group_by_length"},
        {"train_sampling_strategy": "sequential", "dataloader_drop_last": True},
        {"lr_scheduler_type": "cosine", "max_grad_norm": 0.05, "adam_beta2": 0.9, "adam_epsilon": 1e-4},
        {"label_smoothing_factor": 0.2, "device_batch_size": 2},
        {"pooling": "mean"},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_with_settings_that_lanes_know(stacked: Any, alone: Any, settings: Mapping[str, Any]) -> None:
    together = run_stack(stacked(**settings))
    by_itself = alone(**settings)
    for number, configuration in TRIALS.items():
        _, expected = by_itself.run(number=100 + number, **configuration)
        assert_alike(together.reports[number], expected.reports)


def test_in_doubles_to_the_ninth_decimal(make_spec: Any, bench: Any) -> None:
    spec = make_spec(objective=OBJECTIVE, **HEAD)
    doubles = spec.model_copy(update={"model": spec.model.model_copy(update={"dtype": "float64"})})  # no file may ask
    off = doubles.resources.model_copy(update={"feature_cache_gib": 0.0})
    together = run_stack(bench(spec=doubles, grid=GRID))
    by_itself = bench(spec=doubles.model_copy(update={"resources": off}), grid=GRID)
    for number, configuration in TRIALS.items():
        _, expected = by_itself.run(number=100 + number, **configuration)
        assert_alike(together.reports[number], expected.reports, within=1e-9)


def test_a_trial_by_itself_is_a_stack_of_one(stacked: Any, alone: Any) -> None:
    _, one = stacked().run(number=0, **TRIALS[0])
    assert one.facts["stacked_with"] == 0
    _, expected = alone().run(number=100, **TRIALS[0])
    assert_alike(one.reports, expected.reports)


def test_two_hundred_steps_at_a_high_rate(stacked: Any, alone: Any) -> None:
    trial = {"learning_rate": 1e-2, "batch_size": 4, "epochs": 15, "weight_decay": 0.01}
    grid = Grid("examples", every=53, longest=10_000)
    together = run_stack(stacked(grid=grid), trials={0: trial, 1: {**trial, "learning_rate": 1e-3}})
    assert together.facts[0]["optimizer_steps"] == 210
    _, expected = alone(grid=grid).run(number=100, **trial)
    assert_alike(together.reports[0], expected.reports)


def test_the_weights_kept_are_those_of_a_trial_by_itself(
    stacked: Any, alone: Any, cache_dir: Path, artifact_weights: Any
) -> None:
    bench = stacked()
    together = run_stack(bench)
    by_itself = alone()
    for number, configuration in TRIALS.items():
        result, _ = by_itself.run(number=100 + number, **configuration)
        got = artifact_weights(bench, together.ends[number])
        expected = artifact_weights(by_itself, result)
        assert got.keys() == expected.keys() == {"classifier.weight", "classifier.bias"}
        for name, weight in got.items():
            torch.testing.assert_close(weight, expected[name], rtol=1e-4, atol=1e-5)
    model = load_trained(bench.artifact_dir / together.ends[0].artifacts["best"], cache_dir=cache_dir)
    assert list(model.config.id2label.values()) == list(CLASSES)


@pytest.fixture
def artifact_weights() -> Callable[[Bench, AttemptResult], Mapping[str, torch.Tensor]]:
    return lambda bench, result: load_file(bench.artifact_dir / result.artifacts["best"] / "trained.safetensors")


# --- reports and ends -------------------------------------------------------------------------------------------


def test_lanes_report_together_in_ascending_number(stacked: Any) -> None:
    together = run_stack(stacked())
    assert together.batches[0] == [0, 2, 3, 5]
    assert all(batch == sorted(batch) for batch in together.batches)
    assert {number: result.ending for number, result in together.ends.items()} == dict.fromkeys(TRIALS, Ending.DONE)


def test_a_lane_that_is_stopped_leaves_and_changes_nothing_for_the_others(stacked: Any) -> None:
    def decide(number: int, report: Report) -> Decision:
        return Decision.STOP if number == 2 and report.step == 40 else Decision.CONTINUE

    bench = stacked()
    undisturbed = run_stack(bench, trials=renumbered())
    stopped = run_stack(bench, StackRecorder(decide))
    assert stopped.ends[2] == AttemptResult(Ending.STOPPED)
    assert [report.step for report in stopped.reports[2]] == [40]
    assert not list((bench.artifact_dir / "trial-0002").glob("attempt-*/*"))
    for number in (0, 3, 5):
        assert_alike(stopped.reports[number], undisturbed.reports[number + 10], within=1e-7)


def renumbered() -> Mapping[int, Mapping[str, Any]]:
    return {number + 10: configuration for number, configuration in TRIALS.items()}


def test_a_metric_that_raises_for_one_lane_fails_that_lane(
    stacked: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "moody_metrics.py").write_text(
        "def moody(probabilities, labels):\n"
        "    if probabilities.max() > 0.9:\n"
        "        raise RuntimeError('too sure')\n"
        "    return 0.5\n",
        encoding="utf-8",
    )
    bench = stacked(evaluation={"metrics": {"moody": "moody_metrics:moody"}})
    trials = {0: TRIALS[0], 1: {**TRIALS[5], "learning_rate": 3.0}, 4: TRIALS[2]}
    together = run_stack(bench, trials=trials)
    assert {number: result.ending for number, result in together.ends.items()} == {
        0: Ending.DONE,
        1: Ending.FAILED,
        4: Ending.DONE,
    }
    assert "too sure" in str(together.ends[1].reason)
    assert "moody_metrics.py" in str(together.ends[1].traceback)


def test_divergence_is_told_of_the_lane_that_diverges(stacked: Any) -> None:
    trials = {0: TRIALS[0], 1: {**TRIALS[5], "learning_rate": 1e4}}

    def decide(number: int, report: Report) -> Decision:
        return Decision.STOP if report.metrics["loss"] != report.metrics["loss"] else Decision.CONTINUE

    together = run_stack(stacked(), StackRecorder(decide), trials=trials)
    assert together.ends[1].ending is Ending.STOPPED
    assert together.ends[0].ending is Ending.DONE


def test_early_stopping_ends_a_lane_as_complete(stacked: Any) -> None:
    together = run_stack(stacked(early_stopping_patience=1, early_stopping_min_delta=10.0))
    assert {result.reason for result in together.ends.values()} == {"early stopping"}


# --- going on ---------------------------------------------------------------------------------------------------


def pause_at(step: int) -> Callable[[int, Report], Decision]:
    return lambda number, report: Decision.PAUSE if report.step >= step else Decision.CONTINUE


def test_resumed_equals_unbroken_in_whatever_company(stacked: Any) -> None:
    unbroken = run_stack(stacked())
    bench = stacked()
    paused = run_stack(bench, StackRecorder(pause_at(40)), trials=renumbered())
    assert {result.ending for result in paused.ends.values()} == {Ending.PAUSED}

    pair = {number: TRIALS[number - 10] for number in (10, 15)}  # of the same batch size
    resumed = run_stack(bench, trials=pair, attempt=2)
    rest = run_stack(bench, trials={12: TRIALS[2], 13: TRIALS[3], 20: TRIALS[0]}, attempt=2)  # one is new
    both = {**resumed.reports, **rest.reports}
    for number in TRIALS:
        got = paused.reports[number + 10] + both[number + 10]
        assert_alike(got, unbroken.reports[number], within=1e-7)
    assert_alike(rest.reports[20], unbroken.reports[0], within=1e-7)
    assert resumed.facts[10]["resumed_from"].startswith("trial-0010/attempt-1/checkpoint-")


def test_a_pause_between_reports_is_kept_to(stacked: Any) -> None:
    polls: list[int] = []

    def on_poll(number: int) -> Decision:
        polls.append(number)
        return Decision.PAUSE if polls.count(5) >= 3 else Decision.CONTINUE

    bench = stacked()
    paused = run_stack(bench, StackRecorder(on_poll=on_poll))
    assert {result.ending for result in paused.ends.values()} == {Ending.PAUSED}
    resumed = run_stack(bench, attempt=2)
    unbroken = run_stack(stacked(), trials=renumbered())
    for number in TRIALS:
        got = paused.reports.get(number, []) + resumed.reports[number]
        assert_alike(got, unbroken.reports[number + 10], within=1e-7)


def test_a_trial_that_was_stacked_goes_on_alone(stacked: Any) -> None:
    bench = stacked()
    paused = run_stack(bench, StackRecorder(pause_at(80)))
    _, alone = bench.run(number=5, attempt=2, **TRIALS[5])
    unbroken = run_stack(stacked(), trials=renumbered())
    assert_alike(paused.reports[5] + alone.reports, unbroken.reports[15], within=1e-7)


def test_what_another_way_of_training_left_is_no_checkpoint_of_a_lane(stacked: Any, alone: Any) -> None:
    """As where the store no longer fits the disk: the trial begins again, and tells the same."""
    bench, by_itself = stacked(), alone()
    run_stack(bench, StackRecorder(pause_at(80)))
    result, again = by_itself.run(number=5, attempt=2, **TRIALS[5])
    assert result.ending is Ending.DONE
    unbroken = run_stack(stacked(), trials=renumbered())
    assert_alike(again.reports, unbroken.reports[15])


# --- what is not stacked ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"unfrozen_layers": 1},
        {"method": "full"},
        {"optim": "sgd"},
        {"resources": {"feature_cache_gib": 0}},
        {"neftune_noise_alpha": 5.0},
    ],
    ids=lambda options: next(iter(options)),
)
def test_trials_that_are_no_lanes_say_so(stacked: Any, options: Mapping[str, Any]) -> None:
    specs = [TrialSpec(number, 1, configuration) for number, configuration in TRIALS.items()]
    assert not stacked(**options).trainer.can_stack(specs)


def test_a_head_of_other_layers_is_trained_by_itself(stacked: Any, tmp_path: Path, tokenizer: Any) -> None:
    """BigBird's has the activation of its configuration, here one that lanes do not know."""
    torch.manual_seed(4)
    config = transformers.BigBirdConfig(**CONFIG, attention_type="original_full", hidden_act="mish")
    transformers.BigBirdModel(config).save_pretrained(tmp_path / "bird")
    tokenizer.save_pretrained(tmp_path / "bird")
    bench = stacked(model=tmp_path / "bird")
    specs = [TrialSpec(number, 1, configuration) for number, configuration in TRIALS.items()]
    assert not bench.trainer.can_stack(specs)
    result, alone = bench.run(number=1, **TRIALS[0])
    assert result.ending is Ending.DONE
    assert alone.facts["features"] == "cached"
    assert "stacked_with" not in alone.facts
