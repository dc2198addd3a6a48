"""A resumed trial equals an unbroken one, whole checkpoints alone are used, and kept weights can be loaded."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file

import finesweep
from finesweep.errors import ModelError
from finesweep.events import Decision, Ending
from finesweep.training.best_weights import load_trained


class Killed(BaseException):
    """Stands for the death of a worker: no clean-up of a trial runs on it."""


def kill_at(step: int) -> Any:
    def decide(report: Any) -> Decision:
        if report.step == step:
            raise Killed
        return Decision.CONTINUE

    return decide


@pytest.mark.parametrize(
    ("pause_after", "strategy"),  # an epoch has 7 steps
    [(3, "random"), (7, "random"), (9, "random"), (9, "group_by_length")],
)
def test_resumed_equals_unbroken(
    bench: Any, recorder: Any, optimizer_steps: Any, batches_seen: Any, pause_after: int, strategy: str
) -> None:
    set_up = bench(train_sampling_strategy=strategy, lr_scheduler_type="cosine")
    trial = {"batch_size": 8, "epochs": 3, "warmup_steps": 5, "weight_decay": 0.1}
    _, unbroken = set_up.run(number=1, **trial)
    rates, batches = list(optimizer_steps.learning_rates), list(batches_seen)
    optimizer_steps.learning_rates.clear()
    batches_seen.clear()

    pause = recorder(on_poll=lambda n: Decision.PAUSE if n == pause_after else Decision.CONTINUE)
    paused, before = set_up.run(pause, number=2, attempt=1, **trial)
    assert paused.ending is Ending.PAUSED
    assert paused.artifacts == {}  # a checkpoint is none: it vanishes
    resumed, after = bench(train_sampling_strategy=strategy, lr_scheduler_type="cosine").run(
        number=2, attempt=2, **trial
    )
    assert resumed.ending is Ending.DONE
    assert after.facts["resumed_from"] == f"trial-0002/attempt-1/checkpoint-{pause_after}"
    assert [*before.reports, *after.reports] == unbroken.reports
    assert optimizer_steps.learning_rates == rates
    assert batches_seen == batches


def test_resumed_equals_unbroken_with_accumulation_and_frozen_blocks(bench: Any, recorder: Any) -> None:
    set_up = bench(method="feature-extraction", unfrozen_layers=1, device_batch_size=4)
    _, unbroken = set_up.run(number=1, batch_size=16, epochs=3)
    pause = recorder(decide=lambda report: Decision.PAUSE if report.step == 80 else Decision.CONTINUE)
    _, before = set_up.run(pause, number=2, attempt=1, batch_size=16, epochs=3)
    _, after = set_up.run(number=2, attempt=2, batch_size=16, epochs=3)
    assert [*before.reports, *after.reports] == unbroken.reports


def test_a_killed_trial_goes_on_from_its_last_report(bench: Any, recorder: Any) -> None:
    set_up = bench(checkpoint_minutes=0)
    _, unbroken = set_up.run(number=1, batch_size=8, epochs=3)
    with pytest.raises(Killed):
        set_up.run(recorder(decide=kill_at(120)), number=2, attempt=1, batch_size=8, epochs=3)
    _, after = set_up.run(number=2, attempt=2, batch_size=8, epochs=3)
    assert after.reports == unbroken.reports[2:]


def test_no_checkpoint_is_written_before_its_time(bench: Any, recorder: Any) -> None:
    set_up = bench(checkpoint_minutes=60)
    with pytest.raises(Killed):
        set_up.run(recorder(decide=kill_at(80)), attempt=1, epochs=3)
    _, after = set_up.run(attempt=2, epochs=3)
    assert after.steps[0] == 40


def test_the_last_two_checkpoints_stay_and_none_after_the_end(bench: Any, recorder: Any) -> None:
    set_up = bench(checkpoint_minutes=0, artifacts={"keep": "all"})
    with pytest.raises(Killed):
        set_up.run(recorder(decide=kill_at(159)), attempt=1, batch_size=8, epochs=3)
    folder = set_up.artifact_dir / "trial-0007"
    assert checkpoints_in(folder) == ["attempt-1/checkpoint-11", "attempt-1/checkpoint-16"]
    set_up.run(attempt=2, batch_size=8, epochs=3)
    assert checkpoints_in(folder) == []
    assert len(list(folder.glob("attempt-*/best-*"))) == 1


def test_of_a_damaged_checkpoint_the_one_before_it_is_used(
    bench: Any, recorder: Any, caplog: pytest.LogCaptureFixture
) -> None:
    set_up = bench(checkpoint_minutes=0)
    _, unbroken = set_up.run(number=1, batch_size=8, epochs=3)
    with pytest.raises(Killed):
        set_up.run(recorder(decide=kill_at(159)), attempt=1, batch_size=8, epochs=3)
    newest = set_up.artifact_dir / "trial-0007/attempt-1/checkpoint-16"
    fill_with_zeros(newest / "trainer.safetensors")
    with caplog.at_level(logging.WARNING):
        _, after = set_up.run(attempt=2, batch_size=8, epochs=3)
    assert after.facts["resumed_from"] == "trial-0007/attempt-1/checkpoint-11"
    assert f"{newest} is not whole and is skipped" in caplog.text
    assert after.reports == [report for report in unbroken.reports if report.step > 80]


def test_a_damaged_checkpoint_is_never_the_one_before(bench: Any, recorder: Any) -> None:
    """It is gone once it was found: after the next checkpoint there are two whole ones again."""
    set_up = bench(checkpoint_minutes=0)
    with pytest.raises(Killed):
        set_up.run(recorder(decide=kill_at(159)), attempt=1, batch_size=8, epochs=3)
    folder = set_up.artifact_dir / "trial-0007"
    truncate(folder / "attempt-1/checkpoint-16/trainer.safetensors")
    with pytest.raises(Killed):
        set_up.run(recorder(decide=kill_at(159)), attempt=2, batch_size=8, epochs=3)
    assert checkpoints_in(folder) == ["attempt-1/checkpoint-11", "attempt-2/checkpoint-16"]


def test_what_a_killed_worker_left_half_written_is_neither_used_nor_left(bench: Any, recorder: Any) -> None:
    set_up = bench(checkpoint_minutes=0)
    folder = set_up.artifact_dir / "trial-0007"
    with pytest.raises(Killed):
        set_up.run(recorder(decide=kill_at(120)), attempt=1, batch_size=8, epochs=3)
    whole = folder / "attempt-1/checkpoint-11"
    copy_tree(whole, folder / "attempt-1/.checkpoint-16.4711")
    with pytest.raises(Killed):
        set_up.run(recorder(decide=kill_at(120)), attempt=2, batch_size=8, epochs=3)
    assert not list(folder.glob("attempt-*/.*"))
    _, after = set_up.run(attempt=3, batch_size=8, epochs=3)
    assert after.facts["resumed_from"] == "trial-0007/attempt-1/checkpoint-11"


def test_a_trial_whose_best_weights_are_damaged_trains_until_it_has_them_again(bench: Any, recorder: Any) -> None:
    """The first report is the best here. Weights of a later one must not stand for those of the value told."""
    set_up = bench(objective={"metric": "loss", "direction": "maximize"}, checkpoint_minutes=0)
    trial = {"learning_rate": 3e-3, "batch_size": 8, "epochs": 3}
    set_up.run(number=1, **trial)
    with pytest.raises(Killed):
        set_up.run(recorder(decide=kill_at(159)), attempt=1, **trial)
    fill_with_zeros(set_up.artifact_dir / "trial-0007/attempt-1/best-40/model.safetensors")
    result, after = set_up.run(attempt=2, **trial)
    assert after.facts["resumed_from"] is None
    assert result.artifacts == {"best": "trial-0007/attempt-2/best-40"}
    weights = "best-40/model.safetensors"
    again = (set_up.artifact_dir / "trial-0007/attempt-2" / weights).read_bytes()
    assert again == (set_up.artifact_dir / "trial-0001/attempt-1" / weights).read_bytes()


def test_damaged_weights_are_not_loaded(bench: Any, cache_dir: Path) -> None:
    set_up = bench(method="feature-extraction")
    result, _ = set_up.run()
    folder = set_up.artifact_dir / result.artifacts["best"]
    fill_with_zeros(folder / "trained.safetensors")
    with pytest.raises(ModelError, match=r"is damaged: the contents of trained\.safetensors"):
        load_trained(folder, cache_dir=cache_dir)


def test_a_trial_without_a_whole_checkpoint_begins_anew(bench: Any, recorder: Any) -> None:
    set_up = bench(checkpoint_minutes=0)
    with pytest.raises(Killed):
        set_up.run(recorder(decide=kill_at(80)), attempt=1, batch_size=8)
    (only,) = (set_up.artifact_dir / "trial-0007").glob("attempt-1/checkpoint-*")
    (only / "checkpoint.json").unlink()
    _, after = set_up.run(attempt=2, batch_size=8)
    assert after.steps[0] == 40
    assert after.facts["resumed_from"] is None


def test_checkpoints_hold_trained_weights_only(bench: Any, recorder: Any) -> None:
    set_up = bench(method="feature-extraction")
    pause = recorder(on_poll=lambda n: Decision.PAUSE)
    set_up.run(pause)
    (weights,) = set_up.artifact_dir.glob("trial-0007/attempt-1/checkpoint-*/model.safetensors")
    assert weights.stat().st_size < 1000


def test_a_trial_goes_on_without_checkpoints_that_the_quota_does_not_hold(
    bench: Any, recorder: Any, caplog: pytest.LogCaptureFixture
) -> None:
    set_up = bench(checkpoint_minutes=0, artifacts={"quota_gib": 250_000 / 2**30})  # weights fit, a checkpoint does not
    with caplog.at_level(logging.WARNING):
        result, told = set_up.run(batch_size=8, epochs=3)
    assert result.artifacts.keys() == {"best"}
    assert told.facts["checkpoints_skipped"] == 3
    warnings = [text for text in caplog.messages if "a checkpoint of it is not written" in text]
    assert len(warnings) == 1
    assert "artifacts.quota_gib" in warnings[0]
    pause = recorder(on_poll=lambda n: Decision.PAUSE)
    paused, _ = set_up.run(pause, number=8)
    assert paused.ending is Ending.PAUSED
    assert not list(set_up.artifact_dir.glob("trial-0008/attempt-1/*"))


@pytest.mark.parametrize("method", ["full", "feature-extraction"])  # the latter is trained as a lane
def test_best_weights_that_the_quota_does_not_hold_are_not_kept(bench: Any, method: str) -> None:
    set_up = bench(method=method, artifacts={"quota_gib": 10_000 / 2**30})
    result, told = set_up.run(epochs=3)
    assert (result.ending, result.artifacts) == (Ending.DONE, {})
    assert told.facts["weights_kept"] is False
    assert not list(set_up.artifact_dir.glob("trial-0007/attempt-1/*"))


def test_no_lesser_weights_stand_for_the_best_that_did_not_fit(bench: Any, recorder: Any) -> None:
    """The first report is the best here, and another trial has taken the room just then."""
    objective = {"metric": "loss", "direction": "maximize"}
    set_up = bench(objective=objective, checkpoint_minutes=0, artifacts={"quota_gib": 10_000_000 / 2**30})
    trial = {"learning_rate": 3e-3, "batch_size": 8, "epochs": 3}
    other = set_up.artifact_dir / "trial-0099/attempt-1/best-40"
    other.mkdir(parents=True)
    (other / "weights").write_bytes(bytes(9_950_000))

    def decide(report: Any) -> Decision:
        if report.step == 80:
            shutil.rmtree(other)
        if report.step == 120:
            raise Killed
        return Decision.CONTINUE

    with pytest.raises(Killed):
        set_up.run(recorder(decide=decide), attempt=1, **trial)
    result, after = set_up.run(attempt=2, **trial)
    assert after.facts["resumed_from"] == "trial-0007/attempt-1/checkpoint-11"
    assert result.artifacts == {}


def test_best_weights_of_an_earlier_attempt_stay(bench: Any, recorder: Any) -> None:
    """The first report is the best here, and the attempt that made it is gone."""
    set_up = bench(objective={"metric": "loss", "direction": "maximize"}, checkpoint_minutes=0)
    trial = {"learning_rate": 3e-3, "batch_size": 8, "epochs": 6}
    with pytest.raises(Killed):
        set_up.run(recorder(decide=kill_at(80)), attempt=1, **trial)
    result, _ = set_up.run(attempt=2, **trial)
    assert result.artifacts == {"best": "trial-0007/attempt-1/best-40"}
    assert (set_up.artifact_dir / result.artifacts["best"] / "model.safetensors").is_file()


def test_better_weights_of_a_later_attempt_replace_those_of_an_earlier_one(bench: Any, recorder: Any) -> None:
    set_up = bench(objective={"metric": "loss", "direction": "minimize"}, checkpoint_minutes=0)
    trial = {"learning_rate": 5e-3, "batch_size": 8, "epochs": 3}
    with pytest.raises(Killed):
        set_up.run(recorder(decide=kill_at(80)), attempt=1, **trial)
    result, told = set_up.run(attempt=2, **trial)
    best = min(told.reports, key=lambda report: report.metrics["loss"])
    assert result.artifacts == {"best": f"trial-0007/attempt-2/best-{best.step}"}
    assert [path.name for path in set_up.artifact_dir.glob("trial-0007/attempt-*/*")] == [f"best-{best.step}"]


@pytest.mark.parametrize("answer", [Decision.STOP, Decision.CONTINUE])
def test_an_attempt_that_was_overtaken_leaves_the_trials_files_alone(
    bench: Any, recorder: Any, answer: Decision
) -> None:
    """A worker outlives its driver: the trial's next attempt has begun while the old one is still at work."""
    set_up = bench(objective={"metric": "loss", "direction": "maximize"}, checkpoint_minutes=0)
    trial = {"learning_rate": 3e-3, "batch_size": 8, "epochs": 6}
    pause = recorder(on_poll=lambda n: Decision.PAUSE if n == 7 else Decision.CONTINUE)
    set_up.run(pause, number=8, attempt=2, **trial)
    folder = set_up.artifact_dir / "trial-0007"
    at_that_time = {}

    def decide(report: Any) -> Decision:
        if report.step < 80:
            return Decision.CONTINUE
        if report.step == 80:
            copy_tree(set_up.artifact_dir / "trial-0008/attempt-2", folder / "attempt-2")
            at_that_time.update(contents(folder))
        return answer

    set_up.run(recorder(decide=decide), attempt=1, **trial)
    assert {str(Path(name).parent) for name in at_that_time} == {
        "attempt-1/best-40",
        "attempt-1/checkpoint-5",
        "attempt-2/best-40",
        "attempt-2/checkpoint-5",
        "attempt-2/checkpoint-7",
    }
    assert at_that_time.items() <= contents(folder).items()


@pytest.mark.parametrize("options", [{"method": "full"}, {"method": "feature-extraction", "unfrozen_layers": 1}])
def test_kept_weights_load_and_score_as_reported(bench: Any, cache_dir: Path, options: dict[str, Any]) -> None:
    set_up = bench(**options, objective={"metric": "loss", "direction": "minimize"})
    result, told = set_up.run(learning_rate=5e-3, epochs=3)
    folder = set_up.artifact_dir / result.artifacts["best"]
    model = load_trained(folder, cache_dir=cache_dir).eval()
    assert model.config.id2label == {0: "bone", 1: "heart", 2: "skin"}
    rows = set_up.trainer._shared.validation
    losses = []
    with torch.no_grad():
        for row in rows:
            logits = model(input_ids=torch.tensor([row["input_ids"]])).logits
            losses.append(float(torch.nn.functional.cross_entropy(logits, torch.tensor([row["labels"]]))))
    assert sum(losses) / len(losses) == pytest.approx(min(r.metrics["loss"] for r in told.reports), rel=1e-4)


@pytest.mark.parametrize(
    ("options", "n_most"),
    [({"method": "feature-extraction"}, 0), ({"method": "lora", "lora_rank": 1, "lora_target_modules": "query"}, 3000)],
)
def test_of_a_trial_that_trains_a_part_only_that_part_is_written(
    bench: Any, recorder: Any, options: dict[str, Any], n_most: int
) -> None:
    """All that a checkpoint and the best weights hold of numbers is of what moves; the model has 40 KiB."""
    set_up = bench(**options, checkpoint_minutes=0)
    with pytest.raises(Killed):
        set_up.run(recorder(decide=kill_at(120)), epochs=3)
    files = list(set_up.artifact_dir.glob("trial-0007/attempt-1/*/*.safetensors"))
    assert {file.name for file in files} >= {"model.safetensors"}
    for file in files:
        n_numbers = sum(tensor.numel() for name, tensor in load_file(file).items() if not name.startswith("chance"))
        assert n_numbers <= 2 * 51 + n_most


def test_a_head_that_was_kept_becomes_a_plain_model_folder(
    bench: Any, cache_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FINESWEEP_CACHE", str(cache_dir))
    set_up = bench(method="feature-extraction")
    result, _ = set_up.run()
    folder = set_up.artifact_dir / result.artifacts["best"]
    n_bytes = sum(file.stat().st_size for file in folder.iterdir())
    assert result.artifact_bytes == {"best": n_bytes}
    assert n_bytes < 20_000
    verbosity = transformers.utils.logging.get_verbosity()
    model = finesweep.load_trained(folder)
    assert transformers.utils.logging.get_verbosity() == verbosity
    model.save_pretrained(tmp_path / "whole")
    whole = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "whole")
    assert all(torch.equal(p, q) for p, q in zip(whole.parameters(), model.parameters(), strict=True))


def test_a_folder_without_kept_weights_is_refused(tmp_path: Path, cache_dir: Path) -> None:
    with pytest.raises(ModelError, match="holds no weights of a trial"):
        load_trained(tmp_path, cache_dir=cache_dir)


def checkpoints_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.glob("attempt-*/*checkpoint-*"))


def copy_tree(source: Path, target: Path) -> Path:
    for file in source.rglob("*"):
        if file.is_file():
            (copy := target / file.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(file.read_bytes())
    return target


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def fill_with_zeros(path: Path) -> None:
    """What a power cut may leave of a file whose length is on disk and whose contents are not."""
    path.write_bytes(bytes(path.stat().st_size))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
