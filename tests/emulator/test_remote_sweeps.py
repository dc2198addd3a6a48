"""Sweeps whose trials are jobs of a fine-tuning server: the emulator, which really trains a tiny model."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.emulator.conftest import KEY, Server, as_file, jobs_at

from finesweep import sweeps
from finesweep.errors import RemoteError
from finesweep.results.frames import Results, open_results
from finesweep.spec.sweep import RemoteSweep, read_sweep
from finesweep.views.live import PlainView


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIED_API_KEY", KEY)


@pytest.fixture
def make_sweep(tmp_path: Path, rows: list[Any]) -> Callable[..., RemoteSweep]:
    """Return a function that makes a sweep of jobs; arguments replace whole sections, `remote` is added to."""
    for split in ("train", "validation"):
        (tmp_path / f"{split}.jsonl").write_bytes(as_file(rows))

    def make(server: Server, *, remote: Mapping[str, Any] | None = None, **sections: Any) -> RemoteSweep:
        content = {
            **jobs_at(server.base_url, tmp_path, **(remote or {})),
            "study": {
                "objective": {"metric": "valid_loss", "direction": "minimize"},
                "sampler": {"type": "random", "seed": 0},
                "parameters": {
                    "n_epochs": {"type": "categorical", "choices": [5, 10]},
                    "learning_rate_multiplier": {"type": "float", "low": 1, "high": 1000, "log": True},
                },
            },
            "training": {"batch_size": 4, "seed": 1},
            "budget": {"trials": 3},
            "results": f"sqlite:///{tmp_path / 'r.db'}",
        }
        spec = read_sweep({**content, **sections})
        assert isinstance(spec, RemoteSweep)
        return spec

    return make


@pytest.fixture
def results(tmp_path: Path) -> Callable[[], Results]:
    return lambda: open_results(str(tmp_path / "r.db"))


def run(spec: RemoteSweep, **options: Any) -> Any:
    said: list[str] = []
    return sweeps.run(spec, **{"view": PlainView(said.append), "backend": "inline", **options})


def test_jobs_are_trials(
    serve: Callable[..., Server], make_sweep: Callable[..., RemoteSweep], results: Callable[[], Results]
) -> None:
    server = serve()
    end = run(make_sweep(server, remote={"price_per_million": 6.0, "suffix": "owl"}))
    assert end.state == "FINISHED"
    trials, jobs = results().trials("animals"), server.emulator.store.jobs()
    assert trials["state"].tolist() == ["COMPLETE"] * 3
    assert len(jobs) == 3
    files = server.emulator.store.files()
    assert len(files) == 1  # train and validation are of one content, and all jobs share it
    best = results().best("animals")
    job = next(job for job in jobs if job.metadata["finesweep_trial"] == str(best.number))
    told = [event.data for event in job.events if event.data]
    assert best.value == min(point["valid_loss"] for point in told)
    assert [report.examples_seen for report in best.reports] == [4 * point["step"] for point in told]
    metrics = best.reports[0].metrics
    assert {"valid_loss", "train_loss", "valid_mean_token_accuracy"} <= metrics.keys()
    assert (metrics["loss"], metrics["token_accuracy"]) == (metrics["valid_loss"], metrics["valid_mean_token_accuracy"])
    assert best.facts["fine_tuned_model"] == job.fine_tuned_model
    assert ":owl:" in job.fine_tuned_model
    assert best.facts["cost"] == pytest.approx(job.trained_tokens * 6e-6)
    kept = json.loads((results().artifact_dir("animals") / best.artifacts["folder"] / "model.json").read_text())
    assert kept["fine_tuned_model"] == job.fine_tuned_model
    offered = {
        point["fine_tuned_model_checkpoint"]: point["metrics"]["full_valid_loss"] for point in kept["checkpoints"]
    }
    assert len(offered) == 3
    assert kept["best_checkpoint"] == best.facts["best_checkpoint"] == min(offered, key=offered.__getitem__)


def test_a_pruned_trial_is_a_cancelled_job(
    serve: Callable[..., Server], make_sweep: Callable[..., RemoteSweep], results: Callable[[], Results]
) -> None:
    server = serve()
    study = {
        "objective": {"metric": "valid_loss", "direction": "minimize"},
        "sampler": {"type": "random", "seed": 0},
        "pruner": {"type": "threshold", "upper": 0.5},  # whoever is above is stopped
        "parameters": {"learning_rate_multiplier": {"type": "float", "low": 1, "high": 2}},
    }
    training = {"batch_size": 1, "n_epochs": 50, "seed": 1, "eval_every": 60}
    run(make_sweep(server, study=study, training=training, budget={"trials": 1}))
    [trial] = results().trials("animals").to_dict("records")
    [job] = server.emulator.store.jobs()
    assert (trial["state"], job.status) == ("PRUNED", "cancelled")
    assert 0 < job.trained_tokens < 50 * 12 * 8


def test_without_a_key_nothing_is_begun(
    serve: Callable[..., Server], make_sweep: Callable[..., RemoteSweep], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve()
    monkeypatch.delenv("TRIED_API_KEY")
    with pytest.raises(RemoteError, match="TRIED_API_KEY is not set"):
        run(make_sweep(server))
    assert server.emulator.store.files() == []


def test_a_wrong_key_pauses_the_sweep(
    serve: Callable[..., Server], make_sweep: Callable[..., RemoteSweep], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(token="sk-the-one-that-is-right")
    end = run(make_sweep(server))
    assert end.state == "INTERRUPTED"
    assert "401 (invalid_api_key)" in end.reason
    assert KEY not in end.reason
    monkeypatch.setenv("TRIED_API_KEY", "sk-the-one-that-is-right")
    assert sweeps.resume("animals", results=make_sweep(server).results, backend="inline").state == "FINISHED"
    assert len(server.emulator.store.jobs()) == 3
