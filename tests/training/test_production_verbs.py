"""The verbs `train`, `predict` and `reproduce`: what they print, and how they exit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import transformers
from tests.commandline import invoke
from tests.training.conftest import CLASSES, make_llama, write_rows
from tests.training.records import Finished, run_one

from finesweep import run
from finesweep.results.frames import open_results
from finesweep.spec.sweep import TransformersSweep, read_sweep

SHOP = """\
import random

def train(trial, reporter):
    draw = random.Random(trial.seed)
    for seen in (50, 100, 150):
        if reporter.report(seen, {"score": trial.configuration["rate"] * seen + draw.random()}).must_return:
            return
"""


@pytest.fixture(autouse=True)
def _cached(cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINESWEEP_CACHE", str(cache_dir))


@pytest.fixture
def sweep(make_spec: Callable[..., TransformersSweep], tmp_path: Path) -> Callable[..., Finished]:
    def make(**options: Any) -> Finished:
        return run_one(make_spec(**{"eval_every": 40, **options}), tmp_path)

    return make


def _verified(low: float, high: float, split: str = "validation") -> Mapping[str, Any]:
    interval = [low, high]
    return {"trial": 0, "metric": "loss", "split": split, "seeds": [1, 2], "mean": 1.0, "prediction_interval": interval}


def test_a_record_is_trained_and_the_model_tried(sweep: Callable[..., Finished], tmp_path: Path) -> None:
    done = sweep(method="full")
    trained = invoke("train", str(done.file()), "-o", str(tmp_path / "model"))
    assert trained.exit_code == 0, trained.stderr
    assert trained.stdout == f"{tmp_path / 'model'}\n"
    assert "examples seen: loss" in trained.stderr
    assert f"--data={done.folder}" not in trained.stdout
    metrics = json.loads((tmp_path / "model" / "metrics.json").read_text())
    assert metrics["equals_trial"] is True
    assert metrics["command"].startswith("finesweep ")

    rows = [{"words": "w1 w2"}, {"words": "w21 w22 w23 w24 w25"}, {"words": "w41"}]
    file = write_rows(tmp_path / "tried.jsonl", rows)
    tried = invoke("predict", str(tmp_path / "model"), "--data", str(file), "--text", "words", "--top", "2")
    assert tried.exit_code == 0, tried.stderr
    answers = [json.loads(line) for line in tried.stdout.splitlines()]
    assert [answer["row"] for answer in answers] == [1, 2, 3]
    assert all(answer["label"] in CLASSES and len(answer["top"]) == 2 for answer in answers)
    assert all(answer["probability"] == max(one["probability"] for one in answer["top"]) for answer in answers)

    out = tmp_path / "out.jsonl"
    given = "".join(json.dumps({"text": row["words"]}) + "\n" for row in rows)
    piped = invoke("predict", str(tmp_path / "model"), "--data", "-", "-o", str(out), "--top", "2", given=given)
    assert piped.exit_code == 0, piped.stderr
    assert out.read_text() == tried.stdout
    again = invoke("predict", str(tmp_path / "model"), "--data", "-", "-o", str(out), given=given)
    assert again.exit_code == 2
    assert "--force" in again.stderr


def test_rows_without_the_column_are_refused_by_name(sweep: Callable[..., Finished], tmp_path: Path) -> None:
    invoke("train", str(sweep(method="feature-extraction").file()), "-o", str(tmp_path / "model"))
    file = write_rows(tmp_path / "tried.jsonl", [{"txt": "w1 w2"}])
    refused = invoke("predict", str(tmp_path / "model"), "--data", str(file))
    assert refused.exit_code == 2
    assert 'has no column "text". Did you mean "txt"?' in refused.stderr
    thrice = ("--text", "txt", "--text", "txt", "--text", "txt")
    assert "reads 2 columns at most" in invoke("predict", str(tmp_path / "model"), "--data", str(file), *thrice).stderr
    empty = invoke("predict", str(tmp_path / "model"), "--data", "-", given='{"text": " "}\n')
    assert 'row 1, column "text" holds' in empty.stderr


def test_a_folder_of_plain_transformers_is_tried_where_it_is_clear(
    tiny_bert: Path, tokenizer: Any, tmp_path: Path
) -> None:
    headless = invoke("predict", str(tiny_bert), "--data", "-", given='{"text": "w1"}\n')
    assert headless.exit_code == 2
    assert "is BertModel, which cannot be tried" in headless.stderr
    made = make_llama(tmp_path / "llama", tokenizer, is_tied=True)
    written = invoke("predict", str(made), "--data", "-", "--max-new-tokens", "3", given='{"prompt": "w1 w2"}\n')
    assert written.exit_code == 0, written.stderr
    assert set(json.loads(written.stdout)) == {"row", "text"}
    names = {"num_labels": 2, "id2label": {0: "no", 1: "yes"}, "label2id": {"no": 0, "yes": 1}}
    classifier = transformers.AutoModelForSequenceClassification.from_pretrained(tiny_bert, **names)
    classifier.save_pretrained(tmp_path / "classifier")
    tokenizer.save_pretrained(tmp_path / "classifier")
    told = invoke("predict", str(tmp_path / "classifier"), "--data", "-", given='{"text": "w1"}\n')
    assert json.loads(told.stdout)["label"] in ("no", "yes")


def test_chats_are_answered(make_spec: Callable[..., TransformersSweep], chatting_llama: Path, tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "w1 w2"}, {"role": "assistant", "content": "w3 w4"}]
    files = {split: str(write_rows(tmp_path / f"{split}.jsonl", [{"messages": chat}] * 9)) for split in ("train",)}
    data = {**files, "validation": files["train"], "format": "messages", "max_length": 24}
    done = run_one(make_spec(task="causal-lm", model=chatting_llama, data=data, method="lora"), tmp_path)
    trained = invoke("train", str(done.file()), "-o", str(tmp_path / "model"))
    assert trained.exit_code == 0, trained.stderr
    both = [invoke("predict", str(tmp_path / "model"), "--data", "-", given=json.dumps({"messages": chat[:n]}) + "\n")
            for n in (1, 2)]  # fmt: skip
    assert [one.exit_code for one in both] == [0, 0], both[0].stderr
    assert both[0].stdout == both[1].stdout  # the last answer is what is asked for


@pytest.mark.parametrize(("interval", "code"), [((0.0, 99.0), 0), ((0.0, 0.001), 1)])
def test_strict_holds_it_to_what_was_verified(
    interval: tuple[float, float], code: int, sweep: Callable[..., Finished], tmp_path: Path
) -> None:
    file = sweep(method="feature-extraction").file(verification=_verified(*interval))
    held = invoke("train", str(file), "-o", str(tmp_path / "model"), "--strict")
    assert held.exit_code == code, held.stderr
    assert ("OUTSIDE" in held.stderr) == bool(code)
    told = json.loads((tmp_path / "model" / "metrics.json").read_text())["prediction_interval"]
    assert told["is_broken"] == bool(code)
    loose = invoke("train", str(file), "-o", str(tmp_path / "other"))
    assert loose.exit_code == 0
    assert ("OUTSIDE" in loose.stderr) == bool(code)


def test_strict_asks_for_something_to_hold_to(sweep: Callable[..., Finished], tmp_path: Path) -> None:
    done = sweep(method="feature-extraction")
    folder = ("-o", str(tmp_path / "model"))
    without = invoke("train", str(done.file()), *folder, "--strict")
    assert without.exit_code == 2
    assert "finesweep verify tiny" in without.stderr
    both = invoke("train", str(done.file(verification=_verified(0, 9))), *folder, "--strict", "--full-data")
    assert both.exit_code == 2
    assert "a model that has learnt from them cannot be" in both.stderr
    assert not (tmp_path / "model").exists()


def test_data_is_checked_before_anything_is_made(sweep: Callable[..., Finished], tmp_path: Path) -> None:
    file = str(sweep(method="feature-extraction").file())
    for given, said in (
        ("validaton=x.jsonl", "did you mean"),
        ("train=/not/there.jsonl", "there is no file"),
    ):
        refused = invoke("train", file, "--data", given, "-o", str(tmp_path / "model"))
        assert refused.exit_code == 2
        assert said in refused.stderr
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("settings", [{"method": "full"}, {"method": "feature-extraction"}])
def test_a_trial_is_reproduced_to_the_last_bit(settings: Mapping[str, Any], sweep: Callable[..., Finished]) -> None:
    done = sweep(**settings)
    again = invoke("reproduce", "tiny:0", "--results", str(done.folder / "results.db"))
    assert again.exit_code == 0, again.stderr
    assert again.stdout == "tiny:0: reproduced, equal in all metrics of 3 reports.\n"
    assert "Around it nothing that counts has changed." in again.stderr
    assert "loss" in again.stderr


def test_what_differs_is_listed_first_and_shows(sweep: Callable[..., Finished], data_dir: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (data_dir / "train.jsonl").read_text().splitlines()]
    mine = write_rows(tmp_path / "mine.jsonl", rows)
    done = sweep(method="full", data={"train": str(mine)}, learning_rate=1e-2)
    _pretend(done, {"torch": "1.0.0"})
    write_rows(mine, [{**row, "label": CLASSES[i % 2]} if i % 2 else row for i, row in enumerate(rows)])
    url = str(done.folder / "results.db")
    again = invoke("reproduce", "tiny:0", "--results", url)
    lines = again.stderr.splitlines()
    at = lines.index("Not as it was when it was trained:")
    assert lines[at + 1].startswith("  torch: 1.0.0 then, ")
    assert lines[at + 2].startswith("  data fingerprint: ")
    assert "step" not in "".join(lines[:at])
    assert again.exit_code == 1
    assert "NOT reproduced within 0.02" in again.stdout
    told = json.loads(invoke("reproduce", "tiny:0", "--results", url, "--json", "--tolerance", "1000").stdout)
    assert told["is_met"] is True
    assert told["tolerance"] == 1000
    assert {row["metric"] for row in told["reports"]} >= {"loss", "accuracy", "train_loss"}


def _pretend(done: Finished, versions: Mapping[str, str]) -> None:
    """Have the database say that other versions trained it."""
    engine = sa.create_engine(f"sqlite:///{done.folder / 'results.db'}")
    provenance = dict(open_results(done.folder / "results.db").provenance("tiny"))
    changed = {**provenance, "versions": {**provenance["versions"], **versions}}
    with engine.begin() as connection:
        names = {row[0] for row in connection.execute(sa.text("SELECT name FROM sqlite_master WHERE type = 'table'"))}
        table = next(name for name in names if name.endswith("sweeps"))
        connection.execute(sa.text(f"UPDATE {table} SET provenance = :value"), {"value": json.dumps(changed)})
    engine.dispose()


def test_a_trial_that_took_over_a_result_leads_to_the_one_that_was_trained(
    make_spec: Callable[..., TransformersSweep], tmp_path: Path
) -> None:
    few = {"learning_rate": {"type": "categorical", "choices": [1e-3, 2e-3, 3e-3]}}
    spec = make_spec(method="full", eval_every=106, parameters=few)
    study = spec.study.model_copy(update={"sampler": spec.study.sampler.model_copy(update={"type": "random"})})
    budget = spec.budget.model_copy(update={"trials": 3})
    several = spec.model_copy(update={"study": study, "budget": budget, "try_defaults": False})
    run(several, results=str(tmp_path / "results.db"), backend="inline")
    trials = open_results(tmp_path / "results.db").trials("tiny")
    twin = trials[trials["reused_from"].notna()].iloc[0]
    again = invoke("reproduce", f"tiny:{twin['number']}", "--results", str(tmp_path / "results.db"))
    assert again.exit_code == 0, again.stderr
    origin = f"tiny:{int(twin['reused_from'])}, which is trained again"
    assert f"tiny:{twin['number']} took over the result of {origin}" in again.stderr


def test_a_lane_of_a_stack_is_reproduced_by_itself(make_spec: Callable[..., TransformersSweep], tmp_path: Path) -> None:
    spec = make_spec(method="feature-extraction", eval_every=40)
    three = tuple({"learning_rate": rate} for rate in (1e-3, 2e-3, 4e-3))
    budget = spec.budget.model_copy(update={"trials": 3})
    run(
        spec.model_copy(update={"start_with": three, "try_defaults": False, "budget": budget}),
        results=str(tmp_path / "results.db"),
        backend="inline",
    )
    again = invoke("reproduce", "tiny:1", "--results", str(tmp_path / "results.db"))
    assert "trained beside" in again.stderr
    assert again.exit_code == 0, again.stderr


def test_a_trainer_of_ones_own_is_reproduced_but_not_trained(tmp_path: Path) -> None:
    (tmp_path / "own_shop.py").write_text(SHOP)
    values = {
        "name": "shop",
        "trainer": "own_shop:train",
        "code_dir": str(tmp_path),
        "study": {
            "objective": {"metric": "score", "direction": "maximize"},
            "parameters": {"rate": {"type": "float", "low": 1.0, "high": 2.0}},
        },
        "training": {"total_examples": 150, "eval_every": 50, "seed": 4},
        "start_with": [{"rate": 1.5}],
        "try_defaults": False,
        "budget": {"trials": 1},
    }
    run(read_sweep(values), results=str(tmp_path / "results.db"), backend="inline")
    done = Finished(open_results(tmp_path / "results.db"), "shop", tmp_path)
    again = invoke("reproduce", "shop:0", "--results", str(tmp_path / "results.db"))
    assert again.exit_code == 0, again.stderr
    assert "equal in all metrics of 3 reports" in again.stdout
    refused = invoke("train", str(done.file()), "-o", str(tmp_path / "model"))
    assert refused.exit_code == 2
    assert "a trainer of your own" in refused.stderr
    (tmp_path / "own_shop.py").write_text(SHOP + "\n# mended\n")
    assert "code fingerprint: " in invoke("reproduce", "shop:0", "--results", str(tmp_path / "results.db")).stderr


@pytest.mark.slow  # two processes import torch, side by side
@pytest.mark.parametrize("settings", [{}, {"train_sampling_strategy": "group_by_length", "device_batch_size": 2}])
def test_two_processes_share_each_batch(
    settings: Mapping[str, Any],
    make_spec: Callable[..., TransformersSweep],
    tied_llama: Path,
    data_dir: Path,
    tmp_path: Path,
) -> None:
    """A model without dropout, and rows that fill whole batches: what is left is the order of sums."""
    rows = (data_dir / "train.jsonl").read_text().splitlines()[:48]
    (tmp_path / "train.jsonl").write_text("\n".join(rows) + "\n")
    data = {"train": str(tmp_path / "train.jsonl"), "test": str(data_dir / "validation.jsonl")}
    spec = make_spec(model=tied_llama, method="full", batch_size=8, eval_every=20, data=data, **settings)
    done = run_one(spec, tmp_path)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    verb = ["-m", "finesweep", "train", str(done.file()), "-o", str(tmp_path / "model")]
    launched = subprocess.run(
        [*launcher, *verb], env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300
    )
    assert launched.returncode == 0, launched.stderr
    assert launched.stdout.count(str(tmp_path / "model")) == 1  # the main process alone speaks
    told = json.loads((tmp_path / "model" / "metrics.json").read_text())
    assert told["n_processes"] == 2
    assert told["facts"]["device_batch_size"] == settings.get("device_batch_size", 4)
    record = done.record()
    assert told["splits"]["validation"]["loss"] == pytest.approx(record.metrics["loss"], rel=1e-5)
    assert set(told["splits"]) == {"validation", "test"}
    uneven = subprocess.run(
        [*launcher[:-1], "3", *verb[:-1], str(tmp_path / "third")],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert uneven.returncode != 0
    assert "cannot be shared evenly among 3 processes" in uneven.stderr
    assert not (tmp_path / "third").exists()
