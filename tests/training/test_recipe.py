"""The settings really act: learning rate, steps, examples, decay, accumulation, seed."""

from __future__ import annotations

import logging
import math
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from finesweep.errors import FinesweepError
from finesweep.events import Ending, Grid
from finesweep.spec.sweep import SweepSpec

N_TRAIN = 53


def test_learning_rate_warms_up_and_then_falls_linearly_to_zero(bench: Any, optimizer_steps: Any) -> None:
    bench().run(learning_rate=1e-3, batch_size=8, epochs=2, warmup_steps=4)
    rates = optimizer_steps.learning_rates
    assert rates[:5] == pytest.approx([0, 0.25e-3, 0.5e-3, 0.75e-3, 1e-3])
    assert rates[5:] == pytest.approx([1e-3 * (14 - step) / 10 for step in range(5, 14)])


def test_part_of_an_epoch_has_a_schedule_of_its_own_to_its_end(bench: Any, optimizer_steps: Any) -> None:
    """2.6 epochs of seven steps are 18.2: the nineteenth is made whole, and the rate reaches zero behind it."""
    _, told = bench().run(learning_rate=1e-3, batch_size=8, epochs=2.6, warmup_ratio=0.25)
    rates = optimizer_steps.learning_rates
    assert told.facts["optimizer_steps"] == len(rates) == 19
    assert told.facts["warmup_steps"] == 5
    assert rates == pytest.approx([k / 5 * 1e-3 for k in range(5)] + [1e-3 * (19 - k) / 14 for k in range(5, 19)])
    last = told.reports[-1]
    assert (last.final, last.step, last.examples_seen) == (True, 146, 2 * N_TRAIN + 5 * 8)


@pytest.mark.parametrize(("batch_size", "epochs", "n_steps"), [(8, 2, 14), (16, 2, 8), (32, 1.5, 3), (64, 3, 3)])
def test_number_of_optimizer_steps(
    bench: Any, optimizer_steps: Any, batch_size: int, epochs: float, n_steps: int
) -> None:
    _, told = bench().run(batch_size=batch_size, epochs=epochs)
    assert len(optimizer_steps.learning_rates) == told.facts["optimizer_steps"] == n_steps


@pytest.mark.parametrize(("batch_size", "epochs"), [(8, 2), (16, 1.5), (32, 2.4)])
def test_examples_seen_is_what_went_through_the_model(
    bench: Any, batches_seen: Any, batch_size: int, epochs: float
) -> None:
    counts: list[int] = []
    told_to = bench(grid=Grid("examples", every=10, longest=1000))
    _, told = told_to.run(batch_size=batch_size, epochs=epochs)
    for batch in batches_seen:
        counts.append((counts[-1] if counts else 0) + len(batch))
    assert {report.examples_seen for report in told.reports} <= set(counts)
    assert told.reports[-1].examples_seen == counts[-1]


@pytest.mark.parametrize("strategy", ["random", "sequential", "group_by_length"])
@pytest.mark.parametrize("device_batch_size", [None, 4])
def test_batches_that_rows_do_not_fill_are_left_out_of_training_alone(
    bench: Any, batches_seen: Any, strategy: str, device_batch_size: int | None
) -> None:
    options = {"train_sampling_strategy": strategy, "device_batch_size": device_batch_size}
    _, told = bench(dataloader_drop_last=True, **options).run(batch_size=16, epochs=2)
    rows = [tuple(token for token in row if token) for batch in batches_seen for row in batch]
    assert len(rows) == told.reports[-1].examples_seen == 2 * 48
    assert strategy == "sequential" or rows[:48] != rows[48:]
    _, all_rows = bench().run(number=8, learning_rate=1e-12)
    _, same_rows = bench(dataloader_drop_last=True).run(number=9, learning_rate=1e-12)
    assert same_rows.reports[0].metrics["loss"] == pytest.approx(all_rows.reports[0].metrics["loss"])


def test_every_row_is_seen_once_an_epoch_in_a_new_order(bench: Any, batches_seen: Any) -> None:
    bench().run(batch_size=8, epochs=2)
    rows = [tuple(token for token in row if token) for batch in batches_seen for row in batch]
    first, second = rows[:N_TRAIN], rows[N_TRAIN:]
    assert sorted(first) == sorted(second)
    assert first != second


def test_warmup_longer_than_the_trial_is_clamped_and_told(bench: Any, optimizer_steps: Any) -> None:
    _, told = bench().run(learning_rate=1e-3, batch_size=32, epochs=2, warmup_steps=1000)
    assert (told.facts["warmup_steps_asked"], told.facts["warmup_steps"]) == (1000, 4)
    assert optimizer_steps.learning_rates == pytest.approx([0, 0.25e-3, 0.5e-3, 0.75e-3])


def test_the_log_begins_with_what_the_settings_come_to(bench: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        _, told = bench(device_batch_size=4).run(batch_size=8, epochs=1, warmup_steps=1000)
    n = told.facts["n_parameters"]
    assert caplog.messages[0] == (
        f"method full trains {n} of {n} parameters; batches of 8 (4 x 2) in 7 optimizer steps, 7 of 1000 warm-up steps"
    )


def test_weights_decay_but_biases_and_norms_do_not(bench: Any, optimizer_steps: Any) -> None:
    bench().run(weight_decay=0.25, epochs=1)
    (decayed, matrices), (kept, vectors) = optimizer_steps.groups
    assert (decayed, kept) == (0.25, 0.0)
    assert {len(shape) for shape in matrices} == {2}
    assert {len(shape) for shape in vectors} == {1}


def test_a_weight_without_gradient_shrinks_by_decay_alone(bench: Any, optimizer_steps: Any, tiny_bert: Any) -> None:
    unused = 3  # the row of a word that is in no text
    name = "embeddings.word_embeddings.weight"
    set_up = bench(objective={"metric": "loss", "direction": "minimize", "value": "last"})
    result, _ = set_up.run(learning_rate=1e-2, weight_decay=0.5, batch_size=16)
    before = load_file(tiny_bert / "model.safetensors")[name][unused]
    after = load_file(set_up.artifact_dir / result.artifacts["best"] / "model.safetensors")[f"bert.{name}"][unused]
    shrunk = math.prod(1 - rate * 0.5 for rate in optimizer_steps.learning_rates)
    assert shrunk < 0.99
    torch.testing.assert_close(after, before * shrunk)


def test_accumulated_batches_train_like_whole_ones(bench: Any, optimizer_steps: Any) -> None:
    no_dropout = {"method": "feature-extraction"}  # whose pattern depends on the batch
    _, whole = bench(**no_dropout).run(batch_size=16)
    n_steps = len(optimizer_steps.learning_rates)
    _, split = bench(**no_dropout, device_batch_size=4).run(batch_size=16)
    assert len(optimizer_steps.learning_rates) == 2 * n_steps
    assert (split.facts["device_batch_size"], split.facts["accumulation"]) == (4, 4)
    assert split.reports[-1].metrics == pytest.approx(whole.reports[-1].metrics, abs=1e-4)


def test_a_device_batch_that_does_not_divide_is_refused(bench: Any) -> None:
    with pytest.raises(FinesweepError, match=r"device_batch_size.*6.*must divide batch_size.*16"):
        bench(device_batch_size=6).run(batch_size=16)


def test_the_same_trial_twice_gives_the_same_metrics(bench: Any) -> None:
    set_up = bench()
    _, first = set_up.run(number=1, batch_size=8)
    set_up.run(number=2, batch_size=16, learning_rate=1e-2)  # what comes between leaves no trace
    _, again = set_up.run(number=3, batch_size=8)
    _, fresh = bench().run(number=4, batch_size=8)
    assert first.reports == again.reports == fresh.reports


def test_another_seed_gives_other_metrics(bench: Any) -> None:
    _, one = bench(seed=1).run()
    _, other = bench(seed=2).run()
    assert one.reports[0].metrics != other.reports[0].metrics


def test_passed_on_arguments_act(bench: Any, optimizer_steps: Any) -> None:
    bench(lr_scheduler_type="constant").run(learning_rate=1e-3, batch_size=32)
    assert optimizer_steps.learning_rates == pytest.approx([1e-3] * 4)


def test_scores_are_unsmoothed(bench: Any) -> None:
    standing_still = {"learning_rate": 1e-12, "batch_size": 16}
    _, smoothed = bench(label_smoothing_factor=0.9).run(**standing_still)
    _, plain = bench().run(number=8, **standing_still)
    assert smoothed.reports[0].metrics["loss"] == pytest.approx(plain.reports[0].metrics["loss"])
    assert smoothed.reports[0].metrics["train_loss"] != pytest.approx(plain.reports[0].metrics["train_loss"])


def test_training_learns(bench: Any) -> None:
    result, told = bench().run(learning_rate=5e-3, batch_size=8, epochs=8)
    assert result.ending is Ending.DONE
    assert told.reports[-1].metrics["accuracy"] > 0.7  # a third would be chance
    assert set(told.reports[-1].metrics) == {"loss", "accuracy", "macro_f1", "mcc", "train_loss"}


def test_validation_rows_do_not_change_what_is_learnt(bench: Any) -> None:
    rare = bench(grid=Grid("examples", every=1000, longest=1000))
    often = bench(grid=Grid("examples", every=8, longest=1000))
    _, looked_once = rare.run(number=1, batch_size=8)
    _, looked_often = often.run(number=2, batch_size=8)
    scores = [{**r.reports[-1].metrics, "train_loss": None} for r in (looked_once, looked_often)]
    assert scores[0] == scores[1]


def test_generative_training_learns(bench: Any, tiny_llama: Any) -> None:
    objective = {"metric": "perplexity", "direction": "minimize"}
    _, told = bench(model=tiny_llama, task="causal-lm", objective=objective).run(learning_rate=1e-2, epochs=4)
    first, last = told.reports[0].metrics, told.reports[-1].metrics
    assert last["loss"] < first["loss"] - 0.3
    assert last["perplexity"] == pytest.approx(math.exp(last["loss"]))
    assert last["token_accuracy"] > first["token_accuracy"]


def test_facts_of_an_attempt(bench: Any) -> None:
    _, told = bench().run(batch_size=16)
    expected = {"method": "full", "device": "cpu", "dtype": "float32", "examples_per_epoch": N_TRAIN}
    assert expected.items() <= told.facts.items()
    assert told.facts["n_trainable"] == told.facts["n_parameters"] > 1000
    assert told.facts["examples_per_second"] > 0


def test_mixed_precision_is_told_and_does_not_stick(bench: Any, make_spec: Any) -> None:
    spec: SweepSpec = make_spec(bf16=True)
    _, mixed = bench(spec=spec).run(number=1, epochs=1)
    _, full = bench().run(number=2, epochs=1)
    assert (mixed.facts["dtype"], full.facts["dtype"]) == ("bfloat16 autocast", "float32")
    assert mixed.reports[0].metrics["loss"] != full.reports[0].metrics["loss"]
