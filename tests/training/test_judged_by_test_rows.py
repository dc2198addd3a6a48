"""Trained for good: a verification judges what it trained by test rows that no trial saw."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from finesweep import sweeps, verifying
from finesweep.driver import SweepEnd
from finesweep.errors import DataError
from finesweep.results.frames import open_results
from finesweep.results.schema import SweepState
from finesweep.training.best_weights import load_trained
from finesweep.training.encoding import collator, pad_id_of
from finesweep.training.judge_rows import score_rows
from finesweep.training.model_files import resolve_model
from finesweep.training.models import Model, load_tokenizer
from finesweep.training.prepare import load_split, prepare
from finesweep.verification.outcome import read_outcome
from finesweep.verification.record import verification_of

FULL = {"method": "full", "batch_size": 8}
HEAD = {"method": "feature-extraction", "batch_size": 8}
LORA = {"method": "lora", "batch_size": 8, "learning_rate": 1e-2}
BLOCK = {"method": "feature-extraction", "unfrozen_layers": 1, "pooling": "mean", "batch_size": 8}


@pytest.mark.parametrize("training", [FULL, HEAD, LORA, BLOCK], ids=["full", "head", "lora", "block"])
def test_weights_that_were_kept_score_on_rows_what_the_trial_reported_of_them(
    bench: Any, make_spec: Any, cache_dir: Path, tmp_path: Path, training: dict[str, Any]
) -> None:
    spec = make_spec(**training)
    result, told = bench(spec=spec).run()
    prepared = prepare(spec, cache_dir=cache_dir)
    scores = score_rows(
        load_trained(tmp_path / "artifacts" / result.artifacts["best"], cache_dir=cache_dir),
        load_split(prepared, "validation"),
        scoring=prepared.scoring,
        tokenizer=tokenizer_of(spec, cache_dir),
        settings=spec.training,
        use_cpu=True,
        scratch_dir=tmp_path,
    )
    best = min(told.reports, key=lambda report: report.metrics["loss"])
    assert scores == pytest.approx({name: best.metrics[name] for name in scores}, abs=1e-6)


def tokenizer_of(spec: Any, cache_dir: Path) -> Any:
    return load_tokenizer(resolve_model(spec.model, cache_dir=cache_dir))


@pytest.fixture
def searched(make_spec: Any, tmp_path: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run a sweep of four trials with test rows."""
    monkeypatch.setenv("FINESWEEP_CACHE", str(cache_dir))
    monkeypatch.chdir(tmp_path)
    parameters = {
        "learning_rate": {"type": "float", "low": 1e-3, "high": 1e-1, "log": True},
        "batch_size": {"type": "categorical", "choices": [4, 16]},
    }
    whole = make_spec(data={"test": 0.3}, parameters=parameters, method="feature-extraction", epochs=1)
    training = {
        key: value for key, value in whole.training.model_dump(exclude_unset=True).items() if key != "learning_rate"
    }
    spec = whole.model_copy(
        update={
            "training": type(whole.training).model_validate(training),
            "budget": whole.budget.model_copy(update={"trials": 4}),
        }
    )
    end = sweeps.run(spec, results=str(tmp_path / "r.db"), backend="inline")
    assert end.state is SweepState.FINISHED
    return tmp_path / "r.db"


def verify(path: Path, **options: Any) -> SweepEnd:
    prepared = verifying.prepare_verification("tiny", results=str(path), **options)
    return verifying.verify(prepared, backend="inline")


def test_a_verification_judges_each_training_by_the_test_rows_and_the_search_none(
    searched: Path, tmp_path: Path, cache_dir: Path
) -> None:
    end = verify(searched, top=2, n_seeds=2, n_race_seeds=2)
    assert (end.name, end.state, end.reason) == ("tiny-verify", SweepState.FINISHED, None)
    results = open_results(searched)
    assert all("test_metrics" not in facts for facts in results.attempts("tiny")["facts"])
    outcome = read_outcome(results, "tiny-verify")
    assert outcome is not None and outcome.won is not None and outcome.difference is not None
    assert (outcome.split, outcome.direction, outcome.is_over) == ("test", "minimize", True)
    assert (outcome.race_seeds, outcome.seeds) == ((4, 5), (6, 7))  # the search had 3
    assert outcome.n_ended == 2 * 2 + 2 + 2 == outcome.most_trainings
    trained = results.trials("tiny-verify")
    won = results.trial("tiny", outcome.won.trial or 0).configuration
    assert outcome.won.search_value == results.trial("tiny", outcome.won.trial or 0).value
    confirmed = [
        results.trial("tiny-verify", int(number)).facts
        for number in trained["number"]
        if results.trial("tiny-verify", int(number)).configuration in ({**won, "seed": 6}, {**won, "seed": 7})
    ]
    assert outcome.won.confirmed[0].values == tuple(facts["test_metrics"]["loss"] for facts in confirmed)
    assert {facts["n_test_rows"] for facts in confirmed} == {16}
    best = results.best("tiny-verify")
    assert best is not None
    model = load_trained(tmp_path / "artifacts" / "tiny-verify" / best.artifacts["best"], cache_dir=cache_dir)
    by_hand = mean_loss(model, results.spec("tiny-verify"), cache_dir)
    assert best.facts["test_metrics"]["loss"] == pytest.approx(by_hand, abs=1e-5)
    record = verification_of(results, "tiny")
    assert record is not None
    assert (record["split"], record["n"], record["seeds"], record["trial"]) == ("test", 2, [6, 7], outcome.won.trial)
    assert record["interval"][0] < record["mean"] < record["interval"][1]
    assert record["validation"]["mean"] != record["mean"]


def mean_loss(model: Model, spec: Any, cache_dir: Path) -> float:
    """Compute the cross entropy of the test rows with nothing but torch."""
    rows = load_split(prepare(spec, cache_dir=cache_dir), "test")
    batch = collator(pad_id_of(tokenizer_of(spec, cache_dir)))([rows[i] for i in range(len(rows))])
    labels = batch.pop("labels")
    with torch.no_grad():
        logits = model.eval()(**batch).logits
    return float(torch.nn.functional.cross_entropy(logits, labels))


def test_what_was_verified_once_is_verified_again_with_other_seeds(searched: Path) -> None:
    verify(searched, top=1, n_seeds=1, baseline="none")
    assert verify(searched, top=1, n_seeds=1, baseline="0").name == "tiny-verify-2"
    first, second = (read_outcome(open_results(searched), name) for name in ("tiny-verify", "tiny-verify-2"))
    assert first is not None and second is not None
    assert (first.seeds, first.baseline) == ((4,), None)
    assert second.seeds == (5,)


def test_a_sweep_whose_data_have_changed_is_not_verified(searched: Path, data_dir: Path, tmp_path: Path) -> None:
    prepared = verifying.prepare_verification("tiny", results=str(searched), top=1, n_seeds=1)
    path = tmp_path / "validation.jsonl"
    path.write_text((data_dir / "validation.jsonl").read_text().replace("w1", "w2"))
    other = prepared.spec.data.model_copy(update={"validation": str(path)})  # type: ignore[union-attr]
    spec = prepared.spec.model_copy(update={"data": other})
    changed = verifying.Verification(prepared.plan, spec, prepared.place, 1, None)
    with pytest.raises(DataError, match="data has changed since the sweep began"):
        verifying.verify(changed, backend="inline")
