"""Numbers for data of any size, and files that `check` accepts without a fault or a note."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from finesweep.spec.files import check_sweep
from finesweep.spec.sweep import Task
from finesweep.starting.columns import profile
from finesweep.starting.guess import Guess
from finesweep.starting.plan import Plan, make_plan
from finesweep.starting.write import Inputs, study_text, sweep_text

EVEN = profile("label", ["a", "b"] * 20, is_text=False)
UNEVEN = profile("label", ["a"] * 36 + ["b"] * 4, is_text=False)
GUESSES = {
    "classification": Guess("classification", {"text": "text", "label": "label"}, label=EVEN),
    "multi-label-classification": Guess("multi-label-classification", {"text": "a b", "label": "yes"}),
    "regression": Guess("regression", {"text": "1", "text_pair": "über: uns", "label": "#x"}),
    "prompt-completion": Guess("causal-lm", {"prompt": "p", "completion": "c"}, "prompt-completion"),
    "messages": Guess("causal-lm", {"messages": "messages"}, "messages"),
    "text": Guess("causal-lm", {"text": "text"}, "text"),
}


def plan_for(guess: Guess, n_rows: int = 1000, **options: Any) -> Plan:
    standard: dict[str, Any] = {"n_validation_rows": None, "lengths": range(10, 110), "positions": 512, "layers": 6}
    return make_plan(guess, n_rows=n_rows, **{**standard, **options})


@pytest.mark.parametrize(
    ("n_rows", "sizes", "epochs", "share"),
    [
        (10, (1, 2, 4), (3, 10), 0.2),
        (120, (4, 8, 16), (3, 10), 0.2),
        (1000, (8, 16, 32), (2, 5), 0.1),
        (200_000, (16, 32, 64), (1, 3), 0.1),
    ],
)
def test_batches_epochs_and_share_suit_the_rows(n_rows: int, sizes: Any, epochs: Any, share: float) -> None:
    plan = plan_for(GUESSES["classification"], n_rows)
    assert (plan.batch_sizes, plan.epochs, plan.validation_share) == (sizes, epochs, share)


def test_most_rows_fit_and_never_more_than_the_model_takes() -> None:
    assert plan_for(GUESSES["classification"]).max_length == 112  # 95 % of 10 to 109 tokens have 105 at most
    assert plan_for(GUESSES["classification"], lengths=[3] * 9).max_length == 16
    assert plan_for(GUESSES["classification"], lengths=[9000] * 9, positions=None).max_length == 512
    assert plan_for(GUESSES["messages"], lengths=[9000] * 9, positions=128).max_length == 128
    assert plan_for(GUESSES["text"], lengths=[3] * 9).max_length == 256  # packed


def test_the_objective_suits_the_labels() -> None:
    assert plan_for(GUESSES["classification"]).metric == "accuracy"
    assert plan_for(Guess("classification", {}, label=UNEVEN)).metric == "macro_f1"
    assert (plan_for(GUESSES["regression"]).metric, plan_for(GUESSES["regression"]).direction) == ("rmse", "minimize")
    assert plan_for(GUESSES["messages"]).metric == "loss"


def test_long_validation_is_limited_and_few_layers_are_heeded() -> None:
    assert plan_for(GUESSES["classification"], n_validation_rows=90_000).max_validation_rows == 2000
    assert plan_for(GUESSES["classification"]).max_validation_rows is None
    assert plan_for(GUESSES["classification"], layers=1).unfrozen_layers == (0, 1)
    assert plan_for(GUESSES["messages"], layers=1).unfrozen_layers == (1, 1)


@pytest.mark.parametrize("kind", GUESSES)
def test_what_is_written_has_no_fault_and_no_note(kind: str, tmp_path: Path) -> None:
    for folder in ("studies", "sweeps", "my data"):
        (tmp_path / folder).mkdir()
    rows = tmp_path / "my data" / "rows: all.jsonl"
    rows.write_text("{}\n")
    held_out = tmp_path / "my data" / "held out.csv"
    held_out.write_text("x\n")
    options = itertools.product((10, 1000, 100_000), (1, 6), (None, held_out), (False, True))
    for index, (n_rows, layers, validation, leave_out) in enumerate(options):
        inputs = Inputs(f"own.{index}", "org/model", rows, validation, n_rows, leave_out)
        n_held_out = 50 if validation else None
        plan = plan_for(GUESSES[kind], n_rows, layers=layers, n_validation_rows=n_held_out)
        (tmp_path / "studies" / f"{inputs.name}.yaml").write_text(study_text(inputs, GUESSES[kind], plan))
        path = tmp_path / "sweeps" / f"{inputs.name}.yaml"
        path.write_text(sweep_text(inputs, GUESSES[kind], plan, folder=tmp_path))
        checked = check_sweep(path)
        assert (checked.faults, checked.notes) == ((), ())
        assert checked.spec is not None and checked.spec.data is not None
        assert checked.spec.data.train == str(rows)
        assert checked.spec.data.validation == (str(held_out) if validation else plan.validation_share)
        assert {key: getattr(checked.spec.data, key) for key in GUESSES[kind].columns} == GUESSES[kind].columns
        task: Task | None = checked.spec.task
        assert task == GUESSES[kind].task
        assert checked.spec.data.incomplete == ("leave-out" if leave_out else "refuse")
